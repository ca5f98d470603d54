"""How far subscriptions are, sending them elsewhere, and letting events go, in the database.

Laws: what a stream lets go is what it kept longest, in one piece, so that `gone` says it all; but for
events that are parked, which stay for as long as they are parked. Who lets go has the stream's row alone,
and who makes a subscription, or sends it back, shares it: nobody comes to stand where events are removed.
"""

from __future__ import annotations

from typing import Any

from ...core.events import SubscriptionRow
from ...core.standing import Head, Holdup, KeepRule, Move, SeekRow, StreamSpan, SubscriptionStand
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
from .appending import identity_of, stream_number
from .arrays import numbers, texts
from .link import Link
from .streams import Streams

_COUNTED_AT_ONCE = 100_000
"""Of so many events the sizes are added up in one go."""
_LATEST = 10_000
"""So many are looked at to say how many are appended in a minute."""


class LaggingStreams(Streams):
    """The streams of a database, with what there is to see and to do about subscriptions that lag behind."""

    def stand(self, subscription: int, *, since_ms: int) -> SubscriptionStand | None:
        """See `StreamStore.stand`."""
        return self._database.read(lambda link: _stand(link, subscription, since_ms))

    def span(self, stream: str, *, since_ms: int) -> StreamSpan:
        """See `StreamStore.span`."""
        return self._database.read(lambda link: _span(link, stream_number(stream), since_ms))

    def find(self, stream: str, *, source: str, id: str) -> int | None:
        """See `StreamStore.find`."""
        rows = self._database.rows("find_event", identity_of(stream, source, id), stream_number(stream))
        return rows[0][0] if rows else None

    def weigh(self, subscription: int, position: int) -> Move | None:
        """See `StreamStore.weigh`."""

        def look(link: Link) -> Move | None:
            found = link.rows("stand_of", subscription)
            if not found:
                return None
            stream, gone = found[0][6:8]
            ((parked, _),) = link.rows("dead_since", subscription, position)
            return weigh_move(_lanes_of(link, subscription), position, gone, parked, _look_at(link, stream))

        return self._database.read(look)

    def seek(self, subscription: int, position: int, *, now_ms: int, who: str, reason: str) -> int | None:
        """See `StreamStore.seek`."""

        def work(link: Link) -> int | None:
            self._pass_gate(link)
            found = link.rows("stand_of", subscription)
            if not found:
                return None
            stream: int = found[0][6]
            ((gone,),) = link.rows("hold_stream", stream)
            if position < gone:
                return gone
            ((_, last),) = link.rows("stream_ends", stream)
            lanes = _lanes_of(link, subscription, "hold_lanes")
            pasts = [write_history(remember_seek(lane, position, last=last, now_ms=now_ms)) for lane in lanes]
            link.rows(
                "send_lanes", subscription, position, numbers(lane.lane for lane in lanes), texts(pasts)
            )
            # After the lanes: a worker that was about to park more has done it, or is refused.
            link.rows("unpark_after", subscription, position)
            if 0 < found[0][9] < found[0][8]:
                link.rows("begin_other_anew", subscription)
            link.rows("bump_edition", subscription)
            link.rows("insert_seek", subscription, position, now_ms, who, reason)
            return gone

        return self._database.write(work, tell=lambda gone: gone is not None)

    def holdup(self) -> Holdup | None:
        """See `StreamStore.holdup`. Sessions of other roles are seen by who may read all statistics."""
        rows = self._database.rows("oldest_writer")
        return Holdup._make(rows[0]) if rows else None

    def seeks(self, subscription: int, *, limit: int) -> list[SeekRow]:
        """See `StreamStore.seeks`."""
        return [SeekRow._make(row) for row in self._database.rows("seeks_of", subscription, limit)]

    def unsubscribe(self, subscription: int) -> str:
        """See `StreamStore.unsubscribe`."""

        def work(link: Link) -> str:
            self._pass_gate(link)
            _lanes_of(link, subscription, "hold_lanes")  # or one could be claimed meanwhile
            served = link.rows("served_by", subscription)
            if served:
                return served[0][0]
            link.rows("remove_subscription", subscription)
            return ""

        return self._database.write(work)

    def let_go(self, rule: KeepRule, *, now_ms: int, limit: int) -> int:
        """See `StreamStore.let_go`."""
        number = stream_number(rule.stream)
        found = self._database.rows("kept_by", number)
        if not found:
            return 0
        size, first_at_ms, is_uncounted, is_unparked = found[0]
        counts = rule.bytes_max is not None
        if not (
            is_unparked
            or (counts and is_uncounted)
            or (first_at_ms is not None and _is_over(rule, now_ms, first_at_ms, size))
        ):
            return 0

        def work(link: Link) -> int:
            self._pass_gate(link)
            return _let_go(link, number, rule, now_ms=now_ms, limit=limit)

        return self._database.write(work)

    def _pass_gate(self, link: Link) -> None:
        with link.transaction():
            asked = self._gate.ask(link)
        self._gate.check(asked)


def _let_go(link: Link, number: int, rule: KeepRule, *, now_ms: int, limit: int) -> int:
    ((gone, size, counted_to),) = link.rows("hold_stream_alone", number)
    ((least,),) = link.rows("least_cursor", number)
    ((settled,),) = link.rows("stream_horizon")
    if rule.bytes_max is not None:
        for position, _, of_it in link.rows("sizes_between", number, counted_to, settled, _COUNTED_AT_ONCE):
            counted_to, size = position, size + of_it
    floor = settled if least is None or not rule.waits else min(least, settled)
    upto, count = gone, 0
    for position, at_ms, of_it in link.rows("sizes_between", number, gone, floor, limit):
        if not _is_over(rule, now_ms, at_ms, size):
            break
        upto, count = position, count + 1
        if position <= counted_to:
            size -= of_it
    if upto > gone:
        link.rows("remove_events", number, gone, upto)
    if count < limit:
        link.rows("remove_unparked", number, upto)
    link.rows("let_go", number, upto, size, max(counted_to, upto))
    return count


def _is_over(rule: KeepRule, now_ms: int, at_ms: int, size: int) -> bool:
    is_old = rule.ms is not None and at_ms < now_ms - rule.ms
    return is_old or (rule.bytes_max is not None and size > rule.bytes_max)


def _stand(link: Link, subscription: int, since_ms: int) -> SubscriptionStand | None:
    found = link.rows("stand_of", subscription)
    if not found:
        return None
    row, (stream, gone, other_gone, other_cursor, other) = SubscriptionRow._make(found[0][:6]), found[0][6:]
    lanes, is_exact = stand_lanes(_lanes_of(link, subscription), gone, _look_at(link, stream))
    ((parked, parked_at_ms),) = link.rows("dead_since", subscription, 0)
    appended = _appended(link, stream, since_ms)
    if row.other:
        cursors = [cursor for (cursor,) in link.rows("lanes_in_other", subscription)]
        lanes, is_other_exact = stand_joined(lanes, cursors, other_gone, _look_at(link, other))
        is_exact = is_exact and is_other_exact
        appended += _appended(link, other, since_ms)
    return SubscriptionStand(
        row, gone, lanes, is_exact, parked, parked_at_ms, appended, other_gone, other_cursor
    )


def _appended(link: Link, stream: int, since_ms: int) -> int:
    """About how many events were appended since."""
    times: list[int] = [at_ms for (at_ms,) in link.rows("latest_appends", stream, _LATEST)]
    appended = sum(at_ms >= since_ms for at_ms in times)
    if appended < _LATEST:
        return appended
    span_ms = max(1, times[0] - times[-1])  # there were more: they came evenly, we take it
    return round(appended * max(1.0, (times[0] - since_ms) / span_ms))


def _span(link: Link, stream: int, since_ms: int) -> StreamSpan:
    ((horizon,),) = link.rows("stream_horizon")
    gone: int = link.rows("stream_ends", stream)[0][0]
    look = _look_at(link, stream)
    ((last,),) = link.rows("last_event", stream, horizon)
    last = max(gone, last or 0)
    first = look.next_head(gone)
    earliest = gone if first is None else first.position - 1
    since = position_before(since_ms, gone=gone, last=last, look=look)
    return StreamSpan(gone, min(earliest, last), max(since, min(earliest, last)), last)


def _lanes_of(link: Link, subscription: int, statement: str = "lanes_that_stand") -> list[KeptLane]:
    return [
        KeptLane(lane, cursor, tuple(done), read_history(history), worker)
        for lane, cursor, done, history, worker in link.rows(statement, subscription)
    ]


def _look_at(link: Link, stream: int) -> StreamLook:
    def heads(after: int, until: int, limit: int) -> list[Head]:
        return [Head._make(row) for row in link.rows("heads_between", stream, after, until, limit)]

    def heads_before(until: int, limit: int) -> list[Head]:
        return [Head._make(row) for row in reversed(link.rows("heads_before", stream, until, limit))]

    def count_after(position: int) -> int:
        ((plan,),) = link.rows("guess_events_after", stream, position)
        found: Any = plan
        return int(found[0]["Plan"]["Plan Rows"])

    return StreamLook(heads, heads_before, count_after)
