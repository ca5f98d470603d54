"""What a client does with event streams, for code without asyncio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from .. import client as awaiting
from ..blocks.cloudevents import CloudEvent
from ..blocks.event import Appended
from ..blocks.handler import Handler
from ..blocks.starting import refuse_awaited
from ..blocks.stream import Stream
from ..blocks.tracing import trace_of
from ..core.events import Append
from ..core.standing import Holdup
from ..streaming.appending import appended
from ..streaming.lagging import Lag
from ..streaming.reading import StreamPage
from .life import itself
from .subscription import Subscription

E = TypeVar("E")
T = TypeVar("T")


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
        trace = trace_of(trace_parent)
        append = client.to_append(stream, value, id=id, time=time, source=source, trace=trace)
        return self._append(stream, append, client, connection)[0]

    def append_batch(
        self,
        stream: Stream[E],
        values: Iterable[E],
        *,
        ids: Iterable[str] | None = None,
        times: Iterable[datetime] | None = None,
        source: str = "",
        connection: Any = None,
    ) -> list[Appended]:
        """Append many events, all or none, in their order. The options are those of the awaiting one."""
        client = self._ask("append_batch()", itself, commits=False)
        append = client.to_append_batch(stream, values, ids=ids, times=times, source=source)
        return self._append(stream, append, client, connection)

    def append_cloudevent(self, stream: Stream[Any], event: CloudEvent) -> Appended:
        """Append what came as a CloudEvent. Delivered again, it is the same event."""
        return self._ask("append_cloudevent()", lambda client: client.append_cloudevent(stream, event))

    def events(
        self, stream: Stream[E] | str, begin: str | datetime = "earliest", *, limit: int = 100
    ) -> StreamPage[E]:
        """Look at what a stream keeps, from a place on; see the awaiting `Client.events`."""
        return self._ask("events()", lambda client: client.events(stream, begin, limit=limit), commits=False)

    def subscription(self, handler: Handler[Any] | str, stream: str = "") -> Subscription:
        """The place of a handler in its stream: of the handler, or of its name and the stream's."""
        client = self._ask("subscription()", itself, commits=False)
        return Subscription(self._ask, client.subscription(handler, stream))

    def subscriptions(self) -> list[Subscription]:
        """The places of all handlers that have ever subscribed, by stream and name."""
        found = self._ask("subscriptions()", lambda client: client.subscriptions())
        return [Subscription(self._ask, one) for one in found]

    def lags(self) -> list[Lag]:
        """How far all handlers are behind, by stream and name; see `Subscription.lag`."""
        return self._ask("lags()", lambda client: client.lags())

    def holdup(self) -> Holdup | None:
        """The oldest transaction on PostgreSQL that holds events back; see `Client.holdup`."""
        return self._ask("holdup()", lambda client: client.holdup())

    def _append(
        self, stream: Stream[Any], append: Append, client: awaiting.Client, connection: Any
    ) -> list[Appended]:
        if connection is None:
            return self._ask("append()", lambda client: client.write_append(stream, append))
        return appended(
            append, refuse_awaited(client.append_within(stream, append, connection), connection, "append()")
        )
