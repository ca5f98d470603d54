"""Writes down after a while, too, that a lane had none of the events that others had.

A commit for each would cost more than it is worth; without any, what the lane has not passed on disk
could never be let go of.
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import Armed, Clock

_AFTER_MS = 10_000


class Sweep:
    """What is to be written within ten seconds, if nothing writes it before."""

    def __init__(self, clock: Clock, write: Callable[[], None]) -> None:
        self._clock = clock
        self._write = write
        self._armed: Armed | None = None

    def begin(self) -> None:
        """There is something to write."""
        if self._armed is None:
            self._armed = self._clock.arm(self._clock.now_ms() + _AFTER_MS, self.end, background=True)

    def end(self) -> None:
        """Have it written now."""
        if self._armed is not None:
            self.cancel()
            self._write()

    def cancel(self) -> None:
        """Leave it."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
