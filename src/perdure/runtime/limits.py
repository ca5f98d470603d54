"""The time limits of one attempt of a step: the first that passes cancels it."""

from __future__ import annotations

import asyncio

from ..errors import HeartbeatTimedOut, StepError, StepTimedOut
from .attempt import StepInfo
from .clock import Armed, Clock
from .definitions import StepDefinition


def past_deadline(info: StepInfo, limit_ms: int) -> StepError:
    """The error of an attempt at whose time all attempts should have ended."""
    return StepTimedOut(f"{_name(info)} ran past the deadline of {limit_ms / 1000:g} s over all attempts.")


def past_timeout(info: StepInfo, limit_ms: int) -> StepError:
    """The error of an attempt that took too long."""
    return StepTimedOut(f"{_name(info)} took longer than its timeout of {limit_ms / 1000:g} s.")


def past_heartbeat(info: StepInfo, limit_ms: int) -> StepError:
    """The error of an attempt that was silent for too long."""
    return HeartbeatTimedOut(f"{_name(info)} did not call heartbeat() for {limit_ms / 1000:g} s.")


def _name(info: StepInfo) -> str:
    return f"Attempt {info.attempt} of step {info.step!r} of run {info.run_id!r}"


class Limits:
    """Timeout, deadline and heartbeat of the attempt whose task makes this."""

    __slots__ = ("_armed", "_beat_armed", "_clock", "_definition", "_info", "_task", "passed")

    def __init__(self, definition: StepDefinition, info: StepInfo, asked_at_ms: int, clock: Clock) -> None:
        """`asked_at_ms`: when the workflow asked for the step; the deadline counts from there."""
        self._clock = clock
        self._definition = definition
        self._info = info
        self._task = asyncio.current_task()
        self._armed: list[Armed] = []
        self._beat_armed: Armed | None = None
        self.passed: StepError | None = None
        """The error of the limit that has passed."""
        if definition.deadline_ms is not None:
            error = past_deadline(info, definition.deadline_ms)
            if asked_at_ms + definition.deadline_ms <= clock.now_ms():
                self.passed = error  # while no worker ran
            self._arm(asked_at_ms + definition.deadline_ms, error)

    def begin(self) -> None:
        """The step's function is called now; until here the attempt may have waited for a free place."""
        if self._task is None:
            return  # said by a thread whose attempt was given up meanwhile
        limit_ms = self._definition.timeout_ms
        if limit_ms is not None:
            self._arm(self._clock.now_ms() + limit_ms, past_timeout(self._info, limit_ms))
        self.beat()

    def _arm(self, at_ms: int, error: StepError) -> None:
        self._armed.append(self._clock.arm(at_ms, lambda: self._pass(error)))

    def _pass(self, error: StepError) -> None:
        if self.passed is None and self._task is not None:
            self.passed = error
            self._task.cancel()

    def beat(self) -> None:
        """The attempt is alive: its heartbeat limit starts anew."""
        limit_ms = self._definition.heartbeat_ms
        if limit_ms is None or self.passed is not None or self._task is None:
            return
        if self._beat_armed is not None:
            self._beat_armed.cancel()
        error = past_heartbeat(self._info, limit_ms)
        self._beat_armed = self._clock.arm(self._clock.now_ms() + limit_ms, lambda: self._pass(error))

    def stop(self) -> None:
        """The attempt has ended."""
        self._task = None
        for armed in self._armed:
            armed.cancel()
        if self._beat_armed is not None:
            self._beat_armed.cancel()
