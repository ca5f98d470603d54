"""`Handler`: a function that handles the events of a stream; and those that an engine serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..core.events import EventPage, EventRow, SubscriptionRow
from ..core.positions import position_text
from ..core.retry import Retry
from ..errors import DefinitionError
from ..runtime.handlers import OnExhausted, Order
from ..runtime.subscriber import Subscriber
from ..runtime.subscriptions import Served
from ..stores.base import Store
from ..stores.streams import LANES
from .event import Event, as_event
from .serving import define
from .versions import Versions

if TYPE_CHECKING:
    from ..runtime.driver import Driver

E = TypeVar("E")


class Source(Protocol):
    """The stream that events come from, as its declaration in the code has it."""

    versions: Versions

    def check_chains(self, store: Store) -> None:
        """Raise DefinitionError if events that the stream keeps cannot be read."""
        ...


class Handler(Generic[E]):
    """A function that handles the events of a stream; made by `Stream.on`."""

    def __init__(
        self,
        stream: str,
        function: Callable[..., Any],
        *,
        types: frozenset[str],
        source: Source,
        name: str | None,
        concurrency: int,
        order: Order,
        retry: Retry,
        from_start: bool,
        on_exhausted: OnExhausted = "park_key",
        in_transaction: bool = False,
        is_defined: bool = True,
    ) -> None:
        """`types`: the names of those that it handles; none: all. `is_defined`: whether it is served at once.

        Raises DefinitionError.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DefinitionError(
                f"Handler {getattr(function, '__name__', function)!r} of stream {stream!r} yields: its code "
                "would not run.",
                hint="A handler is a function, sync or async, that returns when it is done.",
            )
        self.stream = stream
        self.fn = function
        self.name = name or getattr(function, "__name__", repr(function))
        self.is_async = inspect.iscoroutinefunction(function)
        self.concurrency = concurrency
        self.order: Order = order
        self.retry = retry
        self.on_exhausted: OnExhausted = on_exhausted
        self.from_start = from_start
        self.in_transaction = in_transaction
        self.lanes = LANES
        self.is_intake = False
        self.other = ""
        self.may_kill = True
        self._types = types
        self._source = source
        self._read = source.versions.decode
        self.__doc__ = function.__doc__
        if is_defined:
            define(self)

    @property
    def types(self) -> frozenset[str]:
        """The names of the types that it handles; none: all."""
        return self._types

    def wants(self, event: EventRow) -> bool:
        """Whether the event is of a type that it handles."""
        return not self._types or event.type in self._types

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Event[Any]:
        """What the function gets. Raises NotDecodable."""
        key = f"{self.name}/{self.stream}/{position_text(event.position)}"
        return as_event(event, self._read(event), stream=self.stream, idempotency_key=key, attempt=attempt)

    def check(self, store: Store) -> None:
        """Raise DefinitionError if events that the stream keeps cannot be read.

        Called from the thread that writes.
        """
        self._source.check_chains(store)

    def page(self, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream, once it is known how those of newer versions can be read."""
        return page_of(self._source, self.stream, store, after=after, limit=limit)

    def prepare(self, store: Store, events: Sequence[EventRow]) -> None:
        """Learn how events of newer versions can be read, before `read` gets them."""
        learn_versions(self._source, self.stream, store, events)

    def decode(self, event: EventRow) -> object:
        """The value of an event. Raises NotDecodable."""
        return self._read(event)

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Deliver events to it in this worker; for the runtime."""
        return Subscriber(driver, self, row)

    def __call__(self, event: Event[E], *connection: Any) -> Any:
        """Call the function, as a test may; with `transaction=True` it takes a connection, too."""
        return self.fn(event, *connection)

    def __repr__(self) -> str:
        return f"<handler {self.name} of stream {self.stream}>"


def page_of(source: Source, stream: str, store: Store, *, after: int, limit: int) -> EventPage:
    """Events of a stream, once it is known how those of newer versions can be read."""
    page = store.streams.events(stream, after=after, limit=limit)
    learn_versions(source, stream, store, page.events)
    return page


def learn_versions(source: Source, stream: str, store: Store, events: Sequence[EventRow]) -> None:
    """Learn how those of newer versions can be read."""
    if new := source.versions.unknown(events):
        for row in store.streams.schemas(stream):
            if (row.type, row.version) in new:
                source.versions.learn(row)
