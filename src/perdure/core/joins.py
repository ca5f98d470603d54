"""Events of two streams that happened within a time of each other, lane by lane. Pure.

An event of one stream waits until the watermark of the other says that no event
can come any more that it could be paired with. What it is paired with is told at once, and that it was
paired with none when it waits no longer.

The law: which pairs are told is a function of the two streams, each in its order; how they are
read past each other changes nothing but the order of the pairs. So an event that is
late is so by its own stream. One thing is left to the clock: how long is waited for the first event
of a side that has had none.
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
    """The events of one lane that wait for the other side. Sides are 0 and 1."""

    def __init__(self, rules: JoinRules, times: Sequence[LaneTime], rows: Iterable[WindowRow]) -> None:
        self._rules = rules
        self._clocks = [EventClock(rules, time) for time in times]
        self._waiting: tuple[dict[str, dict[int, WindowRow]], ...] = ({}, {})
        """By side, key and place."""
        self._moments: tuple[list[tuple[int, int, str]], ...] = ([], [])
        """By side: (end, place, key) of what waits."""
        self._changed: dict[tuple[str, int, int], WindowRow | None] = {}
        self._told: list[Pair] = []
        for row in rows:
            self._hold(row)

    @property
    def times(self) -> list[LaneTime]:
        """How far event time is, on each side."""
        return [clock.time for clock in self._clocks]

    def add(
        self, side: int, position: int, key: str, time_ms: int | None, at_ms: int, state: bytes
    ) -> Missed | None:
        """Pair an event with what waits on the other side. Those of a side come in their order, each once."""
        clock, within_ms = self._clocks[side], self._rules.within_ms
        if clock.has_begun:  # else what is read first, this event or one of the other side, would count
            self.pass_time(side, at_ms)
        wrong = clock.refuse(key, time_ms, at_ms)
        if wrong:
            return Missed(wrong)
        assert time_ms is not None, "else it is refused"
        if clock.is_past(time_ms + 1):
            clock.late += 1
            bounds = (time_ms - within_ms, time_ms + within_ms + 1)
            return Missed(LATE, (bounds,), clock.watermark_ms or 0)
        self._clocks[1 - side].begin(time_ms, at_ms)
        others = self._waiting[1 - side].get(key, {})
        partners = [other for other in others.values() if abs(other.start_ms - time_ms) <= within_ms]
        row = WindowRow(
            key, time_ms, time_ms + within_ms + 1, 0, int(bool(partners)), (), 1, state, 2 * position + side
        )
        for other in sorted(partners, key=lambda one: one.place):
            self._told.append(_pair(side, row, other))
            self._match(1 - side, other)
        if self._clocks[1 - side].is_past(row.end_ms):
            self._tell_unmatched(side, row)
        else:
            self._hold(row)
            self._changed[_place(row)] = row
        if clock.follow(time_ms, at_ms):
            self._release(1 - side)
        return None

    def pass_time(self, side: int, now_ms: int) -> None:
        """Nothing else was appended to that stream until now."""
        if self._clocks[side].pass_time(now_ms):
            self._release(1 - side)

    def next_ms(self) -> int | None:
        """When silence will let an event go; None if none waits for it."""
        found = [
            self._clocks[1 - side].silence_until_ms(moments[0][0])
            for side, moments in enumerate(self._moments)
            if moments
        ]
        return min((at_ms for at_ms in found if at_ms is not None), default=None)

    def take_told(self) -> list[Pair]:
        """What has been told since this was asked last."""
        told, self._told = self._told, []
        return told

    def take_changed(self) -> tuple[list[WindowRow], list[tuple[str, int, int]]]:
        """What waits since this was asked last, or was paired; and what waits no longer."""
        changed, self._changed = self._changed, {}
        rows = [row for row in changed.values() if row is not None]
        return rows, [place for place, row in changed.items() if row is None]

    def _hold(self, row: WindowRow) -> None:
        side = row.place & 1
        self._waiting[side].setdefault(row.key, {})[row.place] = row
        heappush(self._moments[side], (row.end_ms, row.place, row.key))

    def _match(self, side: int, row: WindowRow) -> None:
        """It has a partner; that is kept only where it makes a difference."""
        if self._rules.unmatched[side] and not row.is_told:
            paired = row._replace(is_told=1)
            self._waiting[side][row.key][row.place] = self._changed[_place(row)] = paired

    def _release(self, side: int) -> None:
        """Let go what the other side has nothing more for."""
        moments, waiting = self._moments[side], self._waiting[side]
        while moments and self._clocks[1 - side].is_past(moments[0][0]):
            _, place, key = heappop(moments)
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
