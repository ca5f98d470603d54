"""One attempt of a step inside a Temporal activity.

Temporal keeps the attempts apart and waits between them; whether there is another, and
when, the step's own `Retry` says here. So attempts count as on a store: an attempt whose
worker died or was stopped does not. What the next attempt has to know (the errors before
it, what `heartbeat()` said) rides on the activity's heartbeat, which every attempt gives:
by its silence Temporal knows that a worker is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

import msgspec
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..blocks.step import Step, find_steps
from ..codec.failures import describe_failure, encode_failure, step_failed
from ..errors import Attempt, StepError, StepFailed
from ..runtime.attempt import StepInfo, current_attempt
from ..runtime.clock import SystemClock, SystemSource
from ..runtime.limits import Limits
from ..runtime.processes import Processes
from ..runtime.threads import Threads
from .payloads import Asked, Beats, as_failure, fit

_CRASHES_BEFORE_PARKING = 5
_UNKNOWN_AGAIN_S = 5
_BEATS_PER_LOSS = 3


class Steps:
    """Runs the steps that a worker is given, on its loop, threads and processes."""

    def __init__(self, lost_after_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = SystemClock()
        self.source = SystemSource()
        self.beat_every_s = lost_after_s / _BEATS_PER_LOSS
        self._threads: Threads | None = None
        self._processes: Processes | None = None

    async def run(self, args: Sequence[RawValue]) -> bytes:
        """The activity: one attempt of the step that it is named after."""
        data = args[0].payload.data if args else b"[]"
        asked = msgspec.json.decode(args[1].payload.data, type=Asked) if len(args) > 1 else None
        attempt = _Attempt(self, asked, data)
        with attempt:
            return await attempt.run()

    async def call(self, step: Step[..., Any], attempt: _Attempt, begun: Callable[[], None]) -> Any:
        """Call a step's function where it belongs; `begun` is called when its turn has come."""
        if step.place == "process":
            if self._processes is None:
                self._processes = Processes()
            return await self._processes.run(step, attempt.data, attempt.info(), begun)
        args, kwargs = step.arguments.decode(attempt.data)
        if step.place == "loop":
            begun()
            return await step.fn(*args, **kwargs)
        if self._threads is None:
            self._threads = Threads(self.loop)
        context = copy_context()

        def work() -> Any:
            self.loop.call_soon_threadsafe(begun)
            return context.run(step.fn, *args, **kwargs)

        return await self._threads.call(work)

    async def stop(self) -> None:
        """Let the pools go."""
        if self._threads is not None:
            self._threads.stop()
        if self._processes is not None:
            await self._processes.stop()


class _Attempt:
    """One attempt under way."""

    def __init__(self, steps: Steps, asked: Asked | None, data: bytes) -> None:
        self._steps = steps
        self._asked = asked
        self.data = data
        self._activity = activity.info()
        before = self._activity.heartbeat_details
        self._beats = msgspec.json.decode(before[0], type=Beats) if before else Beats()
        self._last_said = self._beats.said
        self.number = len(self._beats.failed) + 1
        self._limits: Limits | None = None
        self._info: StepInfo | None = None
        # Whoever beats, on whatever thread, beats for this activity.
        self._context = copy_context()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._timer = self._steps.loop.call_later(self._steps.beat_every_s, self._live)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _live(self) -> None:
        self._say()
        self.__enter__()

    def _say(self) -> None:
        self._context.run(activity.heartbeat, msgspec.json.encode(self._beats))

    # -- what the step may know, and say ---------------------------------------------------------

    def info(self) -> StepInfo:
        """What the step may know of itself."""
        if self._info is None:
            known = self._activity
            said = bytes(self._last_said)
            seed = self._asked.seed if self._asked is not None else ""
            self._info = StepInfo(
                self,
                run_id=known.workflow_id or "",
                workflow=known.workflow_type or "",
                step=known.activity_type,
                key=self._asked.key if self._asked is not None else known.activity_id,
                attempt=self.number,
                seed=bytes.fromhex(seed),
                last_details=None if said == b"null" else said,
            )
        return self._info

    def beat(self, details: bytes | None) -> None:
        """A heartbeat of the step's; from any thread."""
        if details is not None:
            self._beats.said = msgspec.Raw(details)  # at once: the step may fail in this very moment
        self._steps.loop.call_soon_threadsafe(self._note_beat, details)

    def _note_beat(self, details: bytes | None) -> None:
        if self._timer is None or self._timer.cancelled():
            return  # of an attempt that is over: a thread that could not be stopped
        if self._limits is not None:
            self._limits.beat()
        if details is not None:
            self._say()

    # -- the attempt -----------------------------------------------------------------------------

    async def run(self) -> bytes:
        """Make the attempt. Raises what tells Temporal whether and when there is another."""
        step = self._find()
        lost = self._activity.attempt - self.number - self._beats.excused
        if lost >= _CRASHES_BEFORE_PARKING:
            raise self._last(_kills_its_worker(self.info(), lost))
        current_attempt.set(self)
        try:
            value = await self._within_limits(step)
            data, _ = step.settle(value)
            return fit(data, f"result of {step.name}()")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling() > 0:
                if not activity.is_worker_shutdown():
                    raise
                raise self._not_counted("its worker was stopped", again_s=0) from None
            what = f"Step {step.name!r} of run {self.info().run_id!r} was cancelled from inside."
            raise self._last(StepError(what)) from None
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit: a step must not end the worker
            raise self._after_failure(step, error) from None

    async def _within_limits(self, step: Step[..., Any]) -> Any:
        asked_at_ms = round(self._activity.scheduled_time.timestamp() * 1000)
        limits = self._limits = Limits(step, self.info(), asked_at_ms, self._steps.clock)
        try:
            if limits.passed is not None:
                raise limits.passed
            return await self._steps.call(step, self, limits.begin)
        except asyncio.CancelledError:
            error = limits.passed
            task = asyncio.current_task()
            if error is None or (task is not None and task.uncancel() > 0):
                raise
            raise error from None
        finally:
            limits.stop()

    def _not_counted(self, why: str, *, again_s: int, hint: str = "") -> ApplicationError:
        """This attempt ends without having been one: the next has the same number."""
        self._beats.excused += 1
        self._say()
        what = f"Step {self._activity.activity_type!r} of run {self._activity.workflow_id!r}: {why}."
        return as_failure(encode_failure(StepError(what, hint=hint)), again_ms=max(1, 1000 * again_s))

    def _after_failure(self, step: Step[..., Any], error: BaseException) -> ApplicationError:
        """Note that the attempt failed, and say whether and when there is another."""
        retry, now_ms = step.retry, self._steps.clock.now_ms()
        self._beats.failed.append((self.number, describe_failure(encode_failure(error)), now_ms))
        if retry.gives_up_on(error):
            return self._last(error)
        wait_ms = retry.delay_ms(self.number, drawn=self._steps.source.draw())
        end_ms = None
        if step.deadline_ms is not None:
            end_ms = round(self._activity.scheduled_time.timestamp() * 1000) + step.deadline_ms
        if self.number >= retry.attempts or (end_ms is not None and now_ms + wait_ms >= end_ms):
            attempts = tuple(Attempt(*failed) for failed in self._beats.failed)
            run_id = self._activity.workflow_id or ""
            return self._last(step_failed(error, step=step.name, attempts=attempts, run_id=run_id))
        self._say()
        return as_failure(encode_failure(error), again_ms=max(1, wait_ms))

    @staticmethod
    def _last(error: BaseException) -> ApplicationError:
        return as_failure(encode_failure(error))

    def _find(self) -> Step[..., Any]:
        """The step that is meant. Raises what makes Temporal ask again, when another worker may know it."""
        name = self._activity.activity_type
        found = find_steps(name)
        if self._asked is not None and len(found) > 1:
            found = [step for step in found if step.source == self._asked.step] or found
        if len(found) == 1:
            return found[0]
        where = f" ({self._asked.step})" if self._asked is not None else ""
        why = f"no module of this worker defines it{where}" if not found else "several steps have this name"
        hint = "Give the worker the module that defines it; it is tried again until then."
        raise self._not_counted(why, again_s=_UNKNOWN_AGAIN_S, hint=hint)


def _kills_its_worker(info: StepInfo, times: int) -> StepFailed:
    return StepFailed(
        f"The worker died {times} times while run {info.run_id!r} was in {info.key!r}: the step may be "
        "killing it (memory, a crash in native code).",
        hint="Look at the step, then resume the run.",
    )
