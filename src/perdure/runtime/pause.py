"""A pause that grows: how long to wait before looking again for what nobody tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_FIRST_S = 0.002
_LONGEST_S = 0.25


class Pause:
    """Calls back after a while, and after a longer while the next time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._callback = callback
        self._last_s = 0.0
        self.is_waiting = False

    def begin(self) -> None:
        """Wait, unless that is so already."""
        if not self.is_waiting:
            self.is_waiting = True
            self._last_s = min(_LONGEST_S, max(_FIRST_S, 2 * self._last_s))
            self._loop.call_later(self._last_s, self._end)

    def reset(self) -> None:
        """Begin with a short one the next time."""
        self._last_s = 0.0

    def _end(self) -> None:
        self.is_waiting = False
        self._callback()
