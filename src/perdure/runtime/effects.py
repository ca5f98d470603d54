"""Running steps: attempts, retries, and what they came to.

Each step that a run asks for gets one task on the engine's loop. An attempt that
fails is written down, so that its number and error outlive a crash; the result
is given to the driver, which records it. A step's place decides where its
function runs: on the loop, on a thread of a bounded pool, or in a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar

from ..codec.failures import describe_failure, encode_failure, step_failed
from ..core.commands import RunStep
from ..errors import Attempt, StepError
from ..stores.base import AttemptRow, Store
from .attempt import Attempting, Lent, StepInfo, current_attempt
from .clock import Clock, Source
from .definitions import StepCallLike
from .limits import Limits
from .processes import Processes
from .resident import Resident
from .threads import Threads


class OwnerFacts(Protocol):
    """What a step may know of the run that asked for it."""

    @property
    def id(self) -> str: ...
    @property
    def workflow(self) -> str: ...
    @property
    def seed(self) -> bytes: ...


class Owner(Protocol):
    """The run that asked for a step, wherever it is."""

    @property
    def number(self) -> int: ...
    @property
    def row(self) -> OwnerFacts: ...
    @property
    def attempts(self) -> dict[str, list[AttemptRow]] | None: ...


AnyOwner = TypeVar("AnyOwner", bound=Owner)
AnyOwner_contra = TypeVar("AnyOwner_contra", bound=Owner, contravariant=True)


class Outcomes(Protocol[AnyOwner_contra]):
    """Who is told what came of a step."""

    def step_done(self, owner: AnyOwner_contra, pending: RunStep, payload: bytes, value: Any, /) -> None: ...
    def step_failed(self, owner: AnyOwner_contra, pending: RunStep, error: BaseException, /) -> None: ...
    def attempt_made(self, row: AttemptRow) -> None: ...


class Recorder(Outcomes[Resident], Protocol):
    """The driver, as the effects see it."""

    store: Store
    look_for_runs: Callable[[], None]

    def step_queued(self, resident: Resident, pending: RunStep) -> None: ...
    def step_in_transaction(
        self, resident: Resident, pending: RunStep, work: Callable[[Any], bytes]
    ) -> asyncio.Future[None]: ...


class Effects:
    """The steps under way in this worker, and the pools that they run on."""

    def __init__(self, recorder: Recorder, clock: Clock, source: Source) -> None:
        self.recorder = recorder
        self.clock = clock
        self.source = source
        self.loop = asyncio.get_running_loop()
        self.tags: frozenset[str] | None = frozenset()
        """Which of the steps that ask for a worker are run here; None: all, and nobody else runs any."""
        self.closed = False
        """Whether the engine closes: no step begins any more."""
        self.waiting = 0
        """Steps that wait for their next attempt."""
        self._threads: Threads | None = None
        self._processes: Processes | None = None

    def start(self, resident: Resident, pending: RunStep) -> None:
        """Run a step; its result or failure is given to the recorder."""
        if self.closed:
            resident.in_flight[pending.key] = None  # for the next engine to run
            return
        tag = pending.call.definition.worker
        if tag is not None and self.tags is not None and (tag not in self.tags or resident.asks_again):
            # One that is asked for again may be in the hands of another worker: the queue knows.
            self.recorder.step_queued(resident, pending)
            return
        running = RunningStep(self, self.recorder, resident, pending)
        # Made directly, and not by loop.create_task, which costs as much again as the task.
        task: asyncio.Task[None] = asyncio.Task(running.run(), loop=self.loop, name=pending.key)
        resident.in_flight[pending.key] = task

    async def call_elsewhere(
        self, call: StepCallLike, attempt: Attempting, begun: Callable[[], None] | None = None
    ) -> Any:
        """Run a step's function on a thread or in a process; `begun` is called when its turn has come."""
        definition = call.definition
        if definition.place == "thread":
            context = copy_context()

            def work() -> Any:
                if begun is not None:
                    self.loop.call_soon_threadsafe(begun)
                return context.run(definition.fn, *call.args, **call.kwargs)

            return await self.on_thread(work)
        if self._processes is None:
            self._processes = Processes()
        return await self._processes.run(definition, call.data, attempt.info(), begun)

    async def on_thread(self, work: Callable[[], Any]) -> Any:
        """Do some work on a thread of the pool."""
        if self._threads is None:
            self._threads = Threads(self.loop)
        return await self._threads.call(work)

    async def stop(self) -> None:
        """Let the pools go. Threads that still run are left to end by themselves."""
        if self._threads is not None:
            self._threads.stop()
        if self._processes is not None:
            await self._processes.stop()


class RunningStep(Generic[AnyOwner]):
    """One step under way, over all its attempts."""

    __slots__ = (
        "_effects",
        "_failed",
        "_info",
        "_last_details",
        "_limits",
        "_outcomes",
        "_owner",
        "_pending",
        "_said",
        "number",
    )

    def __init__(
        self, effects: Effects, outcomes: Outcomes[AnyOwner], owner: AnyOwner, pending: RunStep
    ) -> None:
        self._effects = effects
        self._outcomes = outcomes
        self._owner = owner
        self._pending = pending
        self._failed: list[Attempt] | None = None
        self._last_details: bytes | None = None
        self._said: bytes | None = None
        self._info: StepInfo | None = None
        self._limits: Limits | None = None
        self.number = 1
        if owner.attempts:
            self._take_up(owner.attempts.get(pending.key, []))

    def _take_up(self, earlier: list[AttemptRow]) -> None:
        """Go on where an earlier life of this run stood."""
        failed = [_as_attempt(row) for row in earlier if row.failure is not None]
        if failed:
            self._failed = failed
            self.number = len(failed) + 1
        self._last_details = next((row.details for row in reversed(earlier) if row.details is not None), None)

    async def run(self) -> None:
        """Try until the step returns or has failed for good, and give that to the recorder."""
        pending = self._pending
        call: StepCallLike = pending.call
        definition = call.definition
        current_attempt.set(self)
        while True:
            try:
                if call.is_stale:
                    call.renew()
                if definition.place == "transaction":
                    await self._in_transaction(call)
                    return
                if definition.guarded:
                    value = await self._within_limits(call)
                elif definition.place == "loop":
                    value = await definition.fn(*call.args, **call.kwargs)
                else:
                    value = await self._effects.call_elsewhere(call, self)
                payload, value = definition.settle(value)
            except asyncio.CancelledError:
                if _was_asked_to_stop():
                    raise
                what = f"Step {definition.name!r} of run {self._owner.row.id!r} was cancelled from inside."
                self._outcomes.step_failed(self._owner, pending, StepError(what))
                return
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # also SystemExit: a step must not end the worker
                wait_ms = self._after_failure(error)
                if wait_ms is None:
                    return
                await self._wait(wait_ms)
                call.is_stale = True  # the attempt may have changed them
            else:
                self._info = None  # it holds this, and so a step that asked would be left to the collector
                self._outcomes.step_done(self._owner, pending, payload, value)
                return

    async def _in_transaction(self, call: StepCallLike) -> None:
        """An attempt whose writes are committed together with its result."""
        definition, context, owner = call.definition, copy_context(), self._owner
        assert isinstance(owner, Resident), "only a run's own worker writes its record"

        def work(connection: Any) -> bytes:
            info = self.info()
            info.lend(Lent(connection, self._effects.recorder.store, self._effects.clock))
            try:
                return definition.settle(context.run(definition.fn, *call.args, **call.kwargs))[0]
            finally:
                info.lend(None)

        recorder = self._effects.recorder
        await recorder.step_in_transaction(owner, self._pending, work)
        if self.info().has_drawn:
            recorder.look_for_runs()  # it started some, which are free now
        self._info = None

    async def _within_limits(self, call: StepCallLike) -> Any:
        """An attempt with time limits; the first to pass cancels it."""
        limits = self._limits = Limits(
            call.definition, self.info(), round(self._pending.asked_at_s * 1000), self._effects.clock
        )
        try:
            if limits.passed is not None:
                raise limits.passed
            if call.definition.place == "loop":
                limits.begin()
                return await call.definition.fn(*call.args, **call.kwargs)
            return await self._effects.call_elsewhere(call, self, limits.begin)
        except asyncio.CancelledError:
            error = limits.passed
            if error is None:
                raise
            task = asyncio.current_task()
            if task is not None and task.uncancel() > 0:
                raise  # cancelled from outside as well
            raise error from None
        finally:
            limits.stop()

    # -- what the step may know, and say ----------------------------------------------------------

    def info(self) -> StepInfo:
        """What the step may know of itself in this attempt."""
        if self._info is None:
            row = self._owner.row
            call: StepCallLike = self._pending.call
            self._info = StepInfo(
                self,
                run_id=row.id,
                workflow=row.workflow,
                step=call.definition.name,
                key=self._pending.key,
                attempt=self.number,
                seed=row.seed,
                last_details=self._last_details,
            )
        return self._info

    def beat(self, details: bytes | None) -> None:
        """A heartbeat arrived; from any thread."""
        if details is not None:
            self._said = details
        self._effects.loop.call_soon_threadsafe(self._note_beat, self.number, details)

    def _note_beat(self, number: int, details: bytes | None) -> None:
        if number != self.number:
            return  # of an attempt that is over: a thread that could not be stopped
        if self._limits is not None:
            self._limits.beat()
        if details is not None:
            now_ms = self._effects.clock.now_ms()
            row = AttemptRow(self._owner.number, self._pending.key, number, None, details, now_ms)
            self._outcomes.attempt_made(row)

    # -- after an attempt ------------------------------------------------------------------------

    def _after_failure(self, error: BaseException) -> int | None:
        """Write the attempt down. How long to wait for the next; None when there is none."""
        effects, owner, pending = self._effects, self._owner, self._pending
        call: StepCallLike = pending.call
        definition = call.definition
        retry = definition.retry
        now_ms = effects.clock.now_ms()
        failure = encode_failure(error)
        failed = self._failed = self._failed or []
        failed.append(Attempt(self.number, describe_failure(failure), now_ms))
        if retry.gives_up_on(error):
            self._outcomes.step_failed(owner, pending, error)
            return None
        wait_ms = retry.delay_ms(self.number, drawn=effects.source.draw())
        late = definition.deadline_ms is not None and (
            now_ms + wait_ms >= round(pending.asked_at_s * 1000) + definition.deadline_ms
        )
        if self.number >= retry.attempts or late:
            whole = step_failed(error, step=definition.name, attempts=tuple(failed), run_id=owner.row.id)
            self._outcomes.step_failed(owner, pending, whole)
            return None
        row = AttemptRow(owner.number, pending.key, self.number, failure, self._said, now_ms)
        self._outcomes.attempt_made(row)
        self._last_details = self._said or self._last_details
        self.number += 1
        self._info = None
        return wait_ms

    async def _wait(self, wait_ms: int) -> None:
        clock = self._effects.clock
        woken: asyncio.Future[None] = self._effects.loop.create_future()
        armed = clock.arm(clock.now_ms() + wait_ms, lambda: woken.done() or woken.set_result(None))
        self._effects.waiting += 1
        try:
            await woken
        finally:
            self._effects.waiting -= 1
            armed.cancel()


def _was_asked_to_stop() -> bool:
    """Whether the step's own task was cancelled, and not something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _as_attempt(row: AttemptRow) -> Attempt:
    return Attempt(row.number, describe_failure(row.failure or b"{}"), row.at_ms)
