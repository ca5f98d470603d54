"""The one clock and the one source of randomness. Nothing else reads the time or draws a number."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Protocol


class Armed(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """It will not run."""
        ...


class Clock(Protocol):
    """Wall time, and a wake-up call."""

    def now_ms(self) -> int:
        """Unix milliseconds. May jump, forwards and backwards."""
        ...

    def arm(self, at_ms: int, callback: Callable[[], object], *, background: bool = False) -> Armed:
        """Call back on the engine's loop at that time or a little later; soon, if it has passed.

        `background`: upkeep for which no run waits; a test's clock need not stop there.
        """
        ...


def machine_ms() -> int:
    """The machine's time, Unix milliseconds, for who has no loop."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """The machine's clock; wake-up calls by the running event loop."""

    # The loop's timers follow the monotonic clock: after a jump of the wall clock
    # they would be off by the jump. A long wait is cut into pieces that look again.
    _LONGEST_WAIT_S = 30.0

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, offset_ms: int = 0) -> None:
        """`loop`: where wake-up calls come; by default the running one.

        `offset_ms`: how far the clock that all workers go by is ahead of the machine's.
        """
        self.loop = loop or asyncio.get_running_loop()
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return machine_ms() + self._offset_ms

    def arm(self, at_ms: int, callback: Callable[[], object], *, background: bool = False) -> Armed:
        return _SystemArmed(self, at_ms, callback)


class _SystemArmed:
    __slots__ = ("_at_ms", "_callback", "_clock", "_handle", "_loop")

    def __init__(self, clock: SystemClock, at_ms: int, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._at_ms = at_ms
        self._callback = callback
        self._loop = clock.loop  # not the running loop: that may be a run's
        self._handle: asyncio.Handle | None = None
        self._look()

    def _look(self) -> None:
        wait_s = (self._at_ms - self._clock.now_ms()) / 1000
        if wait_s <= 0:
            self._handle = self._loop.call_soon(self._callback)
        else:
            self._handle = self._loop.call_later(min(wait_s, SystemClock._LONGEST_WAIT_S), self._look)  # pyright: ignore[reportPrivateUsage]

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Source(Protocol):
    """Where random bytes and numbers come from."""

    def bytes(self, count: int) -> bytes:
        """That many random bytes."""
        ...

    def draw(self) -> float:
        """A number evenly in [0, 1)."""
        ...


class SystemSource:
    """The operating system's randomness."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def draw(self) -> float:
        return random.random()  # noqa: S311 (spreads retries; no secret)
