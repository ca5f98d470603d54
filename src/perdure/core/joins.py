"""Events of two streams that happened within a time of each other, lane by lane. Pure.

An event of one stream waits until the watermark of the other says that no event
can come any more that it could be paired with. What it is paired with is told at once, and that it was
paired with none when it waits no longer.

The law: which pairs are told is a function of the two streams, each in its order; how they are
read past each other changes nothing but the order of the pairs. So an event that is
late is so by its own stream; and when one has waited in vain for a stream that has none yet follows from
when it was appended, and when the first one of the other was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from .event_time import LATE, EventClock, LaneTime, TimeRules
from .windows import Missed, WindowRow


@dataclass(frozen=True, slots=True)
class JoinRules(TimeRules):
    """Which events are paired, and how long is waited for them."""

    within_ms: int
    """How far apart two events of a pair may have happened."""
    unmatched: tuple[bool, bool]
    """Of each side: whether an event that is paired with none is told of."""


class Pair(NamedTuple):
    """A result: two events of a key, or one that was paired with none."""

    key: str
    left: WindowRow | None
    right: WindowRow | None


class LaneJoin:
    """The events of one lane that wait for the other side. Sides are 0 and 1.

    Rows without a key keep when the first event of a side was appended: no event has none.
    """

    def __init__(self, rules: JoinRules, times: Sequence[LaneTime], rows: Iterable[WindowRow]) -> None:
        self._rules = rules
        self._clocks = [EventClock(rules, time) for time in times]
        self._first_at_ms: list[int | None] = [None, None]
        """By side: when its first event was appended. Till then its time stands still."""
        self._waiting: tuple[dict[str, dict[int, WindowRow]], ...] = ({}, {})
        """By side, key and place."""
        self._moments: tuple[list[tuple[int, int, str]], ...] = ([], [])
        """By side: (end, place, key) of what waits."""
        self._in_vain: tuple[list[tuple[int, int, str]], ...] = ([], [])
        """By side: (until when, place, key) of what waits for a first event of the other side."""
        self._changed: dict[tuple[str, int, int], WindowRow | None] = {}
        self._told: list[Pair] = []
        for row in sorted(rows, key=lambda one: one.key):  # what is kept of first events comes first
            if row.key:
                self._hold(row)
            else:
                self._first_at_ms[row.place] = row.start_ms

    @property
    def times(self) -> list[LaneTime]:
        """How far event time is, on each side."""
        return [clock.time for clock in self._clocks]

    def add(
        self, side: int, position: int, key: str, time_ms: int | None, at_ms: int, state: bytes
    ) -> Missed | None:
        """Pair an event with what waits on the other side. Those of a side come in their order, each once."""
        clock, within_ms = self._clocks[side], self._rules.within_ms
        if clock.pass_time(at_ms):
            self._release(1 - side)
        wrong = clock.refuse(key, time_ms, at_ms)
        if wrong:
            return Missed(wrong)
        assert time_ms is not None, "else it is refused"
        if clock.is_past(time_ms + 1):
            clock.late += 1
            bounds = (time_ms - within_ms, time_ms + within_ms + 1)
            return Missed(LATE, (bounds,), clock.watermark_ms or 0)
        if self._first_at_ms[side] is None:
            self._begin(side, at_ms)
        self._pair(
            side,
            WindowRow(key, time_ms, time_ms + within_ms + 1, at_ms, 0, (), 1, state, 2 * position + side),
        )
        if clock.follow(time_ms, at_ms):
            self._release(1 - side)
        return None

    def pass_time(self, side: int, now_ms: int) -> bool:
        """Nothing else was appended to that stream until now: whether anything has waited long enough."""
        other, clock, is_due = 1 - side, self._clocks[side], False
        if self._first_at_ms[side] is None:
            return self._release_in_vain(other, now_ms)
        moments = self._moments[other]
        while (end_ms := self._next(moments, other)) is not None and clock.pass_time_to(end_ms, now_ms):
            is_due = True
            self._release(other)
        return is_due

    def next_ms(self, side: int) -> int | None:
        """When silence of that stream will let an event of the other go; None if none waits for it."""
        other = 1 - side
        if self._first_at_ms[side] is None:
            return self._next(self._in_vain[other], other)
        moment = self._next(self._moments[other], other)
        return None if moment is None else self._clocks[side].silence_until_ms(moment)

    def take_told(self) -> list[Pair]:
        """What has been told since this was asked last."""
        told, self._told = self._told, []
        return told

    def take_changed(self) -> tuple[list[WindowRow], list[tuple[str, int, int]]]:
        """What waits since this was asked last, or was paired; and what waits no longer."""
        changed, self._changed = self._changed, {}
        rows = [row for row in changed.values() if row is not None]
        return rows, [place for place, row in changed.items() if row is None]

    # -- what waits ------------------------------------------------------------------------------

    def _begin(self, side: int, at_ms: int) -> None:
        """The first event of a side has come."""
        self._release_in_vain(1 - side, at_ms)
        self._in_vain[1 - side].clear()
        self._first_at_ms[side] = at_ms
        kept = WindowRow("", at_ms, at_ms, 0, 1, (), 0, None, side)  # an event has a key
        self._changed[_place(kept)] = kept

    def _pair(self, side: int, row: WindowRow) -> None:
        other, first_at_ms = 1 - side, self._first_at_ms[1 - side]
        gives_up_at_ms = self._gives_up_at_ms(row)
        if first_at_ms is not None and gives_up_at_ms is not None and gives_up_at_ms <= first_at_ms:
            self._tell_unmatched(side, row)  # it had waited in vain by then, in whichever order they are read
            return
        others = self._waiting[other].get(row.key, {})
        partners = [
            one for one in others.values() if abs(one.start_ms - row.start_ms) <= self._rules.within_ms
        ]
        row = row._replace(is_told=int(bool(partners)))
        for one in sorted(partners, key=lambda one: one.place):
            self._told.append(_pair(side, row, one))
            self._match(other, one)
        if self._clocks[other].is_past(row.end_ms):
            self._tell_unmatched(side, row)
        else:
            self._hold(row)
            self._changed[_place(row)] = row

    def _gives_up_at_ms(self, row: WindowRow) -> int | None:
        """Until when an event waits for a side that has none: as long as for one that has gone silent."""
        idle_ms = self._rules.idle_after_ms
        if idle_ms is None:
            return None
        return row.revision + max(idle_ms, row.end_ms - row.start_ms + self._rules.out_of_order_ms)

    def _hold(self, row: WindowRow) -> None:
        side = row.place & 1
        self._waiting[side].setdefault(row.key, {})[row.place] = row
        heappush(self._moments[side], (row.end_ms, row.place, row.key))
        gives_up_at_ms = self._gives_up_at_ms(row)
        if self._first_at_ms[1 - side] is None and gives_up_at_ms is not None:
            heappush(self._in_vain[side], (gives_up_at_ms, row.place, row.key))

    def _match(self, side: int, row: WindowRow) -> None:
        """It has a partner; that is kept only where it makes a difference."""
        if self._rules.unmatched[side] and not row.is_told:
            paired = row._replace(is_told=1)
            self._waiting[side][row.key][row.place] = self._changed[_place(row)] = paired

    def _next(self, moments: list[tuple[int, int, str]], side: int) -> int | None:
        """When the first of what waits is due; None if nothing waits."""
        while moments and moments[0][1] not in self._waiting[side].get(moments[0][2], {}):
            heappop(moments)
        return moments[0][0] if moments else None

    def _release(self, side: int) -> None:
        """Let go what the other side has nothing more for."""
        moments, clock = self._moments[side], self._clocks[1 - side]
        while (end_ms := self._next(moments, side)) is not None and clock.is_past(end_ms):
            _, place, key = heappop(moments)
            self._let_go(side, key, place)

    def _release_in_vain(self, side: int, at_ms: int) -> bool:
        """Let go what has waited long enough for a first event of the other side; whether anything has."""
        moments, has_any = self._in_vain[side], False
        while (until_ms := self._next(moments, side)) is not None and until_ms <= at_ms:
            _, place, key = heappop(moments)
            self._let_go(side, key, place)
            has_any = True
        return has_any

    def _let_go(self, side: int, key: str, place: int) -> None:
        waiting = self._waiting[side]
        row = waiting[key].pop(place)
        if not waiting[key]:
            del waiting[key]
        self._changed[_place(row)] = None
        self._tell_unmatched(side, row)

    def _tell_unmatched(self, side: int, row: WindowRow) -> None:
        if self._rules.unmatched[side] and not row.is_told:
            self._told.append(_pair(side, row, None))


def _pair(side: int, one: WindowRow, other: WindowRow | None) -> Pair:
    return Pair(one.key, *((one, other) if side == 0 else (other, one)))


def _place(row: WindowRow) -> tuple[str, int, int]:
    return row.key, row.start_ms, row.place
