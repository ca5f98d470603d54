"""Which schemas of events are in the store, as far as one client has brought them there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.events import Append, Clash, Placed
from ..doors import Door
from ..stores.base import Store
from .holding import HeldDoor

if TYPE_CHECKING:
    from ..blocks.stream import Stream

Outcome: TypeAlias = list[Placed] | Clash


class Registrar:
    """Registers each type of event once for as long as the store is open, before the first event of it.

    What is appended goes to the store in the order of the calls: behind one whose types are
    being registered, the others wait. A registration that fails is tried again by the next append.
    """

    def __init__(self) -> None:
        self._door: Door | None = None
        self._known: set[tuple[Stream[Any], str]] = set()
        self._line: deque[tuple[Stream[Any], Append, asyncio.Future[Outcome]]] = deque()
        self._serving: asyncio.Task[None] | None = None

    def hand_over(self, door: Door, stream: Stream[Any], append: Append) -> asyncio.Future[Outcome]:
        """Append; gives what comes of it, or SchemaError, or DefinitionError where upcasters leave a gap."""
        if isinstance(door, HeldDoor):
            return door.append(append)
        self._turn_to(door)
        if not self._line and self._knows(stream, append):
            return asyncio.ensure_future(door.append(append))
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._line.append((stream, append, told))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(door, self._line))
        return told

    def by_connection(
        self, door: Door, stream: Stream[Any], append: Append
    ) -> Callable[[Store, Any], None] | None:
        """What puts the types of an append that goes by a connection of the user's; None: they are there.

        Gets the connection, or None where the store's own is to do it, whatever becomes of the append.
        """
        if isinstance(door, HeldDoor):
            return None
        self._turn_to(door)
        if self._knows(stream, append):
            return None
        return partial(self._register_by, stream, append, door.clock.now_ms(), self._known)

    def _register_by(
        self,
        stream: Stream[Any],
        append: Append,
        at_ms: int,
        known: set[tuple[Stream[Any], str]],
        store: Store,
        connection: Any,
    ) -> None:
        stream.register(store, append, at_ms=at_ms, connection=connection)
        if connection is None:  # else it may be undone with the user's transaction
            known.update((stream, event.type) for event in append.events)

    def _turn_to(self, door: Door) -> None:
        if self._door is not door:
            self._door, self._known, self._line, self._serving = door, set(), deque(), None

    async def drain(self) -> None:
        """Return when the store has been given all that was handed over."""
        if self._serving is not None:
            await asyncio.wait([self._serving])
        loop = asyncio.get_running_loop()
        turned: asyncio.Future[None] = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned  # the last one is given with the next turn of the loop

    def _knows(self, stream: Stream[Any], append: Append) -> bool:
        known = self._known
        return all((stream, event.type) in known for event in append.events)

    async def _serve(
        self, door: Door, line: deque[tuple[Stream[Any], Append, asyncio.Future[Outcome]]]
    ) -> None:
        while line:
            stream, append, told = line[0]
            try:
                if not self._knows(stream, append):
                    await self._register(door, stream, append)
                written = asyncio.ensure_future(door.append(append))
            except Exception as error:
                if not told.done():
                    told.set_exception(error)
            else:
                written.add_done_callback(partial(_tell, told))
            line.popleft()
        if self._line is line:
            self._serving = None

    async def _register(self, door: Door, stream: Stream[Any], append: Append) -> None:
        at_ms = door.clock.now_ms()
        await door.write(lambda store: stream.register(store, append, at_ms=at_ms))
        self._known.update((stream, event.type) for event in append.events)


def _tell(told: asyncio.Future[Outcome], written: asyncio.Future[Outcome]) -> None:
    if written.cancelled():
        told.cancel()
        return
    error = written.exception()  # asked for also where nobody waits any more: else asyncio complains of it
    if not told.done():
        told.set_result(written.result()) if error is None else told.set_exception(error)
