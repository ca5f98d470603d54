"""What a client does with event streams: append to them, and see to their subscriptions."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from datetime import datetime
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from ..blocks.tracing import trace_from, trace_of
from ..core.events import Append, Clash, Placed
from ..core.standing import Holdup
from ..doors import Door
from ..errors import PerdureError
from .backlog import Backlog
from .registering import Registrar

if TYPE_CHECKING:
    # Whoever calls with one of them has loaded it.
    from ..blocks.cloudevents import CloudEvent
    from ..blocks.event import Appended
    from ..blocks.handler import Handler
    from ..blocks.stream import Stream
    from .lagging import Lag
    from .reading import StreamPage
    from .subscription import Subscription

E = TypeVar("E")


class Streaming(ABC):
    """The part of a client that is about event streams."""

    _backlog: Backlog | None = None
    _registrar: Registrar

    @property
    @abstractmethod
    def door(self) -> Door:
        """The way to the store. Raises PerdureError when it is not open."""

    async def append(
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
        """Append an event. It is on disk when this returns, and every handler of the stream will get it.

        - `id`: with one, appending the same event again is harmless, for as long as the stream keeps
          it: it is one event, by its source and id.
        - `time`: when it happened; by default now.
        - `trace_parent`: the W3C `traceparent` that it belongs to; by default that of OpenTelemetry's
          current span, where that is in use.
        - `connection`: one of your own to the store's database, with a transaction open, as `start` takes
          it. The event is written in that, with what else you write there: it is in the stream if and when
          you commit.

        Waits while very much is to be written already. Raises DuplicateConflict if the id stands for
        an event with other content, NotSerialisable for a value that is not of the stream's type
        or whose key cannot be told, SchemaError if that type is not what its version was or does not go
        with the events that the stream keeps; nothing is written then. With a `connection` also StoreError
        if it is to something else than the store or has no transaction, and the driver's own errors.
        """
        trace = trace_of(trace_parent)
        append = self.to_append(stream, value, id=id, time=time, source=source, trace=trace)
        return (await self._append(stream, append, connection))[0]

    async def append_batch(
        self,
        stream: Stream[E],
        values: Iterable[E],
        *,
        ids: Iterable[str] | None = None,
        times: Iterable[datetime] | None = None,
        source: str = "",
        connection: Any = None,
    ) -> list[Appended]:
        """Append many events, all or none, in their order. Otherwise as `append`.

        `ids` and `times`: one for each value. With ids, to append a batch again is harmless, also when
        only some of it is there: each is told by `is_duplicate`.
        """
        append = self.to_append_batch(stream, values, ids=ids, times=times, source=source)
        return await self._append(stream, append, connection)

    def append_nowait(
        self,
        stream: Stream[E],
        value: E,
        *,
        id: str | None = None,
        time: datetime | None = None,
        source: str = "",
        trace_parent: str | None = None,
    ) -> asyncio.Future[Appended]:
        """Have an event appended, and do not wait: it is on disk when the future that this gives is done.

        Events are written in the order of the calls. Whoever drops the future may lose the event in
        a crash, and hears of an error only in the log.

        Raises Backpressure when 10,000 events or 64 MiB wait to be written already: nothing is taken
        in then. Otherwise as `append`.
        """
        backlog = self._open_backlog()
        backlog.refuse_if_full(stream.name)
        trace = trace_of(trace_parent)
        append = self.to_append(stream, value, id=id, time=time, source=source, trace=trace)
        written = self._registrar.hand_over(self.door, stream, append)
        backlog.enter(append.events, written)
        return asyncio.ensure_future(_first(append, written))

    async def append_cloudevent(self, stream: Stream[Any], event: CloudEvent) -> Appended:
        """Append what came as a CloudEvent, with the id, source, time and trace that it has.

        Delivered again, it is the same event. Its key is that which the stream gives to its value.
        Raises NotDecodable for one that does not fit the stream's types; otherwise as `append`.
        """
        value, source = event.read(stream), event.source_in(stream)
        trace = trace_from(event.traceparent, event.tracestate)
        append = self.to_append(stream, value, id=event.id, time=event.time, source=source, trace=trace)
        return (await self._append(stream, append, None))[0]

    async def _append(self, stream: Stream[Any], append: Append, connection: Any) -> list[Appended]:
        if connection is None:
            return await self.write_append(stream, append)
        within = self.append_within(stream, append, connection)
        return appended(append, await within if isawaitable(within) else within)

    async def write_append(self, stream: Stream[Any], append: Append) -> list[Appended]:
        """The rest of `append` without a connection."""
        backlog = self._open_backlog()
        await backlog.wait()
        written = self._registrar.hand_over(self.door, stream, append)
        backlog.enter(append.events, written)
        return appended(append, await written)

    def append_within(
        self, stream: Stream[Any], append: Append, connection: Any
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        """The middle of `append(…, connection=connection)`; to be awaited where the connection is."""
        door = self.door
        return door.append_within(connection, append, self._registrar.by_connection(door, stream, append))

    def to_append(
        self,
        stream: Stream[E],
        value: E,
        *,
        id: str | None,
        time: datetime | None,
        source: str,
        trace: str,
    ) -> Append:
        """What `append` writes."""
        _check_stream(stream)
        now_ms = self.door.clock.now_ms()
        new = stream.new_event(value, self._draw(), now_ms, id=id, time=time, source=source, trace=trace)
        return Append(stream.name, [new])

    def to_append_batch(
        self,
        stream: Stream[E],
        values: Iterable[E],
        *,
        ids: Iterable[str] | None,
        times: Iterable[datetime] | None,
        source: str,
    ) -> Append:
        """What `append_batch` writes."""
        _check_stream(stream)
        if not isinstance(values, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
            raise PerdureError(
                f"append_batch() takes many events, and was given one {type(values).__name__}.",
                hint="Pass a list, or use append(stream, value).",
            )
        drawn, now_ms, trace = self._draw(), self.door.clock.now_ms(), trace_of(None)
        events = [
            stream.new_event(value, f"{drawn}-{number}", now_ms, id=id, time=time, source=source, trace=trace)
            for number, (value, id, time) in enumerate(_abreast(list(values), ids, times))
        ]
        return Append(stream.name, events)

    async def events(
        self, stream: Stream[E] | str, begin: str | datetime = "earliest", *, limit: int = 100
    ) -> StreamPage[E]:
        """Look at what a stream keeps, from a place on: at most so many events, in order.

        `begin` is a place as `Subscription.seek` takes one: `"earliest"`, `"latest"`, a position, or a time;
        or the `next` of what was read before, to read on. Of a stream that is only named, each event's
        `data` is what its JSON holds, as it was appended.

        It changes nothing, and no handler is asked. None is left out: what a transaction that is still
        open may put before an event holds that back. Raises PositionGone where events were let go,
        StreamError for a place that is not there, and NotDecodable or StoreCorrupt for an event that
        cannot be read.
        """
        from .reading import read_events

        return await read_events(self.door, stream, begin, limit)

    def subscription(self, handler: Handler[Any] | str, stream: str = "") -> Subscription:
        """A handle on the place of a handler in its stream; making it asks nothing.

        Of the handler itself, of its name and the stream's, or of both in one, as the command line has
        them: `subscription("orders/ship")`.
        """
        from .subscription import Subscription

        if isinstance(handler, str):
            if not stream:
                stream, _, handler = handler.rpartition("/")
            return Subscription(lambda: self.door, stream, handler)
        return Subscription(lambda: self.door, handler.stream, handler.name, handler)

    async def subscriptions(self) -> list[Subscription]:
        """The places of all handlers that have ever subscribed, by stream and name."""
        rows = await self.door.read(lambda store: store.streams.subscriptions())
        return [self.subscription(row.name, row.stream) for row in rows if not row.is_intake]

    def _open_backlog(self) -> Backlog:
        _ = self.door  # says so when it is not open
        if self._backlog is None:
            self._backlog = Backlog()
        return self._backlog

    async def lags(self) -> list[Lag]:
        """How far all handlers are behind, by stream and name; see `Subscription.lag`."""
        from .lagging import read_lag

        door = self.door
        rows = await door.read(lambda store: store.streams.subscriptions())
        found = [await read_lag(door, row) for row in rows if not row.is_intake]
        return [lag for lag in found if lag is not None]

    async def holdup(self) -> Holdup | None:
        """The oldest transaction on PostgreSQL that has written something and is still open; else None.

        No event that was appended since it began is delivered before it ends: that is how no event is
        missed that comes before. Sessions of other roles are seen by a role that may read all statistics.
        """
        return await self.door.read(lambda store: store.streams.holdup())

    def _draw(self) -> str:
        return self.door.source.bytes(16).hex()


def _check_stream(stream: object) -> None:
    # Not all who call have a type checker.
    if not hasattr(stream, "new_event"):
        raise PerdureError(
            f"An append takes a stream, and was given {stream!r}.",
            hint="Define it once, `orders = Stream('orders', …)`, and pass that: append(orders, value).",
        )


def _abreast(
    values: list[E], ids: Iterable[str] | None, times: Iterable[datetime] | None
) -> Iterable[tuple[E, str | None, datetime | None]]:
    of_each = [None] * len(values)
    all_ids = of_each if ids is None else list(ids)
    all_times = of_each if times is None else list(times)
    if not len(values) == len(all_ids) == len(all_times):
        raise PerdureError(
            f"append_batch() was given {len(values)} events, {len(all_ids)} ids and {len(all_times)} times. "
            "Nothing was appended.",
            hint="Give one id, and one time, for each event; or none at all.",
        )
    return zip(values, all_ids, all_times, strict=True)


def appended(append: Append, outcome: list[Placed] | Clash) -> list[Appended]:
    """What callers get. Raises DuplicateConflict."""
    from ..blocks.event import Appended, position_text
    from ..blocks.stream import placed_or_refuse

    placed = placed_or_refuse(append, outcome)
    return [Appended(position_text(one.position), one.is_duplicate) for one in placed]


async def _first(append: Append, written: asyncio.Future[list[Placed] | Clash]) -> Appended:
    return appended(append, await written)[0]
