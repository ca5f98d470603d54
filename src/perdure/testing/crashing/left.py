"""What a crash run has left on its disk, for a `check` to look at."""

from __future__ import annotations

from typing import Any, TypeVar

from ...blocks.handler import Handler
from ...blocks.stream import Stream
from ...core.events import DeadFilter
from .conserving import events_of
from .disks import Disk

E = TypeVar("E")
_ALL = 1 << 62


class Left:
    """There until the next crash run begins."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def events(self, stream: Stream[E]) -> list[E]:
        """The values of a stream's events, in order."""
        return [stream.decode(event) for event in events_of(self._disk.store, stream.name)]

    def parked(self, handler: Handler[E]) -> list[E]:
        """The values of the events that a handler has parked, in order."""
        streams = self._disk.store.streams
        name = (handler.stream, handler.name)
        numbers = [row.number for row in streams.subscriptions() if (row.stream, row.name) == name]
        places = {
            one.position
            for number in numbers
            for one in streams.dead.events(number, DeadFilter(), limit=_ALL)
        }
        events = events_of(self._disk.store, handler.stream)
        return [handler.decode(event) for event in events if event.position in places]  # type: ignore[misc]

    def query(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""
        return self._disk.query(sql, bindings)
