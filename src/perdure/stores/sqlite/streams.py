"""Event streams in the file: append, subscribe, read along, and keep how far each lane is.

Law: the place of an event in its stream is given in the transaction that writes
it, and one transaction writes at a time, so that who has read up to a place has
missed nothing below it. Two events of one stream, source and id are one event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import apsw

from ...core.events import (
    Append,
    Clash,
    DeadEvent,
    DeadFilter,
    EventPage,
    EventRow,
    LaneMark,
    LaneRow,
    NewEvent,
    Placed,
    SubscriptionRow,
)
from ..base import Lease
from ..correlation import Found, Given, Wanted
from ..moves import refuse_closed
from ..standing import read_history, write_history
from ..streams import Register, share_of
from . import blobs
from .awaiting import Correlation, ask_for, correlations_of, tell_waiting
from .borrowing import within
from .checksums import checksum
from .connection import Database
from .dead import DeadLetters, count_crashes, read_watch
from .lease import Leases
from .marks import read_mark
from .places import PLACES, read_event, read_or_name
from .schemas import Schemas
from .statements import SQL

if TYPE_CHECKING:
    from ...core.event_time import LaneTime
    from ...core.windows import LaneRows

_STREAM = SQL["stream_of"]
_INSERT_STREAM = SQL["insert_stream"]
_EXTEND = SQL["extend_stream"]
_INSERT_EVENT = SQL["insert_event"]
_OF_IDENTITIES = SQL["events_of_identities"]
_AFTER = SQL["events_after"]
_ANY_AWAITING = SQL["any_awaiting"]
_EVENT_AT = SQL["event_at"]
_SUBSCRIPTION = SQL["subscription_of"]
_SUBSCRIPTIONS = SQL["subscriptions"]
_INSERT_SUBSCRIPTION = SQL["insert_subscription"]
_SET_OTHER = SQL["set_other_stream"]
_INSERT_LANE = SQL["insert_lane"]
_ANY_FREE = SQL["any_free_lane"]
_CLAIM_LANES = SQL["claim_lanes"]
_SERVE = SQL["serve"]
_SERVING = SQL["serving"]
_REMOVE_SERVING = SQL["remove_serving"]
_LANES_HELD = SQL["lanes_held"]
_DEAD_KEYS = SQL["dead_keys"]
_LANES = SQL["lanes"]
_MARK = SQL["mark_lane"]
_STAND = SQL["lane_stand"]


class Streams(Schemas):
    """What a store does for event streams, but for what a batch writes."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases
        self.dead = DeadLetters(database)

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
        """See `Store.subscribe`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            second = _number_of(connection, other)[0] if other else 0
            known: Any = connection.execute(_SUBSCRIPTION, (stream, name)).fetchone()
            if known is not None:
                row = SubscriptionRow._make(known)
                if row.other != other:
                    connection.execute(_SET_OTHER, (row.number, second))
                return row._replace(other=other)
            number, last, gone = _number_of(connection, stream)
            asked = (number, name, lanes, is_intake, second)
            made: Any = connection.execute(_INSERT_SUBSCRIPTION, asked).get
            cursor = gone if from_start else last
            connection.executemany(_INSERT_LANE, [(made, lane, cursor) for lane in range(lanes)])
        return SubscriptionRow(made, stream, name, lanes, is_intake, other)

    def subscriptions(self) -> list[SubscriptionRow]:
        """See `StreamStore.subscriptions`."""
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(_SUBSCRIPTIONS).fetchall()
        return [SubscriptionRow._make(row) for row in rows]

    def claim_lanes(
        self, lease: Lease, subscriptions: Sequence[int], *, now_ms: int, whole: Sequence[int] = ()
    ) -> list[LaneRow]:
        """See `StreamStore.claim_lanes`."""
        wanted = json.dumps(list(subscriptions))
        if not self._leases.dead(self._leases.held(), lease, now_ms=now_ms):
            with self._database.snapshot() as connection:
                if connection.execute(_ANY_FREE, (wanted, lease.number)).get is None:
                    return []
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            self._leases.end_dead(connection, lease, now_ms=now_ms)
            connection.execute(_REMOVE_SERVING)
            connection.executemany(_SERVE, [(number, lease.number) for number in subscriptions])
            rows: list[Any] = []
            for number in subscriptions:
                share, own = _share(connection, lease, number, is_whole=number in whole)
                more = max(0, share - own)
                count_crashes(connection, number, more)
                rows += connection.execute(_CLAIM_LANES, (number, more, lease.number)).fetchall()
            parked = {number: _parked_keys(connection, number) for number in {row[0] for row in rows}}
        return [
            LaneRow(
                number, lane, cursor, tuple(json.loads(done)), tuple(parked[number].get(lane, ())),
                read_watch(watch), generation, read_history(history),
            )
            for number, lane, cursor, done, watch, generation, history in rows
        ]  # fmt: skip

    def shares(
        self, lease: Lease, subscriptions: Sequence[int], *, whole: Sequence[int] = ()
    ) -> dict[int, int]:
        """See `StreamStore.shares`."""
        with self._database.snapshot() as connection:
            return {
                number: _share(connection, lease, number, is_whole=number in whole)[0]
                for number in subscriptions
            }

    def lanes(self, subscription: int) -> list[LaneRow]:
        """See `StreamStore.lanes`."""
        rows: Any = self._database.query(_LANES, (subscription,))
        return [LaneRow(of, lane, cursor, tuple(json.loads(done)), ()) for of, lane, cursor, done in rows]

    def append_within(
        self, connection: Any, append: Append, *, register: Register | None = None
    ) -> list[Placed] | Clash:
        """See `StreamStore.append_within`."""
        path = None if self._database.writes_by(connection) else self._database.path
        with within(connection, path=path, url=self._database.url):
            if register is not None:
                register(connection)
            return append_events(connection, [append], url=self._database.url)[0]

    def ask_within(self, connection: Any, wanted: Wanted, run_id: str) -> Found:
        """See `StreamStore.ask_within`."""
        path = None if self._database.writes_by(connection) else self._database.path
        with within(connection, path=path, url=self._database.url):
            number, last, _ = _number_of(connection, wanted.stream)
            asked = _Asked(connection, number, last, url=self._database.url)
            return ask_for(connection, wanted, run_id, asked)

    gives_later = False

    def any_awaiting(self) -> bool:
        """See `StreamStore.any_awaiting`."""
        return bool(self._database.query(_ANY_AWAITING))

    def look_for_awaited(self) -> None:
        """See `StreamStore.look_for_awaited`."""

    def give_awaited(self, lease: Lease, news: Any) -> Given:
        """See `StreamStore.give_awaited`."""
        raise AssertionError("an append gives its events itself")

    def events(self, stream: str, *, after: int, limit: int) -> EventPage:
        """See `Store.events`."""
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_STREAM, (stream,)).fetchone()
            if found is None:
                return EventPage([], after)
            number, last, gone = found
            if after < gone:
                return EventPage([], after, gone=gone, last=last)
            asked = _Asked(connection, number, last, url=self._database.url)
            events = asked.events(after=after, limit=limit)
        return EventPage(events, events[-1].position if events else after, gone=gone, last=last)

    def dead_events(self, subscription: int, *, after: int, limit: int) -> list[DeadEvent]:
        """See `Store.dead_events`."""
        return self.dead.events(subscription, DeadFilter(), after=after, limit=limit)

    def windows(self, subscription: int) -> list[LaneRows]:
        """See `StreamStore.windows`."""
        from . import windows

        with self._database.snapshot() as connection:
            return windows.read_windows(connection, subscription, url=self._database.url)

    def open_windows(self, subscription: int) -> list[tuple[LaneTime, int]]:
        """See `StreamStore.open_windows`."""
        from . import windows

        with self._database.snapshot() as connection:
            return windows.read_open_windows(connection, subscription, url=self._database.url)


class _Asked:
    """A stream, read on a connection."""

    def __init__(self, connection: apsw.Connection, number: int, last: int, *, url: str) -> None:
        self._connection = connection
        self._url = url
        self.stream = number
        self.base = number * PLACES
        self._end = self.base + last + 1

    def events(self, *, after: int, limit: int) -> list[EventRow]:
        """Those above a place, in order; one that is damaged is named."""
        connection, base = self._connection, self.base
        rows: Any = connection.execute(_AFTER, (base + after, self._end, limit)).fetchall()
        return [read_or_name(connection, row, base, url=self._url) for row in rows]

    def event_at(self, pos: int) -> EventRow | None:
        """The event; None if it is not there any more, or damaged."""
        row: Any = self._connection.execute(_EVENT_AT, (pos,)).fetchone()
        event = None if row is None else read_or_name(self._connection, row, self.base, url=self._url)
        return None if event is None or event.damage else event


def append_events(
    connection: apsw.Connection, appends: Sequence[Append], *, url: str
) -> list[list[Placed] | Clash]:
    """Append each whole, or say which of its events clashes; in order."""
    known: dict[int, list[Correlation]] = {}
    return [_append(connection, append, known, url=url) for append in appends]


def write_lanes(
    connection: apsw.Connection, marks: Sequence[LaneMark], *, lease: int
) -> set[tuple[int, int]]:
    """Keep how far lanes are. One that is another's now, or was sent elsewhere, is left alone.

    Gives those that were: (subscription, lane).
    """
    rows = [
        (
            mark.cursor, json.dumps(mark.done), mark.subscription, mark.lane, mark.generation,
            write_history(mark.history), mark.is_given_up, lease,
        )
        for mark in marks
    ]  # fmt: skip
    kept: Any = connection.executemany(_MARK, rows)
    return {(mark.subscription, mark.lane) for mark in marks}.difference(kept)


def lane_stand(connection: apsw.Connection, subscription: int, lane: int, *, lease: int) -> LaneMark | None:
    """How far a lane is on disk; None for one that is another's now."""
    found: Any = connection.execute(_STAND, (subscription, lane, lease)).fetchone()
    if found is None:
        return None
    cursor, done, generation, history = found
    return LaneMark(cursor, tuple(json.loads(done)), subscription, lane, generation, read_history(history))


def _append(
    connection: apsw.Connection, append: Append, known: dict[int, list[Correlation]], *, url: str
) -> list[Placed] | Clash:
    """`known`: by what runs wait for events, by stream, as far as it was looked up."""
    number, last, _ = _number_of(connection, append.stream)
    base = number * PLACES
    resent = {
        (event.source, event.id): identity(append.stream, event.source, event.id)
        for event in append.events
        if event.is_resent
    }
    stored = _stored(connection, resent, base, last, url=url) if resent else {}
    twins: dict[tuple[str, str], tuple[int, _Content]] = dict(stored)
    outcomes: list[Placed] = []
    fresh: list[NewEvent] = []
    for place, event in enumerate(append.events):
        name = (event.source, event.id)
        twin = twins.get(name) if event.is_resent else None
        if twin is not None:
            if twin[1] != _content(event):
                return Clash(place, twin[0])  # before anything was written
            outcomes.append(Placed(twin[0], True))
            continue
        last += 1
        if event.is_resent:
            twins[name] = (last, _content(event))
        outcomes.append(Placed(last, False))
        fresh.append(event)
    rows: list[tuple[Any, ...]] = []
    for at, event in enumerate(fresh, base + last - len(fresh) + 1):
        held = blobs.put(connection, event.payload)
        columns = (at, *event[:8], held, resent.get((event.source, event.id)))
        rows.append((*columns, checksum(columns)))
    connection.executemany(_INSERT_EVENT, rows)
    connection.execute(_EXTEND, (number, last, sum(len(event.payload) for event in fresh)))
    if number not in known:
        known[number] = correlations_of(connection, number)
    if known[number]:
        placed = list(enumerate(fresh, base + last - len(fresh) + 1))
        tell_waiting(connection, known[number], placed, base=base)
    return outcomes


_Content: TypeAlias = tuple[str, int, str, bytes]
"""What makes two events of one name the same: type, version, key, payload."""


def _content(event: NewEvent | EventRow) -> _Content:
    return event.type, event.version, event.key, event.payload


def _stored(
    connection: apsw.Connection, resent: dict[tuple[str, str], int], base: int, last: int, *, url: str
) -> dict[tuple[str, str], tuple[int, _Content]]:
    """Those of these names that are in the stream: their places, and what they hold."""
    rows: Any = connection.execute(_OF_IDENTITIES, (json.dumps(list(resent.values())),)).fetchall()
    found: dict[tuple[str, str], tuple[int, _Content]] = {}
    for row in rows:
        event = read_event(connection, row, base, url=url)
        if 0 < event.position <= last and (event.source, event.id) in resent:
            found[event.source, event.id] = (event.position, _content(event))
    return found


def _number_of(connection: apsw.Connection, stream: str) -> tuple[int, int, int]:
    """The number of a stream, the last place in it and the last that is gone; makes it if there is none."""
    found: Any = connection.execute(_STREAM, (stream,)).fetchone()
    if found is not None:
        return found
    number: Any = connection.execute(_INSERT_STREAM, (stream,)).get
    return number, 0, 0


def identity(stream: str, source: str, event_id: str) -> int:
    """A hash of what names an event."""
    name = json.dumps((stream, source, event_id)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)


def _share(
    connection: apsw.Connection, lease: Lease, subscription: int, *, is_whole: bool
) -> tuple[int, int]:
    """How many lanes are the lease's share, and how many it has."""
    found: Any = connection.execute(_LANES_HELD, (subscription, lease.number)).fetchone()
    lanes, own = found or (0, 0)
    rows: Any = connection.execute(_SERVING, (subscription,)).fetchall()
    return share_of(lanes, [number for (number,) in rows], lease.number, is_whole=is_whole), own


def _parked_keys(connection: apsw.Connection, subscription: int) -> dict[int, list[str]]:
    """By lane."""
    rows: Any = connection.execute(_DEAD_KEYS, (subscription,)).fetchall()
    keys: dict[int, list[str]] = {}
    for lane, key in rows:
        keys.setdefault(lane, []).append(key)
    return keys
