"""One turn of the driver: a batch of runs is pumped, and nothing else happens in between."""

from __future__ import annotations

import asyncio
import gc

from ..core.loop import Ready


class Turn:
    """Used as `with turn:` around everything that pumps runs; may be nested.

    The garbage collector rests from then on until the steps that were asked for
    have begun, one turn of the event loop later. What a batch makes (calls, tasks,
    futures) is in use until then, so that to look through it every few hundred
    objects finds no garbage and costs as much as the work itself. A collector that
    was off stays off.
    """

    __slots__ = ("_depth", "_loop", "_resting", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready = Ready()
        self._loop = loop
        self._depth = 0
        self._resting = False

    def __enter__(self) -> None:
        if self._depth == 0 and not self._resting and gc.isenabled():
            gc.disable()
            self._resting = True
        self._depth += 1
        self.ready.__enter__()

    def __exit__(self, *_: object) -> None:
        self.ready.__exit__()
        self._depth -= 1
        if self._depth == 0 and self._resting:
            self._loop.call_soon(self.stop)

    def stop(self) -> None:
        """Let the collector work again."""
        if self._resting and self._depth == 0:
            self._resting = False
            gc.enable()
