"""An event loop that tells when it has nothing left to do, and asks the system for input only now and then.

A turn of asyncio's loop asks for input each time, which costs as much as all else in
it. In a crash run nearly everything is work that is ready. And whoever waits until
all has been done that can be would have to look after each turn: the loop knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ..clock import loop_turn

_TURNS_BEFORE_ASKING = 32
_TURNS_MAX = 1_000
"""So long is waited for a loop that never comes to rest: somebody on it looks for something at each turn."""
_TURNS_OF_OTHERS = 10


@contextmanager
def watched_turns() -> Generator[None]:
    """Have the loop ask rarely, and tell. Loops of another make are left alone."""
    selector: Any = getattr(asyncio.get_running_loop(), "_selector", None)
    if selector is None or "select" in vars(selector):
        yield
        return
    selector.select = _Turns(selector.select)
    try:
        yield
    finally:
        del selector.select


async def until_idle(enough: Callable[[], bool]) -> None:
    """Wait until nothing is ready on the loop, or it is `enough` after a turn."""
    loop = asyncio.get_running_loop()
    turns = getattr(getattr(loop, "_selector", None), "select", None)
    if isinstance(turns, _Turns):
        await turns.until_idle(loop.create_future(), enough)
        return
    for _ in range(_TURNS_OF_OTHERS):
        await loop_turn()
        if enough():
            return


class _Turns:
    """In the place of a selector's `select`, which a loop calls at each turn; with 0 when it has work."""

    def __init__(self, select: Any) -> None:
        self._select = select
        self._turns = 0
        self._waiter: asyncio.Future[None] | None = None
        self._enough: Callable[[], bool] = bool
        self._give_up_at = 0

    async def until_idle(self, waiter: asyncio.Future[None], enough: Callable[[], bool]) -> None:
        """One may wait at a time."""
        self._waiter, self._enough = waiter, enough
        self._give_up_at = self._turns + _TURNS_MAX
        await waiter

    def __call__(self, timeout: float | None = None) -> Any:
        self._turns += 1
        waiter = self._waiter
        if waiter is not None and (timeout != 0 or self._turns >= self._give_up_at or self._enough()):
            found = self._select(0)
            if not found or timeout == 0:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            return found
        if timeout == 0 and self._turns % _TURNS_BEFORE_ASKING:
            return ()
        return self._select(timeout)
