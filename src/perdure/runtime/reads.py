"""Reads of the store for the worker: at once where they are quick, on a thread where they may block.

What a read finds is handed to a callback on the engine's loop. A read that fails
hands its error over instead: nobody may be left waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ..errors import LeaseLost, StoreCorrupt, StoreError
from ..stores.base import Store

T = TypeVar("T")

_log = logging.getLogger("perdure")

_AGAIN_S = 1.0
_REPAIR_S = 60.0
"""What is damaged is not mended in a second."""
_THREADS = 4
"""A glance, a read of messages, one of sleepers and one of runs may be under way at once."""


class Reads:
    """Asks the store, and never holds up the loop for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None
        self._asked: dict[object, Callable[[Any], object]] = {}
        """Who waits for what a thread finds."""
        self._stopped = False

    @property
    def is_quiet(self) -> bool:
        """Whether nobody waits for what a thread finds."""
        return not self._asked

    def ask(self, look: Callable[[Store], T], then: Callable[[T | Exception], object]) -> None:
        """Give what `look` finds, or its error, to `then`: before this returns, or later on the loop."""
        if self._stopped:
            then(_stopped())
            return
        if not self._store.reads_block:
            then(found_or_error(look, self._store))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="perdure-reads")
        asked = object()
        self._asked[asked] = then
        self._threads.submit(self._ask_there, look, asked)

    def ask_again(self, look: Callable[[Store], T], then: Callable[[T], object], doing: str) -> None:
        """The same, for what must go on: it is asked again while the store cannot be read."""
        self.ask(look, partial(self._found_or_again, look, then, doing))

    def _found_or_again(
        self, look: Callable[[Store], T], then: Callable[[T], object], doing: str, found: T | Exception
    ) -> None:
        if not isinstance(found, Exception):
            then(found)
        elif not self._stopped:
            if isinstance(found, StoreError):
                _log.warning("While %s: %s Trying again.", doing, found)
            else:
                _log.error("While %s. Trying again.", doing, exc_info=found)
            wait_s = _REPAIR_S if isinstance(found, StoreCorrupt) else _AGAIN_S
            self._loop.call_later(wait_s, self.ask_again, look, then, doing)

    async def wait(self, look: Callable[[Store], T]) -> T:
        """Give what `look` finds; raises its error."""
        return await told(partial(self.ask, look))

    def _ask_there(self, look: Callable[[Store], Any], asked: object) -> None:
        found = found_or_error(look, self._store)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._found, asked, found)

    def _found(self, asked: object, found: Any) -> None:
        then = self._asked.pop(asked, None)
        if then is not None:
            then(found)

    def stop(self) -> None:
        """Begin no more reads: who waits for one gets an error, and one under way ends by itself."""
        self._stopped = True
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        waiting, self._asked = self._asked, {}
        for then in waiting.values():
            then(_stopped())


def found_or_error(look: Callable[[Store], T], store: Store) -> T | Exception:
    """What `look` finds, or the error that it raised: any, for somebody waits."""
    try:
        return look(store)
    except Exception as error:
        return error


async def told(ask: Callable[[Callable[[T | Exception], object]], object]) -> T:
    """Wait for what `ask` gives to the callback that it gets; an error is raised."""
    found: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()
    ask(lambda result: found.done() or found.set_result(result))
    result = await found
    if isinstance(result, Exception):
        raise result
    return result


def _stopped() -> StoreError:
    return LeaseLost("The engine has stopped.")
