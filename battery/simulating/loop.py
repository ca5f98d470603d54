"""An event loop whose time is virtual: when nothing is ready, it jumps to the next timer."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_TURNS_MAX: Final = 2_000
"""So often the loop may turn at one moment. Some 35 are usual; one that turns on takes a whole processor."""


class _NoSelector:
    """Waits for no file and no socket: to wait is to let the time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._turns = 0
        """Since the time moved last."""

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("The simulation waits for something that can never come.")
        self._turns = 0 if timeout else self._turns + 1
        assert self._turns < _TURNS_MAX, "the loop turns without end, and nothing waits for the time to pass"
        self._loop.now_s += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, without the world."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._selector = _NoSelector(self)
        # Else the time for which two timers count as one would round them differently on other machines.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else can have put something here: there is one thread."""
