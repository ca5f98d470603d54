"""One run: events in, commands out.

An `Execution` holds the run's loop and knows which calls wait for an answer.
It is driven by two verbs. `begin` starts the workflow's coroutine; `apply`
delivers one recorded event and pumps until the run waits again. A fresh run and
a replay go through the same door, one recorded event after another, so that
they cannot differ: nothing looks ahead in the journal.

While it replays, no command leaves. `go_live` ends the replay, and asks for
what the journal did not answer.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any, NoReturn, TypeVar

from ..errors import BoundaryError, ContinueAsNew, NotAwaited, StepFailed
from .commands import (
    AnswerUpdate,
    AwaitChild,
    CancelCall,
    Command,
    MarkPatch,
    Outcome,
    PendingCall,
    Publish,
    RunStep,
    StartApart,
    StartChild,
)
from .ending import heed, holds, undo_all, unheard_failures
from .host import Decode, Failures, RunFacts, current_host
from .journal import mismatch, step_without_caller, undecodable
from .loop import RunLoop, RunTask
from .mailbox import Mailbox, unreceived
from .ready import Ready
from .records import Kind, Record, Status
from .updates import Updates

T = TypeVar("T")

_UNKNOWN: Any = object()


class Execution:
    """A run in memory. It is the host of the blocks used in its code."""

    __slots__ = (
        "_abandoned", "_asked", "_asked_before", "_body_error", "_broken", "_cancelled_by", "_context",
        "_encode_result", "_ends", "_failed_at", "_failures", "_judging", "_mailboxes", "_next_call",
        "_orphans", "_owned", "_patches", "_pending", "_published", "_root", "_seen_cancels", "_undo",
        "commands", "facts", "has_children", "loop", "outcome", "replaying", "seq", "updates",
    )  # fmt: skip

    def __init__(self, facts: RunFacts, *, ready: Ready, failures: Failures) -> None:
        self.facts = facts
        self.loop = RunLoop(
            time=facts.created_at_ms / 1000, salt=int.from_bytes(facts.seed[:5], "big"), ready=ready
        )
        self.commands: list[Command] = []
        self.outcome: Outcome | None = None
        self.replaying = False
        self.seq = 0
        """The seq of the next record to deliver."""
        self.has_children = False
        self._failures = failures
        self._pending: dict[str, PendingCall] = {}
        self._abandoned: set[str] | None = None
        self._mailboxes: dict[str, Mailbox] | None = None
        self.updates: Updates | None = None
        self._published: dict[str, tuple[int, bytes]] | None = None
        self._owned: dict[tuple[str, str], Any] | None = None
        self._patches: dict[str, bool] | None = None
        self._undo: list[Any] | None = None
        self._failed_at: tuple[int, BaseException] | None = None
        self._body_error: BaseException | None = None
        self._broken: Exception | None = None
        self._next_call: object = None
        self._seen_cancels = 0
        self._ends: dict[str, Record | None] | None = None
        """Of children that were started apart: their ends, by key; None before it has come."""
        self._orphans: list[PendingCall] = []
        self._judging = False
        # Empty, and not a copy of the caller's: what stands there would not be there in a replay.
        self._context = Context()
        self._context.run(current_host.set, self)
        self._asked = 0
        self._asked_before = 0
        self._cancelled_by = ""
        self._root: RunTask | None = None

    # -- driving: events in ----------------------------------------------------------------------

    def begin(self, body: Coroutine[Any, Any, Any], encode_result: Callable[[Any], bytes]) -> None:
        """Start the workflow's coroutine and run it until it waits."""
        self._encode_result = encode_result
        self._root = RunTask(body, loop=self.loop, path="0", context=self._context)
        self.loop.pump()
        self._settle()

    def replay(self, records: Iterable[Record]) -> None:
        """Deliver recorded events; commands are held back until `go_live`.

        Raises JournalMismatch when the code does not ask for what was recorded.
        """
        for record in records:
            if self.outcome is not None and not self._may_follow_the_end(record):
                raise mismatch(self.facts, record, self._pending, self.loop.tasks, ended=True)
            self.apply(record)

    def _may_follow_the_end(self, record: Record) -> bool:
        # Written in one commit with the record that ended the run, before it was known to.
        if record.kind in (Kind.TICK, Kind.SIGNAL, Kind.UPDATE, Kind.CANCEL, Kind.PATCH):
            return True
        return record.key in (self._abandoned or ()) or record.key in (self._ends or ())

    def foresee_patches(self, records: Iterable[Record]) -> None:
        """Learn which patches were taken, before the replay comes to them."""
        self.replaying = True
        self._patches = {record.key: True for record in records if record.kind == Kind.PATCH}

    def go_live(self) -> None:
        """End the replay and ask for all that is still unanswered."""
        self.replaying = False
        self.commands = [] if self.outcome is not None else list(self._pending.values())
        # Children whose waiter was cancelled: whether they were told so is not recorded.
        self.commands.extend(CancelCall(orphan) for orphan in self._orphans)
        self._orphans.clear()
        for state, (version, payload) in (self._published or {}).items():
            self.commands.append(Publish(state, version, payload))
        if self.updates is not None:
            self.commands.extend(self.updates.answered)

    def apply(self, record: Record, value: Any = _UNKNOWN) -> None:
        """Deliver one recorded event and run until the run waits again.

        `value` is the decoded payload where the caller has it already.
        """
        assert record.seq == self.seq, f"run {self.facts.id!r}: record {record.seq} where {self.seq} is due"
        self.seq += 1
        loop = self.loop
        loop.advance(record.at_ms)
        self._asked_before = self._asked
        if self._root is not None and self.outcome is None:
            kind = record.kind
            if kind == Kind.STEP:
                self._answer(record, value)
            elif kind != Kind.TICK:
                self._apply_other(record, value)
            loop.pump()
        self._settle()

    def _answer(self, record: Record, value: Any) -> None:
        pending = self._take(record)
        if pending is None:
            return
        if value is _UNKNOWN:
            assert record.payload is not None
            try:
                value = pending.decode(record.payload)
            except Exception as error:
                raise undecodable(self.facts, record, error) from error
        if not pending.future.done():
            pending.future.set_result(value)

    def _take(self, record: Record) -> PendingCall | None:
        pending = self._pending.pop(record.key, None)
        if pending is None:
            if self._ends is not None and record.key in self._ends:
                self._ends[record.key] = record
                return None
            if self._abandoned is not None and record.key in self._abandoned:
                return None
            raise mismatch(self.facts, record, self._pending, self.loop.tasks)
        if pending.digest != record.digest:
            self._pending[record.key] = pending
            raise mismatch(self.facts, record, self._pending, self.loop.tasks)
        return pending

    def _apply_other(self, record: Record, value: Any) -> None:
        kind = record.kind
        payload = record.payload or b""
        if kind in (Kind.STEP_FAILED, Kind.CHILD_FAILED):
            pending = self._take(record)
            if pending is not None and not pending.future.done():
                error = value if value is not _UNKNOWN else self._failures.decode_failure(payload)
                undoing = self._body_error is not None  # nobody catches what an undo call raises
                if undoing or (kind == Kind.STEP_FAILED and isinstance(error, StepFailed)):
                    self._failed_at = (record.seq, error)
                pending.future.set_exception(error)
        elif kind in (Kind.CHILD, Kind.CHILD_STARTED):
            self._answer(record, value)
        elif kind == Kind.SIGNAL:
            self.loop.call_soon(self._mailbox(record.key).put, payload, context=self._context)
        elif kind == Kind.UPDATE:
            name, _, request = record.key.rpartition("/")
            accept = self._updates().accept
            self.loop.call_soon(accept, name, request, payload, f"u{record.seq}", context=self._context)
        elif kind == Kind.CANCEL:
            self._cancel(record.key)

    def judge_update(self, name: str, payload: bytes) -> None:
        """Let the run's validator look at an update before it is recorded.

        Raises UpdateRefused; nothing has changed then.
        """
        broken, self._judging = self._broken, True
        try:
            self.loop.look(self._context, self._updates().judge, name, payload)
        finally:
            self._judging = False
            self._broken = broken

    def _cancel(self, how: str) -> None:
        assert self._root is not None
        if self.loop.cancelling or self._body_error is not None:
            return  # once is enough, and undo calls run to their end
        self._cancelled_by = how
        self.loop.cancelling = True
        self._root.doomed = True
        self._root.cancel(how)

    # -- after each pump -------------------------------------------------------------------------

    def _settle(self) -> None:
        loop = self.loop
        if loop.cancels != self._seen_cancels:
            self._seen_cancels = loop.cancels
            self._abandon_cancelled_calls()
        if loop.complaints:
            self._hear_complaints()
        root = self._root
        if root is None or not root.done() or self.outcome is not None:
            if self._broken is not None:
                raise self._broken
            return
        error = CancelledError() if root.cancelled() else root.exception()
        # An error of the code's own drops calls on its way out: then it is the one to tell of.
        if self._broken is not None and (error is None or not isinstance(self._broken, NotAwaited)):
            raise self._broken
        self._broken = None
        self._root_done(root, error)

    def _abandon_cancelled_calls(self) -> None:
        for key, pending in list(self._pending.items()):
            if pending.future.cancelled():
                del self._pending[key]
                if self._abandoned is None:
                    self._abandoned = set()
                self._abandoned.add(key)
                if pending in self.commands:
                    self.commands.remove(pending)  # asked for and given up in one event: never begun
                elif not self.replaying:
                    self.commands.append(CancelCall(pending))
                elif isinstance(pending, StartChild):
                    self._orphans.append(pending)

    def _hear_complaints(self) -> None:
        broken, unheard = heed(self.loop.complaints or [], self.facts.id)
        self.loop.complaints, self._broken = None, broken or self._broken
        if not self.replaying:
            self.commands.extend(unheard)

    def _root_done(self, root: RunTask, error: BaseException | None) -> None:
        if self._body_error is not None:
            # The undo calls have all run; the run ends with what made them necessary.
            # One that failed for good parks the run instead, so that it can be tried again.
            error = error if error is not None and self._parks(error) else self._body_error
        elif error is not None and self._undo and not isinstance(error, ContinueAsNew):
            self._body_error = error
            calls, self._undo = self._undo, None
            self._root = RunTask(undo_all(calls), loop=self.loop, path="undo", context=self._context)
            self._root.sheltered = True
            self.loop.pump()
            self._settle()
            return
        self.outcome = self._outcome(root, error)._replace(seq=self.seq)
        self._end()

    def _outcome(self, root: RunTask, error: BaseException | None) -> Outcome:
        encode = self._failures.encode_failure
        if error is None:
            try:
                return Outcome(Status.COMPLETED, self._encode_result(root.result()))
            except Exception as refused:
                return Outcome(Status.FAILED, encode(refused), refused)
        if isinstance(error, ContinueAsNew):
            left = unreceived(self._mailboxes or {})
            return Outcome(Status.CONTINUED, None, None, self._next_call, None, left)
        if isinstance(error, CancelledError):
            status = Status.TIMED_OUT if self._cancelled_by == "timeout" else Status.CANCELLED
            return Outcome(status, encode(error), error)
        if self._parks(error):
            assert self._failed_at is not None
            return Outcome(Status.PARKED, encode(error), error, None, self._failed_at[0])
        if isinstance(error, BoundaryError) and self._body_error is None:
            return Outcome(Status.PARKED, encode(error), error)  # put right, the code can go on
        return Outcome(Status.FAILED, encode(error), error)

    def _parks(self, error: BaseException) -> bool:
        """Whether a step's failure went straight through: then a person may try it again.

        Straight through means in the very event that brought it, with nothing
        asked for on the way: a run that cleaned up has decided to fail.
        """
        if self._failed_at is None or self._failed_at[0] != self.seq - 1:
            return False
        if (self.loop.cancelling and self._body_error is None) or not holds(error, self._failed_at[1]):
            return False
        return self._asked == self._asked_before

    def _end(self) -> None:
        if self.updates is not None:
            self.updates.refuse_unfinished()
        if not self.replaying:
            self.commands.extend(unheard_failures(self.loop.tasks))
            self.commands.extend(CancelCall(pending) for pending in self._pending.values())
        self._abandoned = {*(self._abandoned or ()), *self._pending}
        self._pending.clear()
        self.drop()

    def drop(self) -> None:
        """Let the run's coroutines vanish; no effect leaves."""
        commands = list(self.commands)
        self.loop.kill(self._context)
        self.commands = commands
        # Circles through the task and its calls are cut here: memory is free at once, with no collector.
        self._context, self._root, self._pending = Context(), None, {}

    def next_deadline_ms(self) -> int | None:
        """When the run must be woken if nothing else happens; None: never."""
        at_ms = self.loop.next_deadline_ms()
        limit = self.facts.deadline_ms
        if limit is None or self.loop.cancelling or self._body_error is not None:
            return at_ms  # without a limit, or past it: undo calls run to their end
        return limit if at_ms is None or limit < at_ms else at_ms

    @property
    def pending(self) -> Iterable[PendingCall]:
        """The calls whose answer is not recorded yet, in the order of asking."""
        return self._pending.values()

    def pending_call(self, key: str) -> PendingCall | None:
        """The unanswered call of this key; None when nobody waits for it."""
        return self._pending.get(key)

    # -- the host: what blocks ask for -----------------------------------------------------------

    def _next_key(self, name: str) -> str:
        # Taken before the first await: two branches would otherwise be numbered
        # in the order in which they happened to get on.
        task = self.loop.current_task()
        if task is None:
            raise BoundaryError(
                f"Run {self.facts.id!r} called {name!r} from a callback or from another thread.",
                hint="Await it in the workflow or in a task made with asyncio.create_task.",
            )
        ordinal = task.calls
        task.calls = ordinal + 1
        return f"{task.path}/{ordinal}/{name}"

    def _ask(self, pending: PendingCall) -> Future[Any]:
        self._asked += 1
        self._pending[pending.key] = pending
        if not self.replaying:
            self.commands.append(pending)  # type: ignore[arg-type]
        return pending.future

    def call_step(self, name: str, digest: int, decode: Decode, call: object) -> Future[Any]:
        if self.loop.dead:
            return self.loop.refuse()
        key = self._next_key(name)
        pending = RunStep(key, digest, decode, call, self.loop.create_future(), self.loop.time())
        self._asked += 1
        self._pending[key] = pending
        if not self.replaying:
            self.commands.append(pending)
        return pending.future

    def call_child(
        self, name: str, digest: int, decode: Decode, call: object, *, apart: bool, options: object = None
    ) -> tuple[str, Future[Any]]:
        if self.loop.dead:
            return "", self.loop.refuse()
        self.has_children = True
        make = StartApart if apart else StartChild
        future = self.loop.create_future()
        pending = make(self._next_key(name), digest, decode, call, future, self.loop.time())
        pending.options = options
        if apart:
            self._ends = {**(self._ends or {}), f"{pending.key}/end": None}
        return pending.key, self._ask(pending)

    def child_result(self, key: str, decode: Decode) -> Future[Any]:
        future = self.loop.create_future()
        if self.loop.dead:
            return future
        pending = AwaitChild(f"{key}/end", 0, decode, None, future, self.loop.time())
        self._ask(pending)
        record = self._ends.get(pending.key) if self._ends else None
        if record is not None:  # it ended before anybody asked
            self._apply_other(record, _UNKNOWN)
        return future

    def _mailbox(self, name: str) -> Mailbox:
        if self._mailboxes is None:
            self._mailboxes = {}
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = self._mailboxes[name] = Mailbox(self.loop)
        return mailbox

    def _may_act(self) -> None:
        """Refuse what dropped code, or an update's validator, asks for."""
        if self.loop.dead:
            self.loop.refuse()
        if self._judging:
            raise BoundaryError(
                f"The validator of an update of run {self.facts.id!r} tried to change something.",
                hint="A validator may only look and raise; do the rest in the handler.",
            )

    def mailbox(self, signal: str, decode: Decode) -> Mailbox:
        self._may_act()
        mailbox = self._mailbox(signal)
        mailbox.decode = decode
        return mailbox

    def _updates(self) -> Updates:
        if self.updates is None:
            self.updates = Updates(self)
        return self.updates

    def handle_updates(self, update: str, handler: Any) -> None:
        self._may_act()
        self._updates().handle(update, handler)

    def answer_update(self, answer: AnswerUpdate) -> None:
        """An update's handler has come to its end."""
        if not self.replaying:
            self.commands.append(answer)

    def encode_failure(self, error: BaseException) -> bytes:
        """As it goes into a record."""
        return self._failures.encode_failure(error)

    def publish(self, state: str, payload: bytes) -> None:
        self._may_act()
        if self._published is None:
            self._published = {}
        version = self._published[state][0] + 1 if state in self._published else 1
        self._published[state] = (version, payload)
        if not self.replaying:
            self.commands.append(Publish(state, version, payload))

    def now_ms(self) -> int:
        return round(self.loop.time() * 1000)

    def own(self, name: str, make: Callable[[bytes], T]) -> T:
        self._may_act()
        task = self.loop.current_task()
        path = task.path if task is not None else "c"
        if self._owned is None:
            self._owned = {}
        if (path, name) not in self._owned:
            self._owned[path, name] = make(self.facts.seed + f"{path}/{name}".encode())
        return self._owned[path, name]

    def patched(self, name: str) -> bool:
        self._may_act()
        if self._patches is None:
            self._patches = {}
        if name not in self._patches:
            # In a replay the old code went by here. What ran after the last record
            # is a replay too: a step that the old code asked for may be under way.
            self._patches[name] = not self.replaying
            if not self.replaying:
                self.commands.append(MarkPatch(name))
        return self._patches[name]

    def compensate(self, call: object) -> None:
        self._may_act()
        self._undo = [*(self._undo or ()), call]

    def continue_as_new(self, call: object) -> NoReturn:
        self._may_act()
        self._next_call = call
        raise ContinueAsNew

    def not_awaited(self, what: str) -> None:
        if not self.loop.dead and self._broken is None and self.outcome is None:
            self._broken = NotAwaited(
                f"Run {self.facts.id!r} called {what} and never awaited it, so it was never asked for.",
                hint=step_without_caller(what),
            )
