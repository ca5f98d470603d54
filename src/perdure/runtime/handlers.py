"""What the runtime knows of a handler, and what it has done since the last commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..core.events import DeadEvent, EventPage, EventRow, SubscriptionRow
from ..core.positions import position_text
from ..core.retry import Retry
from ..errors import WorkerKilled
from ..stores.base import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Order = Literal["key", "stream", "none"]
OnExhausted = Literal["park_key", "park_event", "stop"]


class HandlerDefinition(Protocol):
    """A function that handles events, and how."""

    name: str
    stream: str
    fn: Callable[[Any], Any]
    is_async: bool
    concurrency: int
    order: Order
    retry: Retry
    on_exhausted: OnExhausted
    from_start: bool
    in_transaction: bool
    may_kill: bool
    """Whether an event that several workers died of is parked: its function may be what kills them."""

    def wants(self, event: EventRow) -> bool:
        """Whether the event is of a type that it handles."""
        ...

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Any:
        """What the function gets. Raises NotDecodable."""
        ...

    def check(self, store: Store) -> None:
        """Raise DefinitionError if it cannot read what the stream keeps; from the thread that writes."""
        ...

    def page(self, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream above a position, in order, which `read` is then ready for."""
        ...

    def prepare(self, store: Store, events: Sequence[EventRow]) -> None:
        """Have `read` ready for these."""
        ...


@dataclass(slots=True)
class Done:
    """What a subscription has for the next commit."""

    finished: list[EventRow] = field(default_factory=list[EventRow])
    """Done, or parked, or put in line on disk."""
    dead: list[DeadEvent] = field(default_factory=list[DeadEvent])
    """Those of them that are parked or put in line."""
    cleared: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """(subscription, position) of those that were on disk, and are done."""
    marked: list[EventRow] = field(default_factory=list[EventRow])
    """To be begun as soon as it is on disk that they are in hand."""
    survived: list[EventRow] = field(default_factory=list[EventRow])
    """Suspects. Others may begin as soon as it is on disk that these are not in hand any more."""

    def __bool__(self) -> bool:
        return bool(self.finished or self.marked or self.survived)


def event_name(event: EventRow, subscription: SubscriptionRow) -> str:
    """An event that a handler has, as the log names it."""
    position = position_text(event.position)
    return f"event {event.id!r} at {position} of stream {subscription.stream!r} by {subscription.name}()"


def said_when_parked(event: EventRow, subscription: SubscriptionRow) -> str:
    """What the log adds to the name of an event that is parked: how it is looked at."""
    where = f"{subscription.stream}/{subscription.name} {position_text(event.position)}"
    return f"which is parked (perdure dead show {where})"


def killed_by(deaths: int) -> WorkerKilled:
    """What an event is parked with that so many workers died of."""
    return WorkerKilled(
        f"{deaths} workers died while they handled this event: it may be killing them (memory, a crash in "
        "native code).",
        hint="Look at the event and its handler, then redrive or discard it.",
    )
