"""Pairs the events of two streams, lane by lane, and writes what comes of it.

Both streams have as many lanes, by the same keys, and a lane of the subscription is that of both. Laws: as
for windows (`windower.py`); where the lane is in both, what waits there and what was told are one commit.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..core.event_time import LaneTime
from ..core.events import (
    EventPage,
    EventRow,
    LaneMark,
    LaneRow,
    NewEvent,
    SubscriptionRow,
    SubscriptionStanding,
)
from ..core.joins import JoinRules, LaneJoin, Pair
from ..core.positions import gone_below
from ..core.windows import LaneRows, Missed, WindowChange
from ..errors import NotDecodable, StoreCorrupt
from ..stores.base import Batch, Store
from ..stores.sight import Reading
from ..stores.streams import lane_of
from .clock import Armed
from .lanes import Past
from .sweep import Sweep
from .windower import Result

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 200
_UNWRITTEN_MAX = 5_000
_MARK_EVERY = 1_000
_END = (1 << 63) - 1
_HELD_BACK_S = 0.01

UNREADABLE = "unreadable"
"""Why an event is told of aside: it could not be read as its type."""


class JoinDefinition(ABC):
    """Two streams, and which of their events are paired. It is a handler in all else."""

    name: str
    stream: str
    other: str
    """The stream of side 1."""
    from_start: bool
    join_rules: JoinRules

    @abstractmethod
    def side_page(self, side: int, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream of one side."""

    @abstractmethod
    def takes(self, side: int, event: EventRow) -> bool:
        """Whether the event is of the type that is paired."""

    @abstractmethod
    def state(self, side: int, event: EventRow) -> bytes:
        """What is kept of an event while it waits. Raises NotDecodable."""

    @abstractmethod
    def paired(self, pair: Pair, now_ms: int) -> Result:
        """The event that tells of a pair."""

    @abstractmethod
    def aside(self, side: int, event: EventRow, missed: Missed, now_ms: int) -> Result:
        """The event that tells of one that is in no pair."""


class _Lane:
    """One lane in the hands of this worker."""

    def __init__(self, row: LaneRow, kept: LaneRows, rules: JoinRules) -> None:
        self.number = row.lane
        self.join = LaneJoin(rules, kept.times, kept.windows)
        self.cursors = [row.cursor, kept.times[1].cursor]
        """By side: up to where events have been taken."""
        self.marked = list(self.cursors)
        self.is_dirty = False
        self.is_leaving = False
        """Whether it is given up with the next commit."""
        self.results: dict[str, list[NewEvent]] = {}
        self.past = Past(row.history)
        self._generation = row.generation

    @property
    def has_passed(self) -> bool:
        """Whether it is further, in either stream, than is written of it."""
        return self.cursors != self.marked

    @property
    def is_to_be_marked(self) -> bool:
        """Whether there is something to write, or it is far from where it would begin again."""
        return self.is_dirty or any(
            cursor - marked > _MARK_EVERY for cursor, marked in zip(self.cursors, self.marked, strict=True)
        )

    def change(self, subscription: int) -> WindowChange:
        """What is to be written; from now on there is nothing."""
        rows, gone = self.join.take_changed()
        results, self.results = list(self.results.items()), {}
        left, right = self.join.times
        self.is_dirty, self.marked = False, list(self.cursors)
        times = [left, right._replace(cursor=self.cursors[1])]
        return WindowChange(subscription, self.number, times, rows, gone, results, self._generation)

    def mark(self, subscription: int, *, now_ms: int, ends: Sequence[int]) -> LaneMark:
        """Where it is in the first stream; `ends` are the last positions in both, as far as is known."""
        cursor, other = self.cursors
        past = self.past.note(cursor, now_ms=now_ms, end=max(cursor, ends[0]) + max(0, ends[1] - other))
        return LaneMark(cursor, (), subscription, self.number, self._generation, past, self.is_leaving)


class _Side:
    """One of the two streams, as it is read."""

    def __init__(self, number: int, stream: str) -> None:
        self.number = number
        self.stream = stream
        self.after = 0
        """It has been read up to here, for the lane that is least far."""
        self.end = 0
        """Its last position, when it was read."""
        self.is_lost = False
        """Whether the next events have been let go by the stream: then a person must say where to go on."""
        self.is_reading = False
        self.look_again = False
        self.held_back: asyncio.TimerHandle | None = None


class Joiner:
    """One join, as far as its lanes are this worker's."""

    def __init__(self, driver: Driver, definition: JoinDefinition, row: SubscriptionRow) -> None:
        """`driver` is a proxy: it outlives this."""
        self._driver = driver
        self._definition = definition
        self.row = row
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, _Lane] = {}
        self._sides = (_Side(0, definition.stream), _Side(1, definition.other))
        self._loading = 0
        self._unfilled = 0
        """Events, and turns of silence, that are in no commit yet."""
        self._unwritten = 0
        """The same, and those in a commit that is under way."""
        self._armed: Armed | None = None
        self._sweep = Sweep(driver.clock, self._write_passed)
        self._paused = False
        self._edition = -1
        driver.committer.fillers.append(self._fill)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, or waits to be written."""
        reading = any(side.is_reading or side.held_back is not None for side in self._sides)
        return not (self._loading or self._unfilled or reading)

    @property
    def readings(self) -> list[Reading]:
        """How far both streams have been read; past the end where there is no lane to read them for."""
        return [
            Reading(self.row.number, side.stream, side.after if self._lanes else _END, edition=self._edition)
            for side in self._sides
        ]

    is_whole = False
    """Its lanes are shared: none has to do with another."""

    # -- reading along ---------------------------------------------------------------------------

    def learn(self, stands: SubscriptionStanding) -> None:
        """Only that it was looked at is known: it parks nothing."""
        self._edition = stands.edition

    def holds(self, rows: list[LaneRow]) -> bool:
        """Whether any of these lanes is in its hands."""
        return any(row.lane in self._lanes for row in rows)

    def take(self, rows: list[LaneRow]) -> None:
        """Go on with these lanes, once what waits in them is read."""
        self._loading += 1
        number = self.row.number
        doing = f"reading what waits in {self.row.name}"
        self._driver.reads.ask_again(
            lambda store: store.streams.windows(number), partial(self._loaded, rows), doing
        )

    def _loaded(self, rows: list[LaneRow], found: list[LaneRows]) -> None:
        self._loading -= 1
        kept = {one.lane: one for one in found}
        for row in rows:
            mine = kept.get(row.lane) or LaneRows(row.lane, [LaneTime(), LaneTime()], [])
            self._lanes[row.lane] = _Lane(row, mine, self._definition.join_rules)
        for side in self._sides:
            self._turn(side)
        self.look()

    def _turn(self, side: _Side) -> None:
        """Read next after the lane that is least far."""
        side.is_lost = False
        after = [lane.cursors[side.number] for lane in self._lanes.values() if not lane.is_leaving]
        side.after = min(after, default=side.after)

    def keep(self, most: int) -> None:
        """Give up the lanes above so many, in the commit that has what was taken of them."""
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        for lane in staying[most:] if not self._paused else ():
            lane.is_leaving = True
            self._note(lane)
        for side in self._sides:
            if side.is_lost:  # another lane may be the one that is
                self._turn(side)
                self._look(side)

    def look(self) -> None:
        """See whether there is something new, or has been silence for long."""
        for side in self._sides:
            self._look(side)

    def _look(self, side: _Side) -> None:
        if self._paused or side.is_lost or not self._lanes:
            return
        if side.is_reading or self._unwritten >= _UNWRITTEN_MAX:
            side.look_again = True
            return
        side.is_reading = True
        page, number = self._definition.side_page, side.number
        after, now_ms = side.after, self._driver.clock.now_ms()
        self._driver.reads.ask(
            lambda store: page(number, store, after=after, limit=_PAGE),
            partial(self._found, side, after, now_ms),
        )

    def _found(self, side: _Side, after: int, asked_at_ms: int, page: EventPage | Exception) -> None:
        side.is_reading = False
        if self._paused:
            return
        if isinstance(page, Exception):
            self._driver.complain(page, f"reading stream {side.stream!r}")
            return
        number = side.number
        if page.gone > after:
            self._pass_gone(side, page.gone)
            return
        side.end = page.last
        self._driver.horizon.note(side, side.stream, after=page.after, is_held_back=page.is_held_back)
        # A lane that was taken up meanwhile may be less far than where this page begins.
        lanes = {
            one: lane
            for one, lane in self._lanes.items()
            if lane.cursors[number] >= after and not lane.is_leaving
        }
        for event in page.events:
            lane = lanes.get(lane_of(event, self.row.lanes))
            if lane is not None and event.position > lane.cursors[number]:
                self._take(event, lane, number)
        for lane in lanes.values():
            lane.cursors[number] = max(lane.cursors[number], page.after)
        if any(lane.has_passed for lane in lanes.values()):
            self._sweep.begin()
        if page.after == after == side.after and not page.is_held_back:
            self._note_silence(number, asked_at_ms)  # nothing was there when it was asked
        elif after == side.after:  # else there are lanes since that are less far
            side.after = page.after
        if page.is_held_back and side.held_back is None:
            side.held_back = self._loop.call_later(_HELD_BACK_S, self._look_at_held_back, side)
        self._arm()
        if page.after > after or side.look_again:
            side.look_again = False
            self._loop.call_soon(self._look, side)

    def _pass_gone(self, side: _Side, gone: int) -> None:
        """Begin with the first event of the other stream that is kept; who had begun there has lost some."""
        number = side.number
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        behind = [lane for lane in staying if lane.cursors[number] < gone]
        if not behind or (number and not any(lane.cursors[number] for lane in behind)):
            for lane in behind:
                lane.cursors[number] = gone
            self._turn(side)
            if staying:
                self._loop.call_soon(self._look, side)
        else:
            self._turn(side)
            side.is_lost = True
            of = side.stream if number else ""
            lost = gone_below(f"{self.row.stream}/{self.row.name}", side.after, gone, stream=of)
            self._driver.complain(lost, f"reading stream {side.stream!r}")

    def _look_at_held_back(self, side: _Side) -> None:
        side.held_back = None
        self._look(side)

    def _note_silence(self, side: int, now_ms: int) -> None:
        for lane in self._lanes.values():
            if lane.is_leaving:
                continue
            if lane.join.pass_time(side, now_ms):
                self._collect(lane)
                self._note(lane)

    def _arm(self) -> None:
        """Look again when silence will let an event go, where a look can tell that there was silence."""
        sides = [side for side in self._sides if not (side.is_lost or side.is_reading or side.held_back)]
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        moments = [
            at_ms
            for side in sides
            for lane in staying
            if (at_ms := lane.join.next_ms(side.number)) is not None
        ]
        if self._armed is not None:
            self._armed.cancel()
        self._armed = self._driver.clock.arm(min(moments), self.look) if moments else None

    # -- what comes of events --------------------------------------------------------------------

    def _take(self, event: EventRow, lane: _Lane, side: int) -> None:
        lane.cursors[side] = event.position
        lane.past.handled += 1
        self._note(lane)
        definition = self._definition
        now_ms = self._driver.clock.now_ms()
        if event.damage:
            self._driver.complain(StoreCorrupt(event.damage), f"joining stream {self._sides[side].stream!r}")
            self._append(lane, definition.aside(side, event, Missed(UNREADABLE), now_ms))
            return
        if not definition.takes(side, event):
            return
        try:
            state = definition.state(side, event)
        except NotDecodable as error:
            self._driver.complain(error, f"joining stream {self._sides[side].stream!r}")
            missed = Missed(UNREADABLE)
        else:
            found = lane.join.add(side, event.position, event.key, event.time_ms, event.at_ms, state)
            self._collect(lane)
            if found is None:
                return
            missed = found
        self._append(lane, definition.aside(side, event, missed, now_ms))

    def _collect(self, lane: _Lane) -> None:
        """Make events of what was told."""
        now_ms = self._driver.clock.now_ms()
        for pair in lane.join.take_told():
            self._append(lane, self._definition.paired(pair, now_ms))

    def _append(self, lane: _Lane, result: Result) -> None:
        lane.results.setdefault(result[0], []).append(result[1])

    # -- what is done ----------------------------------------------------------------------------

    def _note(self, lane: _Lane) -> None:
        lane.is_dirty = True
        self._unfilled += 1
        self._unwritten += 1
        self._driver.committer.schedule()

    def _write_passed(self) -> None:
        for lane in self._lanes.values():
            if lane.has_passed and not lane.is_leaving:
                self._note(lane)

    def _fill(self, batch: Batch) -> Callable[[Exception | None], None] | None:
        """Put what is done into a commit that is about to be written."""
        if not self._unfilled:
            return None
        filled, self._unfilled = self._unfilled, 0
        number, now_ms = self.row.number, self._driver.clock.now_ms()
        for lane in list(self._lanes.values()):
            if lane.is_to_be_marked:
                batch.windows.append(lane.change(number))
                batch.lanes.append(lane.mark(number, now_ms=now_ms, ends=[side.end for side in self._sides]))
            if lane.is_leaving:
                del self._lanes[lane.number]
        return partial(self._committed, filled)

    def _committed(self, filled: int, error: Exception | None) -> None:
        if error is not None or self._paused:
            return
        self._unwritten -= filled
        for side in self._sides:
            if side.look_again:
                side.look_again = False
                self._look(side)

    # -- the end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take no more events."""
        self.abandon()

    def abandon(self) -> list[asyncio.Task[None]]:
        """Take no more events; what was taken will be written with the last commit, if there is one."""
        self._paused = True
        self._sweep.cancel()
        if self._armed is not None:
            self._armed.cancel()
        return []

    async def stop(self) -> None:
        """The same."""
        self._sweep.end()
        self.abandon()

    async def make_way(self) -> None:
        """Stop for another one, which has its lanes now: nothing of this one is written any more."""
        self._driver.committer.fillers.remove(self._fill)
        self.abandon()
