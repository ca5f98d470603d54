"""What a store does for event streams; the writing itself is part of a batch (`base.Batch`).

An event's position is its place in the stream's order: an append that is given one
is on disk, and who has read up to it will find nothing more below. A subscription is
dealt out into lanes, by the events' keys; a lane belongs to one worker's lease, as a
run does, and what is done of it is written under that lease or not at all.

The law of delivery: an event's lane moves past it in the commit that says that its
handler is done with it, or that it is parked. What was under way when a worker died
is delivered again; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from zlib import crc32

from ..core.events import (
    Append,
    Clash,
    DeadEvent,
    EventPage,
    EventRow,
    LaneRow,
    Placed,
    SchemaRow,
    SchemaStand,
    SubscriptionRow,
)
from .correlation import Found, Given, Wanted
from .dead import DeadStore
from .rows import Lease

if TYPE_CHECKING:
    from ..core.event_time import LaneTime
    from ..core.standing import Head, Holdup, KeepRule, Move, SeekRow, StreamSpan, SubscriptionStand
    from ..core.windows import LaneRows

Register: TypeAlias = Callable[[Any], object]
"""Puts the schemas of events that are about to be appended on a connection of the user's, which writes
alone there; or by the store's own, where that need not wait for it: then it gets None."""

LANES = 16
"""How many lanes a subscription has. More would spread it over more workers than that."""


def share_of(lanes: int, serving: Sequence[int], lease: int, *, is_whole: bool) -> int:
    """How many of the lanes are a lease's, of those which serve the subscription, in order."""
    if is_whole:
        return lanes if serving[:1] == [lease] else 0
    return -(-lanes // max(1, len(serving)))


class StreamStore(Protocol):
    """The streams of a store. `subscribe` and `claim_lanes` are called from the committer's thread."""

    @property
    def dead(self) -> DeadStore:
        """What its subscriptions have parked, and whether they stand still."""
        ...

    def subscribe(
        self,
        stream: str,
        name: str,
        *,
        lanes: int,
        from_start: bool,
        is_intake: bool = False,
        other: str = "",
    ) -> SubscriptionRow:
        """The subscription of this name, which is made if there is none, and then lasts.

        `lanes`, and where it begins (the first event that is kept, or the next one to come),
        count when it is made; `other`, the second stream of a join, is kept as it was last given.
        Raises StoreMoved if a move has closed the store.
        """
        ...

    def subscriptions(self) -> list[SubscriptionRow]:
        """All of them, by stream and name."""
        ...

    def claim_lanes(
        self, lease: Lease, subscriptions: Sequence[int], *, now_ms: int, whole: Sequence[int] = ()
    ) -> list[LaneRow]:
        """Take free lanes of these subscriptions, and say how far they are. Raises LeaseLost.

        Up to the worker's share: the lanes, divided by the workers that serve the subscription,
        rounded up. Who claims serves it, as long as its lease lasts. Those of `whole` are not shared:
        all goes to the worker that has served longest. Lanes of this lease that were sent elsewhere
        since it took them are given, too, whatever the share. Ends the leases of workers that are dead.
        """
        ...

    def shares(
        self, lease: Lease, subscriptions: Sequence[int], *, whole: Sequence[int] = ()
    ) -> dict[int, int]:
        """How many lanes of each are the lease's share, as in `claim_lanes`. Who has more gives them up."""
        ...

    def lanes(self, subscription: int) -> list[LaneRow]:
        """How far all lanes of a subscription are, whosever they are; without keys and watches."""
        ...

    def append_within(
        self, connection: Any, append: Append, *, register: Register | None = None
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        """Append in the transaction that a connection has open: the events are there if that commits.

        The one that is lent to a step, or the user's own; otherwise as `Store.start_within`. To be
        awaited where the connection is. `register` is called before anything is written.
        """
        ...

    def ask_within(self, connection: Any, wanted: Wanted, run_id: str) -> Found:
        """Give a run the first event that fits and that it has not been given; or have it sent when it comes.

        In the transaction that a step of that run has open. Sent, it is a signal to the run, in the
        transaction that appends it, or in one of `give_awaited`. A generation that goes on is not
        given again what those before were.
        """
        ...

    @property
    def gives_later(self) -> bool:
        """Whether events are given to runs by `give_awaited`, and not by appends and by who asks."""
        ...

    def any_awaiting(self) -> bool:
        """Whether runs may wait for events, as far as this process knows. Never blocks."""
        ...

    def look_for_awaited(self) -> Any | None:
        """What `give_awaited` is to compare: events, and what runs have asked for. None: nothing."""
        ...

    def give_awaited(self, lease: Lease, news: Any) -> Given:
        """Send runs the events that they wait for, as signals. Raises LeaseLost.

        Where several workers do so at once, each run is still given each event once. Called from the
        committer's thread.
        """
        ...

    def events(self, stream: str, *, after: int, limit: int) -> EventPage:
        """Events of a stream above a position, in order; none of a stream that nobody appended to.

        One that is damaged is there, and says so. Nothing is given to who asks for some that have been let
        go: then the page's `gone` is above `after`.
        """
        ...

    def dead_events(self, subscription: int, *, after: int, limit: int) -> list[DeadEvent]:
        """What a subscription has parked, by position, above `after`."""
        ...

    def schemas(self, stream: str = "") -> list[SchemaRow]:
        """The schemas of a stream's events, or of all streams', by stream, type and version."""
        ...

    def has_schema(
        self, stream: str, type: str, version: int, fingerprint: str, *, connection: Any = None
    ) -> bool:
        """Whether that schema is kept; `connection`: as its open transaction sees it."""
        ...

    def schema_stand(self, stream: str, *, connection: Any = None) -> SchemaStand:
        """The schemas of a stream as they stand; `connection`: as its open transaction sees them."""
        ...

    def put_schema(self, row: SchemaRow, stand: SchemaStand, *, connection: Any = None) -> bool:
        """Keep a schema, in place of that of the same type and version if there is one.

        Not done if others came since it was judged, or if an event was appended since of a version
        that is to be replaced: then look and judge again. With `connection` in the transaction that
        that has open. Raises StoreMoved if a move has closed the store.
        """
        ...

    def keeps_version(self, row: SchemaRow, *, connection: Any = None) -> bool:
        """Whether the stream keeps any event of this type and version.

        It may read the whole stream for that, but notes what it did not find, and does not read that
        part again. Called from the thread that writes.
        """
        ...

    def windows(self, subscription: int) -> list[LaneRows]:
        """What is kept of the windows of a subscription, by lane; nothing of one that has none."""
        ...

    def open_windows(self, subscription: int) -> list[tuple[LaneTime, int]]:
        """How far event time is in its lanes, and how many windows wait there for more."""
        ...

    def stand(self, subscription: int, *, since_ms: int) -> SubscriptionStand | None:
        """How far a subscription is, and how much was appended since that time; None if it is gone."""
        ...

    def span(self, stream: str, *, since_ms: int) -> StreamSpan:
        """What a stream keeps, and where in it a time stands.

        Exact while append times grow along the stream. Where clocks of processes differ, events that
        were appended before may be among those that follow; one that was appended since is missed only if
        a thousand others stand between it and those of its time.
        """
        ...

    def find(self, stream: str, *, source: str, id: str) -> int | None:
        """Where the event stands that was appended with this id; None if it is not kept."""
        ...

    def weigh(self, subscription: int, position: int) -> Move | None:
        """What it would do to let a subscription go on behind a position; None if it is gone."""
        ...

    def seek(self, subscription: int, position: int, *, now_ms: int, who: str, reason: str) -> int | None:
        """Let a subscription go on behind a position, with all its lanes.

        What is parked above it is parked no more. What workers have in hand of it is marked no more:
        they find their lanes again by `claim_lanes`. Gives the stream's `gone`: if that is above
        `position`, nothing was written. None if the subscription is gone. Raises StoreMoved.
        """
        ...

    def holdup(self) -> Holdup | None:
        """The oldest transaction that holds events back; None where none does, or where it is not seen.

        In a file there is never one.
        """
        ...

    def seeks(self, subscription: int, *, limit: int) -> list[SeekRow]:
        """Where a subscription has been sent, the latest first."""
        ...

    def unsubscribe(self, subscription: int) -> str:
        """Remove a subscription, with what it has parked. Raises StoreMoved.

        Gives the worker that has some of its lanes, if one has: then nothing was removed.
        """
        ...

    def let_go(self, rule: KeepRule, *, now_ms: int, limit: int) -> int:
        """Remove what a stream need not keep any more, the oldest first; gives how many, at most `limit`.

        Events that are parked are kept until they are parked no more. Cheap when there is nothing.
        Raises StoreMoved.
        """
        ...


def lane_of(event: EventRow | Head, lanes: int) -> int:
    """The lane that an event goes through: that of its key, or any where it has none."""
    return lane_of_key(event.key, event.position, lanes)


def lane_of_key(key: str, position: int, lanes: int) -> int:
    """The same, of the event with this key at this position."""
    return (crc32(key.encode()) if key else position) % lanes
