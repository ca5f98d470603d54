"""Which schemas of events are in the store, as far as one client has brought them there."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from ..blocks.stream import Stream
from ..core.events import Append
from ..doors import Door
from ..errors import DefinitionError, SchemaError
from ..stores.base import Store


class Registrar:
    """Registers each type of event once for as long as the store is open, before the first event of it.

    What fails is tried again by the next append.
    """

    def __init__(self) -> None:
        self._door: Door | None = None
        self._known: set[tuple[Stream[Any], str]] = set()
        self._asked: dict[tuple[Stream[Any], frozenset[str]], asyncio.Task[None]] = {}

    def knows(self, door: Door, stream: Stream[Any], append: Append) -> bool:
        """Whether the types of these events are registered in the store behind the door."""
        known = self._known
        return door is self._door and all((stream, event.type) in known for event in append.events)

    async def register(self, door: Door, stream: Stream[Any], append: Append) -> None:
        """Register types. Raises SchemaError, or DefinitionError where upcasters leave a gap."""
        if self._door is not door:
            self._door, self._known, self._asked = door, set(), {}
        types = frozenset(event.type for event in append.events)
        asked = self._asked.get((stream, types))
        if asked is None:
            asked = asyncio.create_task(self._register(door, stream, types, append))
            self._asked[stream, types] = asked
        await asyncio.shield(asked)  # others wait for it, too, and go on in the order in which they came

    async def _register(self, door: Door, stream: Stream[Any], types: frozenset[str], append: Append) -> None:
        known, asked, now_ms = self._known, self._asked, door.clock.now_ms()
        try:
            refused = await door.write(partial(_register, stream, append, now_ms))
            if refused is not None:
                raise refused
            known.update((stream, name) for name in types)
        finally:
            del asked[stream, types]


def _register(
    stream: Stream[Any], append: Append, at_ms: int, store: Store
) -> SchemaError | DefinitionError | None:
    """On the thread that writes, which goes on whatever the code is like."""
    try:
        stream.register(store, append, at_ms=at_ms)
    except (SchemaError, DefinitionError) as error:
        return error
    return None
