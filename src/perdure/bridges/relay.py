"""`Relay`: a handler that publishes a stream's events to a broker. What is common to all brokers.

Law: an event counts as handled when the broker has acknowledged it. A broker that is
away parks nothing: its events wait, those of a key in order. Only an event that the
broker can never take (too large, no such subject) is parked, for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from ..blocks.event import Event, moment
from ..blocks.handler import Handler
from ..blocks.stream import Stream
from ..core.events import EventPage, EventRow, SubscriptionRow
from ..core.positions import position_text
from ..core.retry import Retry
from ..errors import BrokerUnavailable, DefinitionError, NonRetryable
from ..runtime.subscriber import Subscriber
from ..runtime.subscriptions import Served
from ..stores.base import Store

if TYPE_CHECKING:
    from ..runtime.driver import Driver

E = TypeVar("E")

CONCURRENCY = 256
"""So many events are on their way to the broker at once, of different keys."""
_RETRY = Retry(attempts=1)  # the connection is patient itself


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way to a broker, as it is kept: its payload is not read."""

    row: EventRow
    stream: str

    @property
    def type(self) -> str:
        """The name of its type."""
        return self.row.type

    @property
    def key(self) -> str:
        """Its key; empty without one."""
        return self.row.key

    @property
    def time(self) -> datetime:
        """When it happened, in UTC."""
        return moment(self.row.time_ms)

    @property
    def position(self) -> str:
        """Where it stands in its stream."""
        return position_text(self.row.position)

    @property
    def payload(self) -> bytes:
        """Its value, as JSON."""
        return self.row.payload


Address = str | Callable[[Outgoing], str]
"""Where events go: one name for all, or a function that says it for each."""


class Unrelayable(NonRetryable):
    """The broker can never take this event: it is parked."""


class Link(Protocol):
    """A connection to a broker, of one worker."""

    async def publish(self, event: Outgoing) -> None:
        """Return when the broker has it, however long it is away.

        Raises Unrelayable, and BrokerUnavailable after `release`.
        """
        ...

    def release(self) -> None:
        """Let go who waits for a broker that is away."""
        ...

    async def close(self) -> None:
        """Let the connection go."""
        ...


class Relay(Handler[E]):
    """Publishes the events of a stream to a broker; made by `nats.relay` or `kafka.relay`.

    It is a handler of the stream, and served as one is, for as long as the stream lives.
    Events of a key go out in order, each at least once and under an id that stays the same:
    after a crash what was under way is published again.
    """

    def __init__(
        self,
        stream: Stream[E],
        *,
        name: str,
        only: Iterable[type[E]],
        begin: Literal["first", "next"],
        connect: Callable[[Driver], Link],
    ) -> None:
        super().__init__(
            stream.name, _refuse_to_run, types=frozenset(stream.type_of(kind)[0] for kind in only),
            source=stream, name=name, concurrency=CONCURRENCY, order="key",
            retry=_RETRY, from_start=begin == "first",
        )  # fmt: skip
        self.__doc__ = f"Publishes the events of {stream.name} to {name}."
        self._connect = connect
        self.may_kill = False  # no code of the user runs: whatever kills the workers, it is not the event
        stream.bridges.append(self)

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Any:
        """What is published: the event as it is kept."""
        return Outgoing(event, self.stream)

    def check(self, store: Store) -> None:
        """Events are published as they are kept, whatever their version."""

    def page(self, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream."""
        return store.streams.events(self.stream, after=after, limit=limit)

    def prepare(self, store: Store, events: Sequence[EventRow]) -> None:
        """They are published as they are kept."""

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Publish events in this worker, over a connection of its own."""
        link = self._connect(driver)
        served = copy(self)
        served.fn, served.is_async = link.publish, True
        return _Relaying(driver, served, row, link)


class _Relaying(Subscriber):
    """A subscriber that lets its connection go at the end."""

    def __init__(self, driver: Driver, definition: Relay[Any], row: SubscriptionRow, link: Link) -> None:
        super().__init__(driver, definition, row)
        self._link = link

    async def drain(self) -> None:
        self._link.release()
        await super().drain()

    async def stop(self) -> None:
        await super().stop()
        await self._link.close()

    def _failed(self, event: EventRow, attempt: int, error: BaseException) -> None:
        # After a release an event that waits stays undone: the next worker publishes it.
        if not isinstance(error, BrokerUnavailable):
            super()._failed(event, attempt, error)


def address_of(address: Address, event: Outgoing) -> str:
    """Where an event goes. Raises Unrelayable when the function fails."""
    if isinstance(address, str):
        return address
    try:
        return address(event)
    except (Exception, SystemExit) as error:
        raise Unrelayable(f"The function that says where it goes failed: {error!r}") from error


def _refuse_to_run(event: Event[Any]) -> None:
    raise DefinitionError("A relay is served by an engine; it cannot be called.")
