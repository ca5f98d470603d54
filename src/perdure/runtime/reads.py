"""Reads of the store for the worker: at once where they are quick, on a thread where they may block.

What a read finds is handed to a callback on the engine's loop. A read that fails
hands its error over instead: nobody may be left waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import StoreError
from ..stores.base import Store

T = TypeVar("T")

_THREADS = 3
"""A read of messages, one of sleepers and one of runs may be under way at once."""


class Reads:
    """Asks the store, and never holds up the loop for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None

    def ask(self, look: Callable[[Store], T], then: Callable[[T | StoreError], object]) -> None:
        """Give what `look` finds, or its error, to `then`: before this returns, or later on the loop."""
        if not self._store.reads_block:
            then(_try(look, self._store))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="perdure-reads")
        self._threads.submit(self._ask_there, look, then)

    async def wait(self, look: Callable[[Store], T]) -> T:
        """Give what `look` finds; raises its error."""
        found: asyncio.Future[T | StoreError] = self._loop.create_future()
        self.ask(look, lambda result: found.done() or found.set_result(result))
        result = await found
        if isinstance(result, StoreError):
            raise result
        return result

    def _ask_there(self, look: Callable[[Store], T], then: Callable[[T | StoreError], object]) -> None:
        found = _try(look, self._store)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(then, found)

    def stop(self) -> None:
        """Begin no more reads; one under way is left to end by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _try(look: Callable[[Store], T], store: Store) -> T | StoreError:
    try:
        return look(store)
    except StoreError as error:
        return error
