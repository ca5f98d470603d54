"""What of the events of a crash run is done on disk, and the laws of their delivery.

The laws: an event that is done on disk is not handled again; the next event of its key (with
`order="stream"`, of the stream) is not begun before that is; each is handled with one idempotency key.
"""

from __future__ import annotations

from typing import Any

from ...blocks.event import Event
from ...blocks.handler import Handler
from ...core.events import EventRow, LaneMark, SubscriptionRow
from ...core.positions import place_at
from ...core.stretches import covers
from ...stores.base import Batch, Store
from ...stores.streams import lane_of

_ALL = 1 << 62


class Deliveries:
    """What of the events of a crash run is done on disk, and what handlers were called with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[int, SubscriptionRow] = {}
        self._marks: dict[tuple[int, int], LaneMark] = {}
        self._done: set[tuple[int, int]] = set()
        """(subscription, position) of what was done in the transaction of its commit."""
        self._dead: set[tuple[int, int]] = set()
        self._events: dict[str, list[EventRow]] = {}
        self.returned: set[tuple[str, str, int]] = set()
        """(stream, handler, position) of what a handler's function has come to its end with."""

    def name(self, subscription: int) -> str:
        """`orders/ship`."""
        if subscription not in self._rows:
            self._rows = {row.number: row for row in self._store.streams.subscriptions()}
        row = self._rows[subscription]
        return f"{row.stream}/{row.name}"

    def learn(self) -> None:
        """See which events there are; not from within a transaction."""
        if not self._rows:
            self._rows = {row.number: row for row in self._store.streams.subscriptions()}
        for stream in {row.stream for row in self._rows.values()}:
            known = self._events.setdefault(stream, [])
            after = known[-1].position if known else 0
            known += self._store.streams.events(stream, after=after, limit=_ALL).events

    def committed(self, batch: Batch) -> None:
        """A batch is on disk."""
        self._marks.update({(mark.subscription, mark.lane): mark for mark in batch.lanes})
        self._dead.update((one.subscription, one.position) for one in batch.dead)
        self._dead.difference_update(batch.cleared)
        self._done.update((one.subscription, one.position) for one in batch.handlings if one.failed is None)

    def wrong(self, handler: Handler[Any], event: Event[Any]) -> str:
        """Which law it breaks to handle an event now; empty if none."""
        row = next((one for one in self._rows.values() if _is_of(one, handler)), None)
        place = place_at(event.position)
        if row is None or (row.number, place) in self._dead:
            return ""  # it was redriven, and is out of line
        what = f"{handler.name}() was called with event {place} of stream {handler.stream!r}"
        for one in self._events.get(handler.stream, ()):
            if one.position == place and self._is_done(row, one):
                return f"{what}, which was done on disk"
            if one.position >= place or not handler.wants(one) or self._is_done(row, one):
                continue
            if handler.order == "stream" or (handler.order == "key" and one.key and one.key == event.key):
                which = "of the stream" if handler.order == "stream" else f"of key {one.key!r}"
                return f"{what} before event {one.position} {which} was done on disk"
        return ""

    def _is_done(self, row: SubscriptionRow, event: EventRow) -> bool:
        if (row.number, event.position) in self._done:
            return True
        mark = self._marks.get((row.number, lane_of(event, row.lanes)))
        return mark is not None and (event.position <= mark.cursor or covers(mark.done, event.position))


def _is_of(row: SubscriptionRow, handler: Handler[Any]) -> bool:
    return (row.stream, row.name) == (handler.stream, handler.name)
