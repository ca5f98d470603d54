"""A world: the run that is explored, its children, and what comes to them, with no store and no clock.

It plays one schedule. Again and again it lists what can happen next, lets the
path choose, and makes it happen: a record, delivered to the run, whose commands
say what can happen after. It does what `runtime/driver`, `runtime/inbox` and
`runtime/children` do, in one thread and with no disk in between.

The default order, in which things are listed: what is in flight, the oldest
first; then what comes from outside, as it was given; then time; then a cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from ...blocks.workflow import Workflow
from ...codec.failures import encode_failure
from ...core import events
from ...core.commands import (
    AnswerUpdate,
    AwaitChild,
    CancelCall,
    Command,
    MarkPatch,
    Outcome,
    PendingCall,
    Publish,
    RunStep,
    StartChild,
    Unheard,
)
from ...core.host import RunFacts
from ...core.ready import Ready
from ...core.records import Kind, Record, Status
from ...errors import UpdateRefused
from ..clock import START_MS
from ..events import Append, Ask, Cancel, Send
from ..source import SeededSource
from .children import Children
from .choosing import current_choose
from .limits import Limits
from .path import Path, Possible
from .plan import Failure, Fakes, Outside, Plan, Wrong, broken_law, is_allowed, numbered, seconds
from .runs import ExploredRun, TracedExecution
from .steps import StepCalled, StepEnd, call_step
from .streams import Streams

_EVENTS_MAX = 10_000
_REST = "nothing more"


class World:
    """One schedule being played."""

    def __init__(self, plan: Plan, path: Path, things: Any) -> None:
        """`things` is what the user's `setup` made."""
        self.plan = plan
        self.path = path
        self.things = things
        self.now_ms = START_MS
        self.runs: list[ExploredRun] = []
        self.called: list[StepCalled] = []
        self.answers: list[tuple[Outside, AnswerUpdate]] = []
        self.published: list[tuple[int, str, bytes]] = []
        """By the run's number, in order."""
        self.journal: list[Record] = []
        """The records of all runs, in order."""
        self.counts: dict[str, int] = {}
        self.ready = Ready()
        self.in_flight: dict[tuple[int, str, str], Possible] = {}
        """By the run's number, what it is (`step`, `start`, `end`, `cancel`) and the call's key."""
        self.was_left = False
        """A run that may wait went on and on, and was left where it is."""
        self.was_late = False
        """A run was parked since all attempts of a step were late: a person is to resume it."""
        self.root: ExploredRun
        """The run that is explored: its newest generation."""
        self._streams = Streams(lambda: self.now_ms, self._send_event)
        self._fakes: Fakes = plan.fakes(things)
        self._undelivered = [list(row) for row in plan.events]
        self._asked: dict[str, Outside] = {}
        self._seed = SeededSource(plan.seed).bytes(16)
        self._children = Children(self)
        self._limits = Limits(self)

    async def play(self, after_each: Callable[[], Awaitable[None]] | None) -> None:
        """Play until nothing can happen any more. Raises Wrong where a law is broken."""
        call = self.plan.call
        limit = call.definition.timeout_ms
        facts = self.facts("run", 1, call.definition, None if limit is None else START_MS + limit)
        await self.begin(self.make_run(facts, call.definition, call.input()))
        while possible := self._possible():
            chosen = possible[self.path.choose([one.name for one in possible])]
            await chosen.happen()
            if after_each is not None:
                await after_each()
            if len(self.path.taken) > _EVENTS_MAX:
                raise Wrong(Failure("endless", f"After {_EVENTS_MAX:,} events the run has still not ended."))
        self.path.finish()

    def drop(self) -> None:
        """Let all runs vanish."""
        self.in_flight.clear()
        for run in self.runs:
            run.execution.drop()

    # -- what can happen -------------------------------------------------------------------------

    def _possible(self) -> list[Possible]:
        if self.plan.may_wait and len(self.path.taken) >= self.plan.depth:
            self.was_left = True
            return []
        possible = [one for key, one in self.in_flight.items() if not self._is_held(key)]
        cancels: list[Possible] = []
        if self.root.outcome is None:
            for row in self._undelivered:
                if row:
                    which = cancels if isinstance(row[0].event, Cancel) else possible
                    which.append(Possible(row[0].name, partial(self._deliver, row)))
        possible.extend(self._in_time())
        if possible or not cancels:
            return possible + cancels
        # Only a cancel could get it on, and none need ever come: that is to wait for ever.
        return [Possible(_REST, self._rest), *cancels] if self.plan.may_wait else []

    def _is_held(self, key: tuple[int, str, str]) -> bool:
        number, what, call = key
        if what != "end":
            return False
        # A run that is being cancelled hears of that before it hears of its children's ends.
        started = (number, "start", call.removesuffix("/end")) not in self.in_flight
        return not started or self.runs[number - 1].awaits_children is not None

    async def _rest(self) -> None:
        self._undelivered.clear()

    def _in_time(self) -> Iterator[Possible]:
        due = [
            (max(at_ms, self.now_ms), run)
            for run in self.runs
            if run.outcome is None
            and (at_ms := run.execution.next_deadline_ms()) is not None
            and not (run.awaits_children is not None and _is_out_of_time(run, at_ms))
        ]
        first_ms = min((at_ms for at_ms, _ in due), default=None)
        for at_ms, run in due:
            if at_ms == first_ms:
                what = "run timeout" if _is_out_of_time(run, at_ms) else "timer"
                name = f"{run.label}{what} {seconds(at_ms)}"
                yield Possible(name, partial(self._let_time_pass, run, at_ms))
        yield from self._limits.possible(first_ms)

    async def _let_time_pass(self, run: ExploredRun, at_ms: int) -> None:
        self.now_ms = at_ms
        if _is_out_of_time(run, at_ms):
            await self._children.time_out(run)
        else:
            await self.record(run, Kind.TICK)

    async def _deliver(self, row: list[Outside]) -> None:
        outside = row.pop(0)
        run = self.root
        match outside.event:
            case Send(signal):
                await self.record(run, Kind.SIGNAL, signal.name, payload=outside.payload)
            case Ask(update):
                self._asked[outside.name] = outside
                try:
                    run.execution.judge_update(update.name, outside.payload)
                except UpdateRefused as refusal:
                    answer = AnswerUpdate(outside.name, False, encode_failure(refusal))
                    self.answers.append((outside, answer))
                    self.path.taken[-1].what = f"refused: {refusal.what}"
                else:
                    key = f"{update.name}/{outside.name}"
                    await self.record(run, Kind.UPDATE, key, payload=outside.payload)
            case Append(stream, value):
                event = stream.new_event(value, outside.name, self.now_ms, id=None, time=None, source="test")
                self._streams.put(events.Append(stream.name, [event]))
            case Cancel(reason):
                await self._children.cancel(run, reason)

    def _send_event(self, run_id: str, what: str, signal: str, payload: bytes) -> None:
        name = numbered(what, self.counts)
        place = (0, "event", name)  # of no generation: it goes on to the one that is there then
        self.in_flight[place] = Possible(name, partial(self._hear_event, place, run_id, signal, payload))

    async def _hear_event(
        self, place: tuple[int, str, str], run_id: str, signal: str, payload: bytes
    ) -> None:
        del self.in_flight[place]
        run = next(one for one in reversed(self.runs) if one.facts.id == run_id)
        if run.outcome is None:
            await self.record(run, Kind.SIGNAL, signal, payload=payload)

    # -- runs ------------------------------------------------------------------------------------

    def facts(
        self, run_id: str, generation: int, definition: Workflow[Any, Any], deadline_ms: int | None
    ) -> RunFacts:
        """Who the next run is. Its seed follows from the exploration's, and not from the schedule."""
        seed = blake2b(f"{run_id}~{generation}".encode(), key=self._seed, digest_size=16).digest()
        number = len(self.runs) + 1
        return RunFacts(number, run_id, generation, definition.name, seed, self.now_ms, deadline_ms)

    def make_run(
        self,
        facts: RunFacts,
        definition: Workflow[Any, Any],
        data: bytes,
        *,
        label: str = "",
        follows: ExploredRun | None = None,
    ) -> ExploredRun:
        """A run, not begun yet; it has the parent of the run that it follows."""
        run = ExploredRun(facts, definition, data, label, TracedExecution(facts, self.ready))
        if follows is not None:
            run.parent, run.parent_key = follows.parent, follows.parent_key
            run.on_parent_close = follows.on_parent_close
        return run

    async def begin(self, run: ExploredRun) -> None:
        """Start a run's code."""
        self.runs.append(run)
        if run.parent is None:
            self.root = run
        try:
            with self.ready:
                run.execution.begin(run.definition.body(run.data), run.definition.encode_result)
        except Exception as error:
            raise broken_law(run.facts, error) from error
        await self.carry_out(run)

    async def record(
        self,
        run: ExploredRun,
        kind: Kind,
        key: str = "",
        digest: int = 0,
        payload: bytes | None = None,
        value: Any = ...,
    ) -> None:
        """Write a record and deliver it. Raises Wrong when the run's code breaks a law."""
        record = Record(len(run.journal), kind, key, digest, self.now_ms, payload, run.facts.number)
        run.journal.append(record)
        self.journal.append(record)
        try:
            with self.ready:
                if value is ...:
                    run.execution.apply(record)
                else:
                    run.execution.apply(record, value)
        except Exception as error:
            raise broken_law(run.facts, error) from error
        await self.carry_out(run)

    async def carry_out(self, run: ExploredRun) -> None:
        """Do what a run asked for."""
        execution = run.execution
        commands, execution.commands = execution.commands, []
        outcome = execution.outcome
        is_parked = outcome is not None and outcome.status is Status.PARKED
        for command in commands:
            if not is_parked:
                await self._carry_out_one(run, command)
            elif isinstance(command, CancelCall) and isinstance(command.pending, RunStep):
                # All else that it asked for in the event that parks it is taken back.
                await self._interrupt(run, command.pending)
        if outcome is not None and run.outcome is None:
            await self._close(run, outcome)

    async def _carry_out_one(self, run: ExploredRun, command: Command) -> None:
        match command:
            case RunStep():
                name = numbered(f"{run.label}{command.call.definition.name}", self.counts)
                possible = Possible(f"{name} done", partial(self._finish_step, run, command))
                self.in_flight[run.facts.number, "step", command.key] = possible
                self._limits.begin(run, command, name)
            case StartChild():
                await self._children.start(run, command)
            case AwaitChild():
                pass  # its end is in flight once it has ended
            case CancelCall(pending):
                if isinstance(pending, RunStep):
                    await self._interrupt(run, pending)
                else:
                    self._children.give_up(run, pending)
            case Publish(state, _, payload):
                run.published[state] = payload
                self.published.append((run.facts.number, state, payload))
            case Unheard(error):
                if not is_allowed(error, self.plan.may_raise):
                    text = f"A task of run {run.facts.id!r} failed, and nobody awaited it"
                    raise Wrong(Failure("unheard", f"{text}: {type(error).__name__}: {error}", error))
            case MarkPatch(name):
                await self.record(run, Kind.PATCH, name)
            case AnswerUpdate(request):
                self.answers.append((self._asked[request], command))
            case PendingCall():
                raise AssertionError(f"no such command: {command!r}")

    async def _close(self, run: ExploredRun, outcome: Outcome) -> None:
        run.outcome = outcome
        number = run.facts.number
        was_to_stop = (number, "cancel", "") in self.in_flight
        for place in [place for place in self.in_flight if place[0] == number]:
            del self.in_flight[place]
        self._limits.end_all(run)
        if outcome.status is Status.PARKED:
            return
        for child in self._children.open_of(run):
            self._children.send_cancel(child)
        if outcome.status is Status.CONTINUED:
            await self._continue(run, outcome)
            if was_to_stop:
                self._children.send_cancel(self._newest(run))
        elif run.parent is not None:
            await self._children.tell_parent(run)

    async def _continue(self, run: ExploredRun, outcome: Outcome) -> None:
        call: Any = outcome.next_call
        limit = call.definition.timeout_ms
        deadline_ms = run.facts.deadline_ms if limit is None else self.now_ms + limit
        facts = self.facts(run.facts.id, run.facts.generation + 1, call.definition, deadline_ms)
        await self.begin(self.make_run(facts, call.definition, call.input(), label=run.label, follows=run))
        for name, payload in outcome.unreceived:
            newest = self._newest(run)
            if newest.outcome is None:
                await self.record(newest, Kind.SIGNAL, name, payload=payload)

    def _newest(self, run: ExploredRun) -> ExploredRun:
        """The newest generation of a run."""
        return next(one for one in reversed(self.runs) if one.facts.id == run.facts.id)

    # -- steps -----------------------------------------------------------------------------------

    async def _act(self, run: ExploredRun, pending: RunStep, name: str, *, heard: bool) -> StepEnd:
        definition = pending.call.definition
        function = self._fakes.get(definition) or self._streams.in_place_of(definition) or definition.fn
        chosen = self.path.taken[-1]
        before = current_choose.set(partial(self._choose, name))
        try:
            end = await call_step(
                run.facts, pending, function, self._limits.lost(run, pending),
                now_ms=self.now_ms, heard=heard, called=self.called,
            )  # fmt: skip
        finally:
            current_choose.reset(before)
        chosen.what = self.called[-1].text
        return end

    def _choose(self, name: str, options: Sequence[str]) -> int:
        """What a step comes to, where its function leaves that open."""
        return self.path.choose([f"{name}: {option.replace(',', ';')}" for option in options])

    async def _finish_step(self, run: ExploredRun, pending: RunStep) -> None:
        possible = self.in_flight[run.facts.number, "step", pending.key]
        end = await self._act(run, pending, possible.name.removesuffix(" done"), heard=True)
        self.land(run, pending)
        await self.record(run, end.kind, pending.key, pending.digest, end.payload, end.value)

    async def _interrupt(self, run: ExploredRun, pending: RunStep) -> None:
        """Nobody waits for a step any more."""
        possible = self.in_flight.get((run.facts.number, "step", pending.key))
        if possible is not None:
            await self.act_perhaps(run, pending, possible.name.removesuffix(" done"))
            self.land(run, pending)

    def land(self, run: ExploredRun, pending: RunStep) -> None:
        """A step is in flight no more."""
        del self.in_flight[run.facts.number, "step", pending.key]
        self._limits.end(run, pending)

    async def act_perhaps(self, run: ExploredRun, pending: RunStep, name: str) -> None:
        """Nobody will hear of what a step does now. It may have acted, or not: both are tried."""
        if self.path.choose([f"{name} did not act", f"{name} acted"]):
            await self._act(run, pending, name, heard=False)


def _is_out_of_time(run: ExploredRun, at_ms: int) -> bool:
    return run.facts.deadline_ms is not None and run.facts.deadline_ms <= at_ms
