"""Running steps: attempts, time limits, retries, and what they came to.

Each step that a run asks for gets one task on the engine's loop. An attempt that
fails is written down, so that its number and error outlive a crash; the result
is given to the driver, which records it. A step's place decides where its
function runs: on the loop, on a thread of a bounded pool, or in a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol

from ..codec.failures import describe_failure, encode_failure, step_failed
from ..core.commands import RunStep
from ..core.records import Kind
from ..errors import Attempt, HeartbeatTimedOut, StepError, StepFailed, StepTimedOut
from ..stores.base import AttemptRow
from .attempt import StepInfo, current_step
from .clock import Armed, Clock, Source
from .definitions import StepCallLike, StepDefinition
from .processes import Processes
from .resident import Resident

_THREADS = 32


class Recorder(Protocol):
    """The driver, as the effects see it."""

    def step_done(self, resident: Resident, pending: RunStep, payload: bytes, value: Any) -> None: ...
    def step_failed(self, resident: Resident, pending: RunStep, error: BaseException) -> None: ...
    def attempt_made(self, row: AttemptRow) -> None: ...


class Effects:
    """The steps under way in this worker."""

    def __init__(self, recorder: Recorder, clock: Clock, source: Source) -> None:
        self._recorder = recorder
        self._clock = clock
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None
        self._processes: Processes | None = None

    def start(self, resident: Resident, pending: RunStep) -> None:
        """Run a step; its result or failure is given to the recorder."""
        resident.in_flight[pending.key] = self._loop.create_task(self._run(resident, pending))

    async def _run(self, resident: Resident, pending: RunStep) -> None:
        call: StepCallLike = pending.call
        definition = call.definition
        earlier = resident.earlier_attempts(pending.key)
        failed = [_as_attempt(row) for row in earlier if row.failure is not None]
        details = next((row.details for row in reversed(earlier) if row.details is not None), None)
        while True:
            number = len(failed) + 1
            info = self._info(resident, pending, definition, number, details)
            current_step.set(info)
            try:
                if definition.guarded:
                    value = await self._guarded(call, info, pending)
                else:
                    value = await self._call(call, info)
                payload, value = definition.settle(value)
            except asyncio.CancelledError as error:
                if _is_ours(error):
                    raise
                self._recorder.step_failed(resident, pending, StepError(f"Step {definition.name!r} was cancelled from inside."))
                return
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # also SystemExit: a step must not end the worker
                if isinstance(error, HeartbeatTimedOut | StepTimedOut):
                    details = info_details(info) or details
                wait_ms = self._after_failure(resident, pending, error, number, failed)
                if wait_ms is None:
                    return
                await self._wait(wait_ms)
            else:
                self._recorder.step_done(resident, pending, payload, value)
                return

    def _info(
        self, resident: Resident, pending: RunStep, definition: StepDefinition, number: int, details: bytes | None
    ) -> StepInfo:
        row = resident.row
        return StepInfo(
            run_id=row.id,
            workflow=row.workflow,
            step=definition.name,
            key=pending.key,
            attempt=number,
            seed=row.seed,
            last_details=details,
            beat=_Beat(self, resident.number, pending.key, number),
        )

    # -- one attempt -----------------------------------------------------------------------------

    async def _call(self, call: StepCallLike, info: StepInfo) -> Any:
        definition = call.definition
        if definition.place == "loop":
            return await definition.fn(*call.args, **call.kwargs)
        if definition.place == "thread":
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="perdure-step")
            context = copy_context()
            return await self._loop.run_in_executor(
                self._threads, lambda: context.run(definition.fn, *call.args, **call.kwargs)
            )
        if self._processes is None:
            self._processes = Processes()
        return await self._processes.run(definition, call.data, info)

    async def _guarded(self, call: StepCallLike, info: StepInfo, pending: RunStep) -> Any:
        """An attempt with time limits; the first to pass cancels it."""
        guard = _Guard(call.definition, info, round(pending.asked_at_s * 1000), self._clock)
        beat: _Beat = info._beat  # type: ignore[assignment]  # ours: made in _info
        beat.guard = guard
        try:
            return await self._call(call, info)
        except asyncio.CancelledError:
            error = guard.passed
            if error is None:
                raise
            task = asyncio.current_task()
            if task is not None and task.uncancel() > 0:
                raise  # cancelled from outside as well
            raise error from None
        finally:
            guard.stop()

    def beat(self, run: int, key: str, number: int, details: bytes | None, guard: _Guard | None) -> None:
        """A heartbeat arrived; from any thread."""

        def note() -> None:
            if guard is not None:
                guard.beat()
            if details is not None:
                row = AttemptRow(run, key, number, None, details, self._clock.now_ms())
                self._recorder.attempt_made(row)

        self._loop.call_soon_threadsafe(note)

    # -- after an attempt ------------------------------------------------------------------------

    def _after_failure(
        self, resident: Resident, pending: RunStep, error: BaseException, number: int, failed: list[Attempt]
    ) -> int | None:
        """Write the attempt down. How long to wait for the next; None when there is none."""
        call: StepCallLike = pending.call
        definition = call.definition
        retry = definition.retry
        now_ms = self._clock.now_ms()
        failure = encode_failure(error)
        failed.append(Attempt(number, describe_failure(failure), now_ms))
        if retry.gives_up_on(error):
            self._recorder.step_failed(resident, pending, error)
            return None
        wait_ms = retry.delay_ms(number, drawn=self._source.draw())
        late = definition.deadline_ms is not None and (
            now_ms + wait_ms >= round(pending.asked_at_s * 1000) + definition.deadline_ms
        )
        if number >= retry.attempts or late:
            whole = step_failed(error, step=definition.name, attempts=tuple(failed), run_id=resident.row.id)
            self._recorder.step_failed(resident, pending, whole)
            return None
        self._recorder.attempt_made(AttemptRow(resident.number, pending.key, number, failure, None, now_ms))
        return wait_ms

    async def _wait(self, wait_ms: int) -> None:
        woken: asyncio.Future[None] = self._loop.create_future()
        armed = self._clock.arm(self._clock.now_ms() + wait_ms, lambda: woken.done() or woken.set_result(None))
        try:
            await woken
        finally:
            armed.cancel()

    async def stop(self) -> None:
        """Let the pools go. Threads that still run are left to end by themselves."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            await self._processes.stop()


class _Beat:
    """The function behind `heartbeat()` of one attempt."""

    __slots__ = ("_effects", "_key", "_number", "_run", "guard", "last")

    def __init__(self, effects: Effects, run: int, key: str, number: int) -> None:
        self._effects = effects
        self._run = run
        self._key = key
        self._number = number
        self.guard: _Guard | None = None
        self.last: bytes | None = None

    def __call__(self, details: bytes | None) -> None:
        self.last = details if details is not None else self.last
        self._effects.beat(self._run, self._key, self._number, details, self.guard)


def info_details(info: StepInfo) -> bytes | None:
    """What the attempt's last heartbeat said."""
    beat = info._beat  # pyright: ignore[reportPrivateUsage]
    return beat.last if isinstance(beat, _Beat) else None


class _Guard:
    """The time limits of one attempt: cancels its task when one has passed."""

    __slots__ = ("_armed", "_beat_armed", "_clock", "_definition", "_info", "_task", "passed")

    def __init__(self, definition: StepDefinition, info: StepInfo, asked_at_ms: int, clock: Clock) -> None:
        self._clock = clock
        self._definition = definition
        self._info = info
        self._task = asyncio.current_task()
        self.passed: StepError | None = None
        self._armed: list[Armed] = []
        self._beat_armed: Armed | None = None
        now_ms = clock.now_ms()
        what = f"Attempt {info.attempt} of step {definition.name!r} of run {info.run_id!r}"
        if definition.timeout_ms is not None:
            limit = f"{what} took longer than its timeout of {definition.timeout_ms / 1000:g} s."
            self._arm(now_ms + definition.timeout_ms, StepTimedOut(limit))
        if definition.deadline_ms is not None:
            limit = f"{what} ran past the step's deadline of {definition.deadline_ms / 1000:g} s over all attempts."
            self._arm(asked_at_ms + definition.deadline_ms, StepTimedOut(limit))
        self.beat()

    def _arm(self, at_ms: int, error: StepError) -> None:
        self._armed.append(self._clock.arm(at_ms, lambda: self._pass(error)))

    def _pass(self, error: StepError) -> None:
        if self.passed is None and self._task is not None:
            self.passed = error
            self._task.cancel()

    def beat(self) -> None:
        """The attempt is alive: its heartbeat limit starts anew."""
        if self._definition.heartbeat_ms is None or self.passed is not None:
            return
        if self._beat_armed is not None:
            self._beat_armed.cancel()
        error = HeartbeatTimedOut(
            f"Attempt {self._info.attempt} of step {self._definition.name!r} of run {self._info.run_id!r} did not "
            f"call heartbeat() for {self._definition.heartbeat_ms / 1000:g} s."
        )
        at_ms = self._clock.now_ms() + self._definition.heartbeat_ms
        self._beat_armed = self._clock.arm(at_ms, lambda: self._pass(error))

    def stop(self) -> None:
        """The attempt has ended."""
        for armed in self._armed:
            armed.cancel()
        if self._beat_armed is not None:
            self._beat_armed.cancel()


def _is_ours(error: BaseException) -> bool:
    """Whether a CancelledError came because the step's own task was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _as_attempt(row: AttemptRow) -> Attempt:
    return Attempt(row.number, describe_failure(row.failure or b"{}"), row.at_ms)


__all__ = ["Effects", "StepFailed"]
