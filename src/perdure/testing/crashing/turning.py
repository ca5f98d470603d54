"""An event loop that asks the system for input only now and then while it has other work.

A turn of asyncio's loop asks each time, which costs as much as all else in it. In a
crash run nearly everything is work that is ready, so that is a fifth of the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_TURNS = 32


@contextmanager
def asking_rarely() -> Generator[None]:
    """Ask once in so many turns while there is work. Loops of another make are left alone."""
    selector: Any = getattr(asyncio.get_running_loop(), "_selector", None)
    if selector is None or "select" in vars(selector):
        yield
        return
    selector.select = _Rarely(selector.select)
    try:
        yield
    finally:
        del selector.select


class _Rarely:
    """In the place of a selector's `select`."""

    def __init__(self, select: Any) -> None:
        self._select = select
        self._turns = 0

    def __call__(self, timeout: float | None = None) -> Any:
        self._turns += 1
        if timeout == 0 and self._turns % _TURNS:
            return ()
        return self._select(timeout)
