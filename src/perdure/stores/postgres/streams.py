"""Event streams in the database: append, subscribe, read along, and keep how far each lane is.

Law: who has read up to a position has missed nothing at or below it. A position is made of the number
of the transaction that appends, and a page ends below that of the oldest one which is
running (the *horizon*), as for messages. Two events of one stream, source and id are one event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from typing import Any

from ...core.event_time import LaneTime
from ...core.events import (
    Append,
    Clash,
    DeadEvent,
    DeadFilter,
    EventPage,
    EventRow,
    LaneMark,
    LaneRow,
    LaneWatch,
    Placed,
    SubscriptionRow,
)
from ...core.windows import LaneRows
from ...errors import StoreError
from ..base import Lease
from ..correlation import Found, Given, Wanted
from ..standing import read_history, write_history
from ..streams import Register, lane_of_key
from .appending import Appends, stream_number
from .arrays import numbers, texts
from .awaiting import Awaiting, News
from .borrowing import Borrowing
from .connection import Database
from .dead import DeadLetters, count_crashes
from .gate import Gate
from .lease import HeldLease, Leases
from .link import Link
from .migrating import set_stream_clock
from .schemas import Schemas
from .windows import read_open_windows, read_windows

_Claimed = tuple[
    list[tuple[Any, ...]], list[tuple[Any, ...]], dict[tuple[int, int], LaneWatch], list[HeldLease]
]
"""Lanes, keys whose events wait on disk, what is known of dead workers' lanes, and leases that are busy."""


class Streams(Schemas):
    """What a store does for event streams."""

    def __init__(self, database: Database, leases: Leases, gate: Gate, borrowing: Borrowing) -> None:
        self._database = database
        self._leases = leases
        self._gate = gate
        self._borrowing = borrowing
        self.dead = DeadLetters(database, gate)
        self._awaiting = Awaiting(database, leases)
        self._known: set[str] = set()
        """Streams whose rows are there."""

    # -- appending -------------------------------------------------------------------------------

    def prepare(self, appends: Iterable[Append]) -> None:
        """Make the rows of streams that are new, in a transaction of their own: nobody waits for it."""
        self._make({append.stream for append in appends} - self._known)

    def send(self, link: Link, appends: Sequence[Append]) -> Appends:
        """Send appends, as part of a transaction; `prepare` came before."""
        return Appends(link, appends, self.set_clock)

    def set_clock(self) -> None:
        """Set the clock of the streams, if this is another life of the server than when it was last set."""
        set_stream_clock(self._database)

    def append_within(
        self, connection: Any, append: Append, *, register: Register | None = None
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        """See `StreamStore.append_within`."""
        link = self._database.writing_by(connection)
        if link is None:
            prepare = partial(self._prepare_fully, append, register)
            return self._borrowing.append_within(connection, append, prepare)
        self.prepare([append])
        (outcome,) = Appends(link, [append], self.set_clock).finish()
        link.has_appended = True
        return outcome

    # -- runs that wait for events ---------------------------------------------------------------

    gives_later = True

    def ask_within(self, connection: Any, wanted: Wanted, run_id: str) -> Found:
        """See `StreamStore.ask_within`."""
        link = self._database.writing_by(connection)
        assert link is not None, "only a step of a run waits for events"
        self._make({wanted.stream} - self._known)
        number = self._awaiting.prepare(stream_number(wanted.stream), wanted)
        self._awaiting.ask(link, number, wanted, run_id)
        return Found()

    def any_awaiting(self) -> bool:
        """See `StreamStore.any_awaiting`."""
        return self._awaiting.any

    def look_for_awaited(self) -> News | None:
        """See `StreamStore.look_for_awaited`."""
        return self._awaiting.look()

    def give_awaited(self, lease: Lease, news: News) -> Given:
        """See `StreamStore.give_awaited`."""
        return self._awaiting.give(lease, news)

    def _prepare_fully(self, append: Append, register: Register | None) -> None:
        if register is not None:
            register(None)
        self.prepare([append])
        self.set_clock()

    def _make(self, names: set[str]) -> None:
        if not names:
            return
        found = {stream_number(name): name for name in sorted(names)}
        self._database.rows("insert_streams", numbers(found), texts(found.values()))
        for number, name in self._database.rows("streams_of_numbers", numbers(found)):
            if found[number] != name:
                raise StoreError(
                    f"Streams {name!r} and {found[number]!r} cannot both be in store '{self._database.url}': "
                    "their names have the same hash. Nothing was written.",
                    hint="Give the new one another name.",
                )
            self._known.add(name)

    # -- reading ---------------------------------------------------------------------------------

    def events(self, stream: str, *, after: int, limit: int) -> EventPage:
        """See `StreamStore.events`."""
        horizon, rows, gone, last = self._database.read(
            lambda link: _look(link, stream_number(stream), after, limit)
        )
        if gone > after:
            return EventPage([], after, gone=gone, last=last)
        settled = [EventRow(*row) for row in rows if row[0] <= horizon]
        held_back = len(settled) < len(rows)
        return EventPage(settled, settled[-1].position if settled else after, held_back, gone, last)

    def dead_events(self, subscription: int, *, after: int, limit: int) -> list[DeadEvent]:
        """See `StreamStore.dead_events`."""
        return self.dead.events(subscription, DeadFilter(), after=after, limit=limit)

    def lanes(self, subscription: int) -> list[LaneRow]:
        """See `StreamStore.lanes`."""
        rows = self._database.rows("lanes_of", subscription)
        return [LaneRow(of, lane, cursor, tuple(done), ()) for of, lane, cursor, done in rows]

    def subscriptions(self) -> list[SubscriptionRow]:
        """See `StreamStore.subscriptions`."""
        return [SubscriptionRow._make(row) for row in self._database.rows("subscriptions")]

    def windows(self, subscription: int) -> list[LaneRows]:
        """See `StreamStore.windows`."""
        return read_windows(self._database, subscription)

    def open_windows(self, subscription: int) -> list[tuple[LaneTime, int]]:
        """See `StreamStore.open_windows`."""
        return read_open_windows(self._database, subscription)

    # -- subscriptions and their lanes -----------------------------------------------------------

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
        """See `StreamStore.subscribe`."""
        number, second = stream_number(stream), stream_number(other) if other else 0
        known = self._database.rows("subscription_of", number, name)
        if known and known[0][-1] == other:
            return SubscriptionRow._make(known[0])
        self._make({one for one in (stream, other) if one} - self._known)

        def work(link: Link) -> None:
            with link.transaction():
                asked = self._gate.ask(link)
            self._gate.check(asked)
            # Held, so that nothing is let go of before the subscription is there.
            link.rows("hold_stream", second)
            if known:
                link.rows("set_other_stream", known[0][0], second)
                return
            made = link.rows("insert_subscription", number, name, lanes, int(is_intake), second)
            if made:
                ((gone,),) = link.rows("hold_stream", number)
                cursor, done = (gone, {}) if from_start else _end_of(link, number, lanes)
                numbers_of = numbers(range(lanes))
                passed = texts(_array(done.get(lane, ())) for lane in range(lanes))
                link.rows("insert_lanes", made[0][0], cursor, numbers_of, passed)

        self._database.write(work)
        (row,) = self._database.rows("subscription_of", number, name)
        return SubscriptionRow._make(row)

    def claim_lanes(
        self, lease: Lease, subscriptions: Sequence[int], *, now_ms: int, whole: Sequence[int] = ()
    ) -> list[LaneRow]:
        """See `StreamStore.claim_lanes`."""
        wanted, believed = numbers(subscriptions), self._leases.believed(now_ms)
        asked = wanted, lease.number, self._leases.presence, believed
        ((is_free, is_new, is_one_dead),) = self._database.rows("lanes_to_claim", *asked)
        held = self._leases.held(now_ms=now_ms) if is_one_dead else ()
        dead = [row for row in held if row.is_dead and row.number != lease.number]
        if not (is_free or is_new or dead):
            return []

        def work(link: Link) -> _Claimed:
            with link.transaction(self._leases.fence(lease)):
                pass
            busy = self._leases.end(link, dead)
            with link.sending():
                link.run("remove_serving", wanted)
                link.run("serve", wanted, lease.number)
                taken = link.run("claim_lanes", wanted, lease.number, numbers(whole))
            claimed = taken.fetchall()
            parked = link.rows("dead_keys", numbers({row[0] for row in claimed})) if claimed else []
            stands = [(*row[:2], *row[4:6]) for row in claimed]
            return claimed, parked, count_crashes(link, stands, lease=lease.number), busy

        rows, keys, watches, busy = self._database.write(
            work, tell=lambda done: is_new or len(done[3]) < len(dead)
        )
        self._leases.break_off(busy)
        parked: dict[tuple[int, int], list[str]] = {}
        for number, lane, key in keys:
            parked.setdefault((number, lane), []).append(key)
        return [
            LaneRow(
                number, lane, cursor, tuple(done), tuple(parked.get((number, lane), ())),
                watches.get((number, lane)), generation, read_history(history),
            )
            for number, lane, cursor, done, _, _, generation, history in sorted(rows, key=lambda row: row[:2])
        ]  # fmt: skip

    def shares(
        self, lease: Lease, subscriptions: Sequence[int], *, whole: Sequence[int] = ()
    ) -> dict[int, int]:
        """See `StreamStore.shares`."""
        rows = self._database.rows("shares", numbers(subscriptions), lease.number, numbers(whole))
        return {number: share for number, _, share in rows}


def write_lanes(link: Link, marks: Sequence[LaneMark], *, lease: int) -> None:
    """Send how far lanes are. One that is another's now, or was sent elsewhere, is left alone."""
    last = {(mark.subscription, mark.lane, mark.generation): mark for mark in marks}
    cursors, done, subscriptions, lanes, generations, histories, given_up = zip(*last.values(), strict=True)
    link.run(
        "mark_lanes", numbers(cursors), texts(map(_array, done)), numbers(subscriptions), numbers(lanes),
        numbers(generations), texts(map(write_history, histories)), numbers(given_up), lease,
    )  # fmt: skip


def _look(link: Link, stream: int, after: int, limit: int) -> tuple[int, list[tuple[Any, ...]], int, int]:
    with link.sending():
        # The horizon first: it must not be newer than what is found.
        asked = link.run("stream_horizon")
        found = link.run("events_after", stream, after, limit)
        ends = link.run("stream_ends", stream)
    ((horizon,),) = asked.fetchall()
    ((gone, last),) = ends.fetchall()
    return horizon, found.fetchall(), gone, last


def _end_of(link: Link, stream: int, lanes: int) -> tuple[int, dict[int, list[int]]]:
    """Where a subscription begins that is to have none of the events that are there.

    The cursor, which none can come below; and by lane the few above it.
    """
    ((horizon,),) = link.rows("stream_horizon")
    ((last,),) = link.rows("last_event", stream, horizon)
    passed: dict[int, list[int]] = {}
    for position, key in link.rows("unsettled_events", stream, horizon):
        passed.setdefault(lane_of_key(key, position, lanes), []).extend((position, position))
    return last or 0, passed


def _array(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"
