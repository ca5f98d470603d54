"""What a store does for events that could not be handled: parked ones, and subscriptions that stand still.

An event that is parked has a row of its own, and its lane goes on past it. A row that is
*due* is not parked: it waits on disk for its turn, since a person has redriven it, or
because its key has too many events to hold them all in memory.

The law of order: an event of a key that *holds* is delivered only when no row of that key
that stands before it is parked. Whoever puts one in line need not know whether that
is so: the transaction that writes it does.

People's verbs are called between two commits, as those that write are, and grow the
subscription's edition, by which live workers notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..core.events import (
    Author,
    DeadEvent,
    DeadFilter,
    DeadNote,
    DueEvents,
    EventRow,
    Redriven,
    Standing,
    SubscriptionStanding,
)

DEATHS_BEFORE_PARKING = 3
"""An event that so many workers died of is parked."""


class DeadStore(Protocol):
    """The dead letters of a store's subscriptions."""

    def events(self, subscription: int, wanted: DeadFilter, *, after: int = 0, limit: int) -> list[DeadEvent]:
        """What is parked, by position, above `after`."""
        ...

    def counts(self, subscription: int) -> dict[int, int]:
        """How many events are parked, by their kind; those that are due under 0."""
        ...

    def discarded(self, subscription: int) -> list[int]:
        """Positions of events that people have discarded."""
        ...

    def event(self, subscription: int, place: int) -> EventRow | None:
        """The event at a position, as it was appended."""
        ...

    def notes(self, subscription: int, place: int) -> list[DeadNote]:
        """What people did to it, in order."""
        ...

    def edit(self, subscription: int, place: int, payload: bytes, author: Author) -> bool:
        """Deliver this in place of the event's own payload, from now on. False if it is not parked."""
        ...

    def discard(self, subscription: int, wanted: DeadFilter, author: Author) -> list[int]:
        """Give up parked events for good; gives their positions."""
        ...

    def begin_redrive(self, subscription: int) -> int:
        """A number for a redrive, which no other has."""
        ...

    def redrive(
        self,
        subscription: int,
        redrive: int,
        wanted: DeadFilter,
        author: Author | None,
        *,
        limit: int,
    ) -> Redriven:
        """Make parked events due, `limit` at most, in the order of their positions; each once in a redrive.

        Where a key holds, all that is parked of it is meant with any one of its events; a key of which an
        event of this redrive failed again is left alone. Without an author nothing is done: a dry run.
        """
        ...

    def held(self, subscription: int) -> list[tuple[int, str, bool]]:
        """(lane, key, whether any of it is due) of the keys of which events wait on disk."""
        ...

    def due(self, subscription: int, lane: int, key: str, *, limit: int) -> DueEvents:
        """What of a key is to be delivered next."""
        ...

    def standings(self) -> list[SubscriptionStanding]:
        """How all subscriptions stand."""
        ...

    def change_standing(
        self, subscription: int, before: Sequence[Standing], after: Standing, *, reason: str, at_ms: int
    ) -> bool:
        """Let a subscription stand otherwise, if it stands in one of these ways now."""
        ...
