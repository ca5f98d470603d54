"""A pure runtime for tests of the core: it drives one run with no disk, no clock and no threads.

A `Trial` is one life of a run. What its code asks for lies in `open` until the
test answers it; each answer is recorded and fed back. `finish` answers all, in an
order that the test chooses. `reborn` replays a journal in a new life, as after a
crash, and `crash_everywhere` does so at every record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from random import Random
from typing import Any

from perdure.codec import failures
from perdure.core.commands import (
    AnswerUpdate,
    AwaitChild,
    CancelCall,
    MarkPatch,
    Outcome,
    PendingCall,
    Publish,
    StartChild,
)
from perdure.core.execution import Execution
from perdure.core.host import Decode, RunFacts
from perdure.core.ready import Ready
from perdure.core.records import Kind, Record, Status
from perdure.errors import NonRetryable, StepFailed

CREATED_AT_MS = 1_700_000_000_000
SEED = bytes(range(16))

Body = Callable[[], Coroutine[Any, Any, Any]]
Choose = Callable[[Sequence[PendingCall]], int]
Asked = tuple[int, str, int]
"""The seq of the next record when it was asked, the key, the digest."""


def oldest(calls: Sequence[PendingCall]) -> int:
    return 0


def newest(calls: Sequence[PendingCall]) -> int:
    return len(calls) - 1


def shuffled(seed: int) -> Choose:
    random = Random(seed)
    return lambda calls: random.randrange(len(calls))


class Traced(Execution):
    """An execution that writes down all that its code asks for, also in a replay."""

    __slots__ = ("asked",)

    def __init__(self, facts: RunFacts, ready: Ready) -> None:
        super().__init__(facts, ready=ready, failures=failures)
        self.asked: list[Asked] = []

    def call_step(self, name: str, digest: int, decode: Decode, call: object) -> Any:
        before = len(self._pending)
        future = super().call_step(name, digest, decode, call)
        if self.loop.dead:
            return future
        assert len(self._pending) == before + 1
        self.asked.append((self.seq, next(reversed(self._pending)), digest))
        return future


class Trial:
    """One life of a run."""

    def __init__(self, *, deadline_ms: int | None = None, seed: bytes = SEED, run_id: str = "run-1") -> None:
        self.ready = Ready()
        facts = RunFacts(1, run_id, 1, "flow", seed, CREATED_AT_MS, deadline_ms)
        self.execution = Traced(facts, self.ready)
        self.journal: list[Record] = []
        self.undelivered: list[Record] = []
        self.open: dict[str, PendingCall] = {}
        self.cancelled: list[str] = []
        self.published: list[tuple[str, int, Any]] = []
        self.answers: dict[str, tuple[bool, Any]] = {}
        self.now_ms = CREATED_AT_MS

    # -- its life --------------------------------------------------------------------------------

    def begin(self, body: Body) -> Trial:
        with self.ready:
            self.execution.begin(body(), encode_result)
        self._carry_out()
        return self

    def replay(self, body: Body, records: Iterable[Record], *, live: bool = True) -> Trial:
        self.journal = list(records)
        if self.journal:
            self.now_ms = self.journal[-1].at_ms
        with self.ready:
            self.execution.foresee_patches(self.journal)
            self.execution.begin(body(), encode_result)
            self.execution.replay(self.journal)
            assert self.execution.commands == [], "a replay lets no command out"
            if live:
                self.execution.go_live()
        if live:
            self._carry_out()
        return self

    def _carry_out(self) -> None:
        commands, self.execution.commands = self.execution.commands, []
        for command in commands:
            match command:
                case AwaitChild():
                    pass
                case PendingCall():
                    assert command.key not in self.open, f"{command.key} was asked for twice"
                    self.open[command.key] = command
                case CancelCall(pending):
                    self.cancelled.append(pending.key)
                    self.open.pop(pending.key, None)
                case Publish(state, version, payload):
                    self.published.append((state, version, json.loads(payload)))
                case MarkPatch(name):
                    self.record(Kind.PATCH, name)
                case AnswerUpdate(request, ok, payload):
                    value = json.loads(payload) if ok else failures.decode_failure(payload)
                    self.answers[request] = (ok, value)

    # -- what happens to it ----------------------------------------------------------------------

    def record(self, kind: Kind, key: str = "", digest: int = 0, payload: bytes | None = None) -> Record:
        """Write a record; it is fed back by `deliver`, as after a commit."""
        record = Record(len(self.journal), kind, key, digest, self.now_ms, payload)
        self.journal.append(record)
        self.undelivered.append(record)
        return record

    def deliver(self) -> None:
        while self.undelivered:
            record = self.undelivered.pop(0)
            if self.outcome is None:
                self.feed(record)

    def feed(self, record: Record) -> None:
        self.now_ms = max(self.now_ms, record.at_ms)
        with self.ready:
            self.execution.apply(record)
        self._carry_out()

    def compute(self, key: str) -> None:
        """Run an open step and record what came of it, without delivering."""
        pending = self.open.pop(key)
        call: Any = pending.call
        try:
            value = call.definition.fn(*call.args, **call.kwargs)
        except Exception as error:
            whole = error
            if not isinstance(error, NonRetryable):
                whole = failures.step_failed(error, step=call.definition.name, attempts=(), run_id="run-1")
            kind = Kind.CHILD_FAILED if isinstance(pending, StartChild) else Kind.STEP_FAILED
            self.record(kind, key, pending.digest, failures.encode_failure(whole))
        else:
            kind = Kind.CHILD if isinstance(pending, StartChild) else Kind.STEP
            self.record(kind, key, pending.digest, json.dumps(value).encode())

    def answer(self, key: str) -> None:
        self.compute(key)
        self.deliver()

    def tick(self, *, late_ms: int = 0) -> None:
        """Let time go on to the next deadline."""
        at_ms = self.execution.next_deadline_ms()
        assert at_ms is not None, "no timer is set"
        self.now_ms = max(self.now_ms, at_ms + late_ms)
        if at_ms == self.execution.facts.deadline_ms:
            self.cancel("timeout")
        else:
            self.record(Kind.TICK)
            self.deliver()

    def signal(self, name: str, value: Any) -> None:
        self.record(Kind.SIGNAL, name, 0, json.dumps(value).encode())
        self.deliver()

    def update(self, name: str, request: str, value: Any) -> None:
        payload = json.dumps(value).encode()
        self.execution.judge_update(name, payload)
        self.record(Kind.UPDATE, f"{name}/{request}", 0, payload)
        self.deliver()

    def cancel(self, how: str = "cancel") -> None:
        self.record(Kind.CANCEL, how)
        self.deliver()

    def drop(self) -> None:
        self.execution.drop()

    # -- to the end ------------------------------------------------------------------------------

    def finish(
        self, choose: Choose = oldest, *, at: dict[int, Callable[[Trial], None]] | None = None
    ) -> Trial:
        """Answer all that is open, then let time go on, until the run ends or waits for a message.

        `at`: what to do first when that many records are written.
        """
        happens = dict(at or {})
        for _ in range(10_000):
            self.deliver()
            if self.outcome is not None:
                return self
            if (event := happens.pop(len(self.journal), None)) is not None:
                event(self)
            elif self.open:
                calls = list(self.open.values())
                self.answer(calls[choose(calls)].key)
            elif self.execution.next_deadline_ms() is not None:
                self.tick()
            else:
                return self
        raise AssertionError("the run does not come to an end")

    # -- what came of it -------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome | None:
        return self.execution.outcome

    @property
    def status(self) -> Status:
        return self.outcome.status if self.outcome is not None else Status.RUNNING

    @property
    def result(self) -> Any:
        assert self.outcome is not None, f"the run still waits for {list(self.open)}"
        if self.outcome.status is not Status.COMPLETED:
            raise AssertionError(f"the run is {self.outcome.status.word}") from self.outcome.error
        assert self.outcome.output is not None
        return json.loads(self.outcome.output)

    @property
    def error(self) -> BaseException:
        assert self.outcome is not None
        assert self.outcome.error is not None, f"the run is {self.outcome.status.word}"
        return self.outcome.error

    @property
    def asked(self) -> list[Asked]:
        return self.execution.asked

    def steps(self) -> list[str]:
        """The keys of the records that answer steps, in order."""
        return [record.key for record in self.journal if record.kind in (Kind.STEP, Kind.STEP_FAILED)]


def encode_result(value: Any) -> bytes:
    return json.dumps(value).encode()


def live(body: Body, choose: Choose = oldest, **facts: Any) -> Trial:
    """A run from its start to its end."""
    return Trial(**facts).begin(body).finish(choose)


def reborn(body: Body, journal: Iterable[Record], **facts: Any) -> Trial:
    """The run after a crash that left this journal."""
    return Trial(**facts).replay(body, journal)


def end_of(trial: Trial) -> tuple[Status, bytes | None, int | None]:
    assert trial.outcome is not None
    return trial.outcome.status, trial.outcome.output, trial.outcome.forget_from


def crash_everywhere(body: Body, first: Trial, **facts: Any) -> None:
    """Replay every prefix of a finished run's journal, and let it go on as it went on.

    Each must ask for the same, at the same places, and come to the same end.
    """
    for crash in range(len(first.journal) + 1):
        trial = reborn(body, first.journal[:crash], **facts)
        for record in first.journal[crash:]:
            if trial.outcome is None:
                trial.feed(record)
        assert trial.asked == first.asked, f"after a crash at record {crash}"
        assert end_of(trial) == end_of(first), f"after a crash at record {crash}"


__all__ = ["Kind", "Record", "Status", "StepFailed"]
