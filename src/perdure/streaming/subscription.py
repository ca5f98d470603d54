"""`Subscription`: the place of a handler in its stream, as people who run it see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.events import SubscriptionRow
from ..doors import Door
from ..errors import SubscriptionNotFound
from .dead_letters import DeadLetters
from .event_time import EventTime, event_time
from .forking import Forkable
from .lagging import Measured
from .seeking import Seekable

if TYPE_CHECKING:
    from ..blocks.handler import Handler


class Subscription(Measured, Seekable, Forkable, DeadLetters):
    """A handle on the place of a handler in its stream; made by `client.subscription`."""

    def __init__(
        self,
        door: Callable[[], Door],
        stream: str,
        name: str,
        handler: Handler[Any] | None = None,
    ) -> None:
        self._door = door
        self._handler = handler
        self._decode = None if handler is None else handler.decode
        self.stream = stream
        """The stream's name."""
        self.name = name
        """The handler's name."""

    async def event_time(self) -> EventTime:
        """How far event time is, of one that was made by `Stream.window`. Raises SubscriptionNotFound."""
        row = await self._row()
        return event_time(await self._door().read(lambda store: store.streams.open_windows(row.number)))

    async def _row(self) -> SubscriptionRow:
        stream, name = self.stream, self.name
        found = await self._door().read(lambda store: store.streams.subscriptions())
        rows = [row for row in found if not row.is_intake]
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
