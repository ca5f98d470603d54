"""What a client does with event streams, for code without asyncio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from .. import client as awaiting
from ..blocks.event import Appended
from ..blocks.handler import Handler
from ..blocks.starting import refuse_awaited
from ..blocks.stream import Stream
from ..core.events import Append
from ..streaming import subscription as awaited
from ..streaming.appending import appended
from ..streaming.cloudevents import CloudEvent
from ..streaming.parked import ParkedEvent
from .life import Ask, itself

E = TypeVar("E")
T = TypeVar("T")


class Subscription:
    """A handle on the place of a handler in its stream; made by `client.subscription`."""

    def __init__(self, ask: Ask, subscription: awaited.Subscription) -> None:
        self._ask = ask
        self._subscription = subscription
        self.stream = subscription.stream
        """The stream's name."""
        self.name = subscription.name
        """The handler's name."""

    def parked(self, *, limit: int = 100) -> list[ParkedEvent]:
        """The events that are parked, in their order, `limit` at most. Raises SubscriptionNotFound."""
        return self._ask("parked()", lambda _: self._subscription.parked(limit=limit))

    def __repr__(self) -> str:
        return f"<subscription {self.stream}/{self.name}>"


class Streaming(ABC):
    """The part of a client that is about event streams."""

    @abstractmethod
    def _ask(
        self,
        what: str,
        make: Callable[[awaiting.Client], Coroutine[Any, Any, T]],
        timeout: float | None = None,
        *,
        commits: bool = True,
    ) -> T:
        """Have the loop do something, and wait for it."""

    def append(
        self,
        stream: Stream[E],
        value: E,
        *,
        id: str | None = None,
        time: datetime | None = None,
        source: str = "",
        trace_parent: str | None = None,
        connection: Any = None,
    ) -> Appended:
        """Append an event; it is on disk when this returns. The options are those of the awaiting `append`.

        With a `connection`, which must be one that blocks, the event is written by it, in this thread.
        """
        client = self._ask("append()", itself, commits=False)
        append = client.to_append(stream, value, id=id, time=time, source=source, trace_parent=trace_parent)
        return self._append(stream, append, client, connection)[0]

    def append_batch(
        self, stream: Stream[E], values: Iterable[E], *, source: str = "", connection: Any = None
    ) -> list[Appended]:
        """Append many events, all or none, in their order. Otherwise as `append`."""
        client = self._ask("append_batch()", itself, commits=False)
        append = client.to_append_batch(stream, values, source=source)
        return self._append(stream, append, client, connection)

    def append_cloudevent(self, stream: Stream[Any], event: CloudEvent) -> Appended:
        """Append what came as a CloudEvent. Delivered again, it is the same event."""
        return self._ask("append_cloudevent()", lambda client: client.append_cloudevent(stream, event))

    def subscription(self, handler: Handler[Any] | str, stream: str = "") -> Subscription:
        """The place of a handler in its stream: of the handler, or of its name and the stream's."""
        client = self._ask("subscription()", itself, commits=False)
        return Subscription(self._ask, client.subscription(handler, stream))

    def _append(
        self, stream: Stream[Any], append: Append, client: awaiting.Client, connection: Any
    ) -> list[Appended]:
        if connection is None:
            return self._ask("append()", lambda client: client.write_append(stream, append))
        return appended(
            append, refuse_awaited(client.append_within(connection, append), connection, "append()")
        )
