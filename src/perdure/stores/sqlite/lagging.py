"""How far subscriptions are, sending them elsewhere, and letting events go, in the file.

Law: what a stream lets go is what it kept longest, in one piece, so that `gone` says
it all; but for events that are parked, which stay for as long as they are parked.
"""

from __future__ import annotations

import json
from typing import Any, Final

import apsw

from ...core.events import SubscriptionRow
from ...core.standing import Head, Holdup, KeepRule, Move, SeekRow, StreamSpan, SubscriptionStand
from ..moves import refuse_closed
from ..standing import (
    KeptLane,
    StreamLook,
    position_before,
    read_history,
    remember_seek,
    stand_joined,
    stand_lanes,
    weigh_move,
    write_history,
)
from .connection import Database
from .marks import read_mark
from .statements import SQL
from .streams import Streams, identity
from .windows import begin_other_anew

_STAND = SQL["stand_of"]
_LANES = SQL["lanes_that_stand"]
_IN_OTHER = SQL["lanes_in_other"]
_HEADS = SQL["heads_between"]
_HEADS_BEFORE = SQL["heads_before"]
_DEAD_SINCE = SQL["dead_since"]
_BASE = SQL["base_of"]
_COUNT = SQL["count_events"]
_SEND_LANE = SQL["send_lane"]
_FIND = SQL["place_of_identity"]
_UNPARK: Final = SQL["unpark_after"], SQL["forget_notes_after"]
_BUMP = SQL["bump_edition"]
_INSERT_SEEK = SQL["insert_seek"]
_SEEKS = SQL["seeks_of"]
_SERVED_BY = SQL["served_by"]
_KEPT = SQL["kept_by"]
_SIZES = SQL["sizes_between"]
_REMOVE_EVENTS = SQL["remove_events"]
_REMOVE_UNPARKED = SQL["remove_unparked"]
_LET_GO = SQL["let_go"]
_REMOVALS: Final = tuple(
    SQL[name]
    for name in (
        "remove_dead",
        "remove_notes",
        "remove_windows_of",
        "remove_lane_times",
        "remove_lanes",
        "remove_seeks",
        "remove_subscription",
    )
)


class LaggingStreams(Streams):
    """The streams of a file, with what there is to see and to do about subscriptions that lag behind."""

    _database: Database

    def stand(self, subscription: int, *, since_ms: int) -> SubscriptionStand | None:
        """See `StreamStore.stand`."""
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_STAND, (subscription,)).fetchone()
            if found is None:
                return None
            row = SubscriptionRow._make(found[:6])
            base, gone, last, other_gone, other_cursor, sparse_to, *of_other = found[6:]
            look = _look(connection, base, last, sparse_to)
            lanes, is_exact = stand_lanes(_lanes_of(connection, subscription), gone, look)
            parked: Any = connection.execute(_DEAD_SINCE, (subscription, 0)).fetchone()
            appended = look.count_after(position_before(since_ms, gone=gone, last=last, look=look))
            if row.other:
                _, other_last, _ = of_other
                look = _look(connection, *of_other)
                cursors: Any = connection.execute(_IN_OTHER, (subscription,)).fetchall()
                lanes, is_other_exact = stand_joined(lanes, [at for (at,) in cursors], other_gone, look)
                is_exact = is_exact and is_other_exact
                before = position_before(since_ms, gone=other_gone, last=other_last, look=look)
                appended += look.count_after(before)
        return SubscriptionStand(
            row, gone, lanes, is_exact, parked[0], parked[1], appended, other_gone, other_cursor
        )

    def span(self, stream: str, *, since_ms: int) -> StreamSpan:
        """See `StreamStore.span`."""
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_BASE, (stream,)).fetchone()
            if found is None:
                return StreamSpan(0, 0, 0, 0)
            base, gone, last, sparse_to = found
            look = _look(connection, base, last, sparse_to)
            since = position_before(since_ms, gone=gone, last=last, look=look)
        return StreamSpan(gone, gone, since, last)

    def find(self, stream: str, *, source: str, id: str) -> int | None:
        """See `StreamStore.find`."""
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_BASE, (stream,)).fetchone()
            if found is None:
                return None
            base, gone, last, _ = found
            place: Any = connection.execute(_FIND, (identity(stream, source, id), base, id, source, last)).get
        return place if place is not None and place > gone else None

    def weigh(self, subscription: int, position: int) -> Move | None:
        """See `StreamStore.weigh`."""
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_STAND, (subscription,)).fetchone()
            if found is None:
                return None
            base, gone, last, _, _, sparse_to, *_ = found[6:]
            lanes = _lanes_of(connection, subscription)
            parked: Any = connection.execute(_DEAD_SINCE, (subscription, position)).fetchone()
            return weigh_move(lanes, position, gone, parked[0], _look(connection, base, last, sparse_to))

    def seek(self, subscription: int, position: int, *, now_ms: int, who: str, reason: str) -> int | None:
        """See `StreamStore.seek`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            found: Any = connection.execute(_STAND, (subscription,)).fetchone()
            if found is None:
                return None
            gone: int = found[7]
            if position >= gone:
                last: int = found[8]
                for lane in _lanes_of(connection, subscription):
                    history = remember_seek(lane, position, last=last, now_ms=now_ms)
                    sent = (subscription, lane.lane, position, write_history(history))
                    connection.execute(_SEND_LANE, sent)
                for sql in _UNPARK:
                    connection.execute(sql, (subscription, position))
                if 0 < found[10] < found[9]:
                    begin_other_anew(connection, subscription, url=self._database.url)
                connection.execute(_BUMP, (subscription,))
                connection.execute(_INSERT_SEEK, (subscription, position, now_ms, who, reason))
        return gone

    def holdup(self) -> Holdup | None:
        """See `StreamStore.holdup`: who writes has the file alone."""
        return None

    def seeks(self, subscription: int, *, limit: int) -> list[SeekRow]:
        """See `StreamStore.seeks`."""
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(_SEEKS, (subscription, limit)).fetchall()
        return [SeekRow._make(row) for row in rows]

    def unsubscribe(self, subscription: int) -> str:
        """See `StreamStore.unsubscribe`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            served: Any = connection.execute(_SERVED_BY, (subscription,)).get
            if served is not None:
                return served
            for sql in _REMOVALS:
                connection.execute(sql, (subscription,))
        return ""

    def let_go(self, rule: KeepRule, *, now_ms: int, limit: int) -> int:
        """See `StreamStore.let_go`."""
        with self._database.snapshot() as connection:
            if not self._is_anything_over(connection, rule, now_ms):
                return 0
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            found: Any = connection.execute(_KEPT, (rule.stream,)).fetchone()
            base, gone, last, size, least = found
            floor = least if rule.waits else last
            upto, count = gone, 0
            rows: Any = connection.execute(_SIZES, (base, gone, floor, limit)).fetchall()
            for place, at_ms, bytes_of_it in rows:
                if not _is_over(rule, now_ms, at_ms, size):
                    break
                upto, size, count = place, size - bytes_of_it, count + 1
            if upto > gone:
                connection.execute(_REMOVE_EVENTS, (base, gone, upto))
                connection.execute(_LET_GO, (base, upto, size))
            if count < limit:
                connection.execute(_REMOVE_UNPARKED, (base, upto, limit))
        return count

    def _is_anything_over(self, connection: apsw.Connection, rule: KeepRule, now_ms: int) -> bool:
        """Whether a write would do something: most looks find nothing."""
        found: Any = connection.execute(_KEPT, (rule.stream,)).fetchone()
        if found is None:
            return False
        base, gone, last, size, _ = found
        first: Any = connection.execute(_SIZES, (base, 0, last, 1)).fetchone()
        # One that stands at `gone` or below was parked, and may not be any more.
        return first is not None and (first[0] <= gone or _is_over(rule, now_ms, first[1], size))


def _is_over(rule: KeepRule, now_ms: int, at_ms: int, size: int) -> bool:
    is_old = rule.ms is not None and at_ms < now_ms - rule.ms
    return is_old or (rule.bytes_max is not None and size > rule.bytes_max)


def _lanes_of(connection: apsw.Connection, subscription: int) -> list[KeptLane]:
    rows: Any = connection.execute(_LANES, (subscription,)).fetchall()
    return [
        KeptLane(lane, cursor, tuple(json.loads(done)), read_history(history), worker)
        for lane, cursor, done, history, worker in rows
    ]


def _look(connection: apsw.Connection, base: int, last: int, sparse_to: int) -> StreamLook:
    def heads(after: int, until: int, limit: int) -> list[Head]:
        rows: Any = connection.execute(_HEADS, (base, after, min(until, last), limit)).fetchall()
        return [Head._make(row) for row in rows]

    def heads_before(until: int, limit: int) -> list[Head]:
        rows: Any = connection.execute(_HEADS_BEFORE, (base, until, limit)).fetchall()
        return [Head._make(row) for row in reversed(rows)]

    def count_after(place: int) -> int:
        if place >= sparse_to:
            return last - place
        counted: Any = connection.execute(_COUNT, (base + place, base + sparse_to)).get
        return counted + last - sparse_to

    return StreamLook(heads, heads_before, count_after)
