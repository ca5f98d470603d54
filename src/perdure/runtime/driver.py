"""THE LOOP: ask, do, commit, feed back.

A run is asked (`Execution.apply`), and answers with commands. The driver does
them: it starts steps and children, publishes states. What comes of a step is
recorded; the committer writes it; and once it is on disk it is fed back to the
run, which answers with commands.

    deliver ──▶ apply ──▶ commands ──▶ effects ──▶ record ──▶ commit ──▶ deliver …

The laws it keeps: nothing is fed back that is not on disk; a run's records are
fed back in the order in which they were recorded; a run whose code breaks a law
(JournalMismatch, BoundaryError …) parks before any new effect leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from ..codec import failures
from ..codec.tracebacks import from_the_users
from ..core.commands import (
    AnswerUpdate,
    AwaitChild,
    CancelCall,
    MarkPatch,
    Publish,
    RunStep,
    StartChild,
    Unheard,
)
from ..core.execution import Execution
from ..core.host import facts_of
from ..core.ready import Ready
from ..core.records import Kind, Message, Record, RunRow, Status
from ..errors import CommitsLost, LeaseLost, PerdureError, StoreCorrupt
from ..stores.base import AttemptRow, JobRow, Lease, Reply, RunEnd, StateRow, Store
from .children import Children
from .clock import Clock, Source
from .closing import Closing
from .committer import Committer
from .definitions import StepCallLike, WorkflowDefinition
from .effects import Effects, Recorder
from .floor import Floor
from .horizon import Horizon
from .reads import Reads
from .registry import Registry
from .resident import Resident
from .timers import Timers

_log = logging.getLogger("perdure")

CRASHES_BEFORE_PARKING = 5
_STEPS_MAY_TAKE_S = 5.0
_DRAIN_LOOKS_EVERY_S = 0.02
RESIDENTS_KEPT = 10_000
"""How many runs that wait for time or a message stay in memory; the others are replayed when needed."""


class Driver:
    """Drives all runs of one worker."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        registry: Registry,
        clock: Clock,
        source: Source,
        *,
        on_fatal: Callable[[BaseException], None],
        residents_kept: int = RESIDENTS_KEPT,
        make_committer: type[Committer] = Committer,
        make_effects: Callable[[Recorder, Clock, Source], Effects] = Effects,
        make_reads: Callable[[Store], Reads] = Reads,
    ) -> None:
        """What makes a committer, effects and reads is for tests, which look on, or delay them."""
        self.store = store
        self.lease = lease
        self.registry = registry
        self.clock = clock
        self.source = source
        self.turn = Ready()
        """Entered around everything that pumps runs."""
        self.committer = make_committer(store, lease, self.turn, self.deliver, on_fatal)
        self.effects = make_effects(self, clock, source)
        self.reads = make_reads(store)
        self.floor = Floor(clock)
        self.horizon = Horizon(clock, self.reads, self.complain)
        self.timers = Timers(clock, self.reads, lease, self._time_has_come)
        self.children = Children(self)
        self.closing = Closing(self, self.children)
        self.residents: dict[int, Resident] = {}
        self.timers.residents = self.residents
        self.loading: set[int] = set()
        """Runs that are being read from the store, or claimed."""
        self.is_trying_parked = False
        """Whether parked runs are being tried again beside all else."""
        self.claiming = False
        """Whether runs are being claimed."""
        self.claiming_jobs = False
        """Whether jobs are."""
        self._idle: OrderedDict[int, Resident] = OrderedDict()
        self._residents_kept = residents_kept
        self.ending: set[int] = set()
        """Runs whose end, or parking, is on its way to disk: they may not be loaded meanwhile."""
        self.jobs: dict[tuple[int, str], asyncio.Task[None]] = {}
        """Steps of queued jobs that run here, by run and key."""
        self.stopped = False
        self._make_hooks()

    def _make_hooks(self) -> None:
        """What the parts that come after the driver set; till then they do nothing."""
        self.want: Callable[[int], None] = lambda number: None
        """Bring a run into memory soon; set by `Recovery`."""
        self.bring_back: Callable[[Iterable[int]], None] = lambda numbers: None
        """The same for runs that have just become this worker's, with what was sent to them before."""
        self.retry_messages: Callable[[int], None] = lambda number: None
        """Look again at messages that a run could not take; set by the inbox."""
        self.look_for_messages: Callable[[], None] = lambda: None
        """Look now, and not in a while; set by the inbox."""
        self.look_for_runs: Callable[[], None] = lambda: None
        """Look for runs to claim; set by `Claims`."""
        self.look_for_jobs: Callable[[], None] = lambda: None
        """Look for steps to run for others, and which are not wanted any more; set by `Jobs`."""
        self.found_messages: Callable[[list[Message]], None] = lambda messages: None
        """Keep what was sent to a run before it was claimed; set by the inbox, as are the next three."""
        self.handle_first: Callable[[RunRow], bool] = lambda row: False
        """Do to a run what must be done before it is brought in; whether it is not to be, then."""
        self.settle_messages: Callable[[int, RunRow | None], None] = lambda number, row: None
        """Give a run that has been read what waits for it."""
        self.drop_messages: Callable[[int], None] = lambda number: None
        """Forget what waits for a run that is another worker's."""
        self.set_aside: Callable[[int, StoreCorrupt], None] = lambda number, error: None
        """Park a run of which something is damaged on disk; set by `Recovery`."""

    # -- bringing a run in -----------------------------------------------------------------------

    def begin(self, row: RunRow, definition: WorkflowDefinition) -> None:
        """Start a run that has just been written to disk."""
        if self.has_in_hand(row.number):
            return  # found on disk, and brought in, before its commit was told
        was_found = row.number in self.loading  # for a message, before its commit was told
        self.loading.discard(row.number)
        resident = self.make_resident(row)
        self.residents[row.number] = resident
        with self.turn:
            try:
                resident.execution.begin(definition.body(row.input), definition.encode_result)
            except Exception as error:
                self.closing.park(resident, error)
            else:
                self.carry_out(resident)
            if was_found:
                self.retry_messages(row.number)

    def room(self, capacity: int, *, most: int) -> int:
        """How many runs may be claimed, at most so many: a step for each, beside those that are under way."""
        left = capacity - len(self.loading) - len(self.jobs)
        if left - len(self.residents) >= most:
            return most
        return min(most, left - sum(len(resident.in_flight) for resident in self.residents.values()))

    def has_in_hand(self, number: int) -> bool:
        """Whether a run is in memory, or its end is on its way to disk: it may not be begun once more."""
        return number in self.residents or number in self.ending

    def make_resident(self, row: RunRow) -> Resident:
        """The worker's side of a run, not begun yet."""
        return Resident(row, Execution(facts_of(row), ready=self.turn, failures=failures))

    def open_again(self, number: int) -> None:
        """Let a parked run go on: it runs again on disk, and is then brought in."""
        # Until that is on disk it may not be loaded, and what is sent to it waits.
        self.ending.add(number)
        self.committer.batch.ends.append(RunEnd(Status.RUNNING, None, None, 0, number))
        self.committer.after_commit(lambda error: self._opened_again(number, error))

    def _opened_again(self, number: int, error: Exception | None) -> None:
        self.ending.discard(number)
        if error is None:
            self.bring_back([number])
            self.retry_messages(number)

    # -- the loop --------------------------------------------------------------------------------

    def record(
        self, resident: Resident, kind: int, key: str, digest: int, payload: bytes | None, value: Any = ...
    ) -> None:
        """Add a record; it is delivered to the run when it is on disk."""
        if resident.closing or self.stopped:
            return
        record = resident.next_record(kind, key, digest, payload, self.clock)
        self.committer.add_record(resident, record, value)
        wake_ms = resident.stored_wake_ms
        if resident.crashes or wake_ms is None or wake_ms > record.at_ms:
            # It gets on: after a crash it must be in memory at once, and starts with a clean slate.
            resident.crashes = 0
            self.store_wake(resident, 0)

    def deliver(self, residents: list[Resident | None], records: list[Record], values: list[Any]) -> None:
        """Feed records that are on disk back to their runs, in their order."""
        for resident, record, value in zip(residents, records, values, strict=True):
            if resident is None:
                continue
            resident.recorded -= 1
            if resident.closing:
                continue
            try:
                if value is ...:
                    resident.execution.apply(record)
                else:
                    resident.execution.apply(record, value)
            except Exception as error:
                self.closing.park(resident, error)
            else:
                self.carry_out(resident)

    def carry_out(self, resident: Resident) -> None:
        """Do what a run asked for, and look what it waits for now."""
        execution = resident.execution
        commands = execution.commands
        if execution.outcome is not None and execution.outcome.status is Status.PARKED:
            commands.clear()  # the event that failed it is taken back: so is what came of it
        if commands:
            for command in commands:
                if type(command) is RunStep:
                    self.effects.start(resident, command)
                else:
                    self._carry_out_other(resident, command)
            commands.clear()
        if execution.outcome is not None:
            self.closing.close(resident, execution.outcome)
        else:
            self._look_ahead(resident)

    def _carry_out_other(self, resident: Resident, command: Any) -> None:
        match command:
            case StartChild():
                self.children.start(resident, command)
            case AwaitChild():
                pass  # its end is sent to this run
            case CancelCall(pending):
                self._cancel_call(resident, pending)
            case Publish(state, version, payload):
                row = StateRow(resident.number, state, version, payload, self.clock.now_ms())
                self.committer.batch.states.append(row)
                self.committer.schedule()
            case Unheard(error):
                _log.error("A task of run %r failed, and nobody awaited it.", resident.row.id, exc_info=error)
            case MarkPatch(name):
                self.record(resident, Kind.PATCH, name, 0, None)
            case AnswerUpdate(request, ok, payload):
                reply = Reply(request, ok, payload, self.clock.now_ms())
                self.committer.batch.replies.append(reply)
                self.committer.after_commit(lambda error: self.closing.answer(reply, error))
            case _:
                raise AssertionError(f"no such command: {command!r}")

    def _cancel_call(self, resident: Resident, pending: Any) -> None:
        task = resident.in_flight.pop(pending.key, None)
        if task is not None:
            task.cancel()
        elif resident.jobs and pending.key in resident.jobs:
            resident.jobs.discard(pending.key)
            self.withdraw_jobs(resident.number, pending.key)
        elif isinstance(pending, StartChild | AwaitChild):
            self.children.cancel(resident, pending.key)

    def _look_ahead(self, resident: Resident) -> None:
        """Arm the run's next timer; note on disk when an idle run must be woken."""
        at_ms = resident.execution.next_deadline_ms()
        if at_ms is not None and at_ms != resident.armed_at_ms:
            resident.armed_at_ms = at_ms
            self.timers.set(resident.number, at_ms)
        elif at_ms is None:
            resident.armed_at_ms = None
        if resident.is_idle:
            if resident.stored_wake_ms != at_ms:
                # Only a hint: without it the run is loaded once too often after a crash.
                self.store_wake(resident, at_ms)
            self._note_idle(resident)

    def store_wake(self, resident: Resident, at_ms: int | None) -> None:
        """Write down when a run must be in memory: 0 now, None only when a message comes."""
        resident.stored_wake_ms = at_ms
        self.committer.batch.wakes.append((at_ms, resident.crashes, resident.number))
        self.committer.schedule()

    # -- time ------------------------------------------------------------------------------------

    def _time_has_come(self, number: int, at_ms: int) -> None:
        resident = self.residents.get(number)
        if resident is None:
            self.want(number)  # a sleeper: its timer is armed anew, and is due
            return
        if resident.armed_at_ms != at_ms or resident.closing:
            return  # it got on meanwhile
        facts = resident.execution.facts
        if facts.deadline_ms is None or facts.deadline_ms > at_ms:
            resident.armed_at_ms = None
            self.record(resident, Kind.TICK, "", 0, None)
        elif not resident.awaits_children:  # else it is being told already
            self.children.ask_open(resident, lambda children: self._out_of_time(resident, bool(children)))

    def _out_of_time(self, resident: Resident, has_open_children: bool) -> None:
        if self.residents.get(resident.number) is not resident or resident.closing:
            return  # it has ended, or is loaded anew when its time comes
        resident.armed_at_ms = None
        if has_open_children:
            self.children.ask_to_time_out(resident)
        else:
            self.record(resident, Kind.CANCEL, "timeout", 0, None)

    def wake_if_due(self, resident: Resident) -> None:
        """Wake a run that has just been loaded, before it could be evicted again."""
        at_ms = resident.armed_at_ms
        if at_ms is not None and at_ms <= self.clock.now_ms():
            self._time_has_come(resident.number, at_ms)

    # -- what comes of steps (the effects' recorder) ----------------------------------------------

    def step_done(self, resident: Resident, pending: RunStep, payload: bytes, value: Any) -> None:
        """A step returned: record the result."""
        self.committer.send_on()
        resident.in_flight.pop(pending.key, None)
        self.record(resident, Kind.STEP, pending.key, pending.digest, payload, value)

    def step_queued(self, resident: Resident, pending: RunStep) -> None:
        """A step is for workers with a tag: queue it, unless it is. What it comes to is sent to the run."""
        if resident.jobs is None:
            resident.jobs = set()
        resident.jobs.add(pending.key)
        call: StepCallLike = pending.call
        definition = call.definition
        assert definition.worker is not None, "only a step that asks for a worker is queued"
        asked_at_ms = round(pending.asked_at_s * 1000)
        place = (resident.number, pending.key, definition.worker, definition.name, definition.source)
        self.committer.batch.jobs.append(JobRow(*place, pending.digest, call.data, asked_at_ms))
        self.committer.schedule()
        if self.effects.tags and definition.worker in self.effects.tags:
            self.committer.after_commit(lambda error: self.look_for_jobs())

    def queue_anew(self, resident: Resident, pending: RunStep) -> None:
        """Queue a step again as soon as its outcome, which is not wanted, is off the disk."""
        self.committer.after_commit(lambda error: self._queue_now(resident, pending, error))

    def _queue_now(self, resident: Resident, pending: RunStep, error: Exception | None) -> None:
        if error is not None or resident.closing or pending.key not in (resident.jobs or ()):
            return
        if self.residents.get(resident.number) is resident:
            self.step_queued(resident, pending)
        else:
            self.want(resident.number)  # it was evicted meanwhile: loaded again, it asks again

    def withdraw_jobs(self, run: int, key: str = "") -> None:
        """Nobody waits any more for a step that was queued; an empty key: for any of the run's."""
        self.committer.batch.withdrawn.append((run, key))
        self.committer.schedule()
        for place, task in list(self.jobs.items()):
            if place[0] == run and key in ("", place[1]):
                task.cancel()

    def step_in_transaction(
        self, resident: Resident, pending: RunStep, work: Callable[[Any], bytes]
    ) -> asyncio.Future[None]:
        """Do a step's work in the commit of its record; the future ends with it, or has the error."""
        done: asyncio.Future[None] = self.effects.loop.create_future()

        def told(failed: BaseException | None) -> None:
            if failed is None:
                resident.in_flight.pop(pending.key, None)  # its result is delivered right after this
            if done.done():
                return
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)

        if not resident.closing and not self.stopped:
            record = resident.next_record(Kind.STEP, pending.key, pending.digest, None, self.clock)
            self.committer.add_transaction(resident, record, work, told)
        return done

    def step_failed(self, resident: Resident, pending: RunStep, error: BaseException) -> None:
        """A step failed for good: record the failure."""
        resident.in_flight.pop(pending.key, None)
        payload = failures.encode_failure(error)
        # Decoded again, and not `error` itself: live and replay must see the same.
        self.record(resident, Kind.STEP_FAILED, pending.key, pending.digest, payload)

    def attempt_made(self, row: AttemptRow) -> None:
        """Write down a failed attempt or a heartbeat; nobody waits for it."""
        if not self.stopped:
            self.committer.batch.attempts.append(row)
            self.committer.schedule()

    # -- memory ----------------------------------------------------------------------------------

    def _note_idle(self, resident: Resident) -> None:
        idle = self._idle
        idle[resident.number] = resident
        idle.move_to_end(resident.number)
        if len(idle) > self._residents_kept:
            self.committer.after_commit(self._evict_some)

    def _evict_some(self, error: Exception | None) -> None:
        idle = self._idle
        while len(idle) > self._residents_kept:
            number, resident = idle.popitem(last=False)
            if resident.is_idle and self.residents.get(number) is resident:
                self.evict(resident)

    def evict(self, resident: Resident) -> None:
        """Drop a run from memory; it is replayed when time or a message comes for it."""
        self.forget(resident)
        resident.execution.drop()
        if resident.stored_wake_ms:
            self.timers.set_evicted(resident.number, resident.stored_wake_ms)

    def forget(self, resident: Resident) -> None:
        """Take a run off the books: evicted, ended or parked."""
        self.residents.pop(resident.number, None)
        self._idle.pop(resident.number, None)

    async def drain(self, seconds: float) -> None:
        """Begin no step more, and wait for those whose function runs; so many seconds at most."""
        self.effects.closed = True
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        # Looked at now and then: no event is worth its keep at each step's beginning and end.
        while len(self._running_steps()) > self.effects.waiting and loop.time() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOKS_EVERY_S)
        await self.committer.drain()

    async def stop(self) -> None:
        """Stop all steps, write what is done, and let all runs go. They resume when an engine opens."""
        self.effects.closed = True
        tasks = self._cancel_steps()
        self.timers.stop()
        if tasks:
            # What they have to clean up, they do while the engine is still there.
            await asyncio.wait(tasks, timeout=_STEPS_MAY_TAKE_S)
        await self.committer.drain()
        self.abandon()
        await self.effects.stop()
        self.committer.stop()
        self.reads.stop()

    def abandon(self) -> None:
        """Stop at once and write nothing more: all is written, or the right to write is gone."""
        self.stopped = True
        self.effects.closed = True
        self.timers.stop()
        self.floor.end()
        self._cancel_steps()
        for resident in list(self.residents.values()):
            resident.execution.drop()
        self.residents.clear()
        self._idle.clear()

    def _running_steps(self) -> list[asyncio.Task[None]]:
        """Those that wait for their next attempt among them."""
        own = (task for resident in self.residents.values() for task in resident.in_flight.values() if task)
        return [*own, *self.jobs.values()]

    def _cancel_steps(self) -> list[asyncio.Task[None]]:
        tasks = self._running_steps()
        for task in tasks:
            task.cancel()
        return tasks

    def complain(self, error: BaseException, doing: str) -> None:
        """Say what went wrong where nobody waits for an answer. A lost lease, or commit, stops the worker."""
        if self.stopped:
            return  # what a stopping engine could not do any more, the next one does
        if isinstance(error, LeaseLost | CommitsLost):
            self.committer.check_lease()  # which finds it out, and says so
            return
        if isinstance(error, PerdureError):
            _log.warning("While %s: %s", doing, error)
        else:
            _log.error("While %s", doing, exc_info=(type(error), error, from_the_users(error.__traceback__)))
