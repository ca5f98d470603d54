"""`Subscription`: the place of a handler in its stream, as people who run it see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..blocks.event import moment, position_text
from ..codec.failures import describe_failure
from ..core.events import DeadEvent, DeadKind, SubscriptionRow
from ..doors import Door
from ..errors import SubscriptionNotFound
from .event_time import EventTime, event_time


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that a handler could not handle, and that waits for a person."""

    position: str
    """Where it stands in its stream."""
    key: str
    reason: str
    """`failed`, `unreadable`, or `behind`: an earlier event of its key is parked."""
    attempts: int
    error: str
    """What the last attempt raised; empty for an event that is parked behind another."""
    parked_at: datetime


class Subscription:
    """A handle on the place of a handler in its stream; made by `client.subscription`."""

    def __init__(self, door: Callable[[], Door], stream: str, name: str) -> None:
        self._door = door
        self.stream = stream
        """The stream's name."""
        self.name = name
        """The handler's name."""

    async def parked(self, *, limit: int = 100) -> list[ParkedEvent]:
        """The events that are parked, in their order, `limit` at most. Raises SubscriptionNotFound."""
        row = await self._row()
        dead = await self._door().read(
            lambda store: store.streams.dead_events(row.number, after=0, limit=limit)
        )
        return [_parked(one) for one in dead]

    async def event_time(self) -> EventTime:
        """How far event time is, of one that was made by `Stream.window`. Raises SubscriptionNotFound."""
        row = await self._row()
        return event_time(await self._door().read(lambda store: store.streams.open_windows(row.number)))

    async def _row(self) -> SubscriptionRow:
        stream, name = self.stream, self.name
        rows = await self._door().read(lambda store: store.streams.subscriptions())
        for row in rows:
            if (row.stream, row.name) == (stream, name):
                return row
        known = ", ".join(f"{row.stream}/{row.name}" for row in rows) or "none"
        raise SubscriptionNotFound(
            f"No handler {name!r} has subscribed to stream {stream!r}. Subscribed are: {known}.",
            hint="A handler subscribes when an engine that serves it opens the store.",
        )

    def __repr__(self) -> str:
        return f"<subscription {self.stream}/{self.name}>"


def _parked(dead: DeadEvent) -> ParkedEvent:
    return ParkedEvent(
        position=position_text(dead.position),
        key=dead.key,
        reason=DeadKind(dead.kind).name.lower(),
        attempts=dead.attempts,
        error="" if dead.failure is None else describe_failure(dead.failure),
        parked_at=moment(dead.at_ms),
    )
