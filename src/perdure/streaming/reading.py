"""Looking at the events that a stream keeps, without handling them.

Law: none is left out. One that may still come before others holds them back; to be asked for
events that were let go is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from ..blocks.event import Event, as_event
from ..blocks.handler import page_of
from ..core.events import EventPage
from ..core.positions import position_text
from ..doors import Door
from ..errors import StoreCorrupt
from ..stores.base import Store
from .places import gone_at, place_before

if TYPE_CHECKING:
    from ..blocks.stream import Stream

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class StreamPage(Generic[E]):
    """Some events of a stream, in order."""

    events: Sequence[Event[E]]
    """Nobody handles them: they have no idempotency key, and `attempt` is 0."""
    next: str
    """The place to read on from. With no event before it, there is nothing more yet."""


async def read_events(
    door: Door, stream: Stream[E] | str, begin: str | datetime, limit: int
) -> StreamPage[E]:
    """See `Client.events`."""
    name = stream if isinstance(stream, str) else stream.name
    after = await place_before(door, name, begin)
    page = await door.read(partial(_page, stream, after, limit))
    if page.gone > after:
        raise gone_at(name, after, page.gone)
    for row in page.events:
        if row.damage:
            raise StoreCorrupt(row.damage)
    decode = _as_json if isinstance(stream, str) else stream.decode
    events = [
        as_event(row, cast(E, decode(row)), stream=name, idempotency_key="", attempt=0) for row in page.events
    ]
    return StreamPage(events, position_text(page.after + 1))


def _page(stream: Stream[Any] | str, after: int, limit: int, store: Store) -> EventPage:
    if isinstance(stream, str):
        return store.streams.events(stream, after=after, limit=limit)
    return page_of(stream, stream.name, store, after=after, limit=limit)


def _as_json(row: Any) -> Any:
    return msgspec.json.decode(row.payload)
