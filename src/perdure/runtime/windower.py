"""Puts the events of a stream into windows, lane by lane, and writes what comes of it.

Laws: each event of a lane is taken once and in its place, since where the lane is, its windows and
their results are one commit, under the worker's lease. After a crash all three are as of the last
commit, and the events after it are taken again. An event of which three workers died is parked
(`careful.py`). Silence counts only where the stream has been read to its end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..codec.failures import encode_failure
from ..core.event_time import LaneTime
from ..core.events import (
    DeadEvent,
    DeadKind,
    EventPage,
    EventRow,
    LaneMark,
    LaneRow,
    NewEvent,
    SubscriptionRow,
    SubscriptionStanding,
)
from ..core.positions import gone_below
from ..core.windows import (
    Fold,
    LaneRows,
    LaneWindows,
    Missed,
    Told,
    WindowChange,
    WindowRules,
)
from ..errors import NotDecodable, StoreCorrupt
from ..stores.base import Batch, Store
from ..stores.sight import Reading
from ..stores.streams import lane_of
from .careful import Careful
from .clock import Armed
from .handlers import event_name, killed_by, said_when_parked
from .lanes import Lane, Past
from .sweep import Sweep

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 200
"""So many events are taken before others have their turn on the loop."""
_UNWRITTEN_MAX = 5_000
"""So many events are ahead of the disk at most."""
_END = (1 << 63) - 1
_HELD_BACK_FIRST_S = 0.002
_HELD_BACK_LONGEST_S = 0.25
_MARK_EVERY = 1_000
"""A lane without events of its own is marked when it is this far behind, lest it is all read again."""

Result = tuple[str, NewEvent]
"""A stream, and what is to be appended to it."""


class WindowDefinition(ABC):
    """A function over windows, and how they are made. It is a handler in all else."""

    name: str
    stream: str
    from_start: bool
    rules: WindowRules

    @abstractmethod
    def page(self, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream."""

    @abstractmethod
    def wants(self, event: EventRow) -> bool:
        """Whether the event is of a type that it takes."""

    @abstractmethod
    def time_of(self, event: EventRow) -> int | None:
        """When it happened; None if that is not known. Raises what the user's code raises."""

    @abstractmethod
    def fold(self, event: EventRow, subscription: SubscriptionRow) -> Fold:
        """What adds the event to a state. Raises NotDecodable, and what the user's code raises."""

    @abstractmethod
    def merge(self, earlier: bytes, later: bytes) -> bytes:
        """Make one state of those of two sessions."""

    @abstractmethod
    def result(self, told: Told, now_ms: int) -> Result:
        """The event that tells of a window."""

    @abstractmethod
    def missed(self, event: EventRow, missed: Missed, now_ms: int) -> Result | None:
        """The event that tells of one that is in no window; None: it is only counted."""


class _Lane:
    """One lane in the hands of this worker."""

    def __init__(self, row: LaneRow, windows: LaneWindows) -> None:
        self.number = row.lane
        self.windows = windows
        self.cursor = row.cursor
        """Events up to here have been taken; those of other lanes are passed over."""
        self.marked = row.cursor
        """What is on disk of that, or on its way."""
        self.is_dirty = False
        """Whether there is something to write."""
        self.is_leaving = False
        """Whether it is given up with the next commit."""
        self.results: dict[str, list[NewEvent]] = {}
        self.past = Past(row.history)
        self._generation = row.generation
        self.in_hand = Lane(row)
        """What of it is in hand, after a worker has died with it."""

    def change(self, subscription: int) -> WindowChange:
        """What is to be written; from now on there is nothing."""
        rows, gone = self.windows.take_changed()
        results, self.results = list(self.results.items()), {}
        return WindowChange(
            subscription, self.number, [self.windows.time], rows, gone, results, self._generation
        )

    def mark(self, subscription: int, *, now_ms: int, end: int) -> LaneMark:
        """Where it is; `end` is the last position in the stream, as far as that is known."""
        self.marked, self.is_dirty = self.cursor, False
        past = self.past.note(self.cursor, now_ms=now_ms, end=end)
        return LaneMark(self.cursor, (), subscription, self.number, self._generation, past, self.is_leaving)


class Windower:
    """One windowed subscription, as far as its lanes are this worker's."""

    def __init__(self, driver: Driver, definition: WindowDefinition, row: SubscriptionRow) -> None:
        """`driver` is a proxy: it outlives this."""
        self._driver = driver
        self._definition = definition
        self.row = row
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, _Lane] = {}
        self._after = 0
        """The stream has been read up to here, for the lane that is least far."""
        self._end = 0
        """The last position in the stream, when it was read."""
        self._is_lost = False
        """Whether the next events have been let go by the stream: then a person must say where to go on."""
        self._loading = 0
        self._is_reading = False
        self._look_again = False
        self._unfilled = 0
        """Events, and turns of silence, that are in no commit yet."""
        self._unwritten = 0
        """The same, and those in a commit that is under way."""
        self._dead: list[DeadEvent] = []
        self._armed: Armed | None = None
        self._sweep = Sweep(driver.clock, self._write_passed)
        self._held_back_s = 0.0
        """How long it was waited for events that may not be read yet, the last time."""
        self._held_back: asyncio.TimerHandle | None = None
        self._paused = False
        self._edition = -1
        self._careful = Careful(driver.floor, schedule=driver.committer.schedule, look=self.look)
        driver.committer.fillers.append(self._fill)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, or waits to be written."""
        busy = self._loading or self._is_reading or self._unfilled or self._careful.waits
        return not (busy or self._held_back is not None)

    @property
    def readings(self) -> list[Reading]:
        """How far the stream has been read; past its end where there is no lane to read it for."""
        after = self._after if self._lanes else _END
        return [Reading(self.row.number, self.row.stream, after, edition=self._edition)]

    is_whole = False
    """Its lanes are shared: none has to do with another."""

    # -- reading along ---------------------------------------------------------------------------

    def learn(self, stands: SubscriptionStanding) -> None:
        """Only that it was looked at is known: what was parked is in no window."""
        self._edition = stands.edition

    def holds(self, rows: list[LaneRow]) -> bool:
        """Whether any of these lanes is in its hands."""
        return any(row.lane in self._lanes for row in rows)

    def take(self, rows: list[LaneRow]) -> None:
        """Go on with these lanes, once what is kept of their windows is read."""
        self._loading += 1
        number = self.row.number
        doing = f"reading the windows of {self.row.name}()"
        self._driver.reads.ask_again(
            lambda store: store.streams.windows(number), partial(self._loaded, rows), doing
        )

    def _loaded(self, rows: list[LaneRow], found: list[LaneRows]) -> None:
        self._loading -= 1
        kept = {one.lane: one for one in found}
        definition = self._definition
        for row in rows:
            mine = kept.get(row.lane) or LaneRows(row.lane, [LaneTime()], [])
            windows = LaneWindows(definition.rules, mine.times[0], mine.windows, definition.merge)
            self._lanes[row.lane] = _Lane(row, windows)
        self._turn()
        self.look()

    def _turn(self) -> None:
        """Read next after the lane that is least far."""
        self._is_lost = False
        after = [lane.cursor for lane in self._lanes.values() if not lane.is_leaving]
        self._after = min(after, default=self._after)

    def keep(self, most: int) -> None:
        """Give up the lanes above so many, in the commit that has what was taken of them."""
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        for lane in staying[most:] if not self._paused else ():
            lane.is_leaving = True
            self._note(lane)
            self._careful.drop([lane.in_hand])
        if self._is_lost:  # another lane may be the one that is
            self._turn()
            self.look()

    def look(self) -> None:
        """See whether there is something new, or has been silence for long."""
        if self._paused or self._is_lost or not self._lanes:
            return
        if self._is_reading or self._careful.waits or self._unwritten >= _UNWRITTEN_MAX:
            self._look_again = True
            return
        self._is_reading = True
        page, after, now_ms = self._definition.page, self._after, self._driver.clock.now_ms()
        self._driver.reads.ask(
            lambda store: page(store, after=after, limit=_PAGE),
            partial(self._found, after, now_ms),
        )

    def _found(self, after: int, asked_at_ms: int, page: EventPage | Exception) -> None:
        self._is_reading = False
        if self._paused:
            return
        if isinstance(page, Exception):
            self._driver.complain(page, f"reading stream {self._definition.stream!r}")
            return
        if page.gone > after:
            self._pass_gone(page.gone)
            return
        self._end = page.last
        self._driver.horizon.note(
            self, self._definition.stream, after=page.after, is_held_back=page.is_held_back
        )
        if not self._careful.begin_page():
            self._look_again = True  # it is looked again when the suspect that runs alone has ended
            return
        # A lane that was taken up meanwhile may be less far than where this page begins.
        lanes = {
            number: lane
            for number, lane in self._lanes.items()
            if lane.cursor >= after and not lane.is_leaving
        }
        for event in page.events:
            lane = lanes.get(lane_of(event, self.row.lanes))
            if lane is None or event.position <= lane.cursor:
                continue
            if self._careful.may_take(lane.in_hand, event.position):
                self._take(event, lane)
                self._careful.taken(lane.in_hand, event.position)
        held = self._careful.end_page([lane.in_hand for lane in lanes.values()], page.after)
        for lane in lanes.values():
            lane.cursor = max(lane.cursor, held.get(lane.number, page.after))
        if any(lane.cursor > lane.marked for lane in lanes.values()):
            self._sweep.begin()
        if page.after == after == self._after and not page.is_held_back:
            self._note_silence(asked_at_ms)  # nothing was there when it was asked
        elif after == self._after:  # else there are lanes since that are less far
            self._after = min([page.after, *held.values()])
        if page.is_held_back:
            self._wait_for_held_back()
        else:
            self._held_back_s = 0.0
        self._arm()
        if page.after > after or self._look_again:
            self._look_again = False
            self._loop.call_soon(self.look)

    def _pass_gone(self, gone: int) -> None:
        """Go on with the lanes that need nothing of what is gone; who stays and would is lost."""
        self._turn()
        self._is_lost = gone > self._after and not all(lane.is_leaving for lane in self._lanes.values())
        if self._is_lost:
            lost = gone_below(f"{self.row.stream}/{self.row.name}", self._after, gone)
            self._driver.complain(lost, f"reading stream {self.row.stream!r}")
        elif gone <= self._after:
            self._loop.call_soon(self.look)

    def _wait_for_held_back(self) -> None:
        """Look again soon: nobody tells when they may be read."""
        if self._held_back is None:
            self._held_back_s = min(_HELD_BACK_LONGEST_S, max(_HELD_BACK_FIRST_S, 2 * self._held_back_s))
            self._held_back = self._loop.call_later(self._held_back_s, self._look_at_held_back)

    def _look_at_held_back(self) -> None:
        self._held_back = None
        self.look()

    def _note_silence(self, now_ms: int) -> None:
        for lane in self._lanes.values():
            if lane.is_leaving:
                continue
            if lane.windows.pass_time(now_ms):
                self._collect(lane)
                self._note(lane)

    def _arm(self) -> None:
        """Look again when silence will close a window, where a look can tell that there was silence."""
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        moments = [at_ms for lane in staying if (at_ms := lane.windows.next_ms()) is not None]
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        if moments and self._held_back is None:
            self._armed = self._driver.clock.arm(min(moments), self.look)

    # -- what comes of events --------------------------------------------------------------------

    def _take(self, event: EventRow, lane: _Lane) -> None:
        lane.cursor = event.position
        lane.past.handled += 1
        self._note(lane)
        if event.damage:
            self._park(event, lane, DeadKind.UNREADABLE, StoreCorrupt(event.damage))
            return
        definition = self._definition
        if not definition.wants(event):
            return
        if self._careful.is_killer(lane.in_hand, event.position):
            deaths = lane.in_hand.deaths(event.position)
            self._park(event, lane, DeadKind.CRASHED, killed_by(deaths), attempts=deaths)
            return
        try:
            missed = lane.windows.add(
                event.key, definition.time_of(event), event.at_ms, definition.fold(event, self.row)
            )
        except NotDecodable as error:
            self._park(event, lane, DeadKind.UNREADABLE, error)
        except (Exception, SystemExit) as error:  # a function must not end the worker
            self._park(event, lane, DeadKind.FAILED, error)
        else:
            if missed is not None:
                self._append(lane, definition.missed(event, missed, self._driver.clock.now_ms()))
        self._collect(lane)

    def _collect(self, lane: _Lane) -> None:
        """Make events of what was told."""
        now_ms = self._driver.clock.now_ms()
        for one in lane.windows.take_told():
            self._append(lane, self._definition.result(one, now_ms))

    def _append(self, lane: _Lane, result: Result | None) -> None:
        if result is not None:
            lane.results.setdefault(result[0], []).append(result[1])

    def _park(
        self, event: EventRow, lane: _Lane, kind: DeadKind, error: BaseException, *, attempts: int = 1
    ) -> None:
        """It is in no window, and waits for a person. The others of its key do not wait for it."""
        now_ms = self._driver.clock.now_ms()
        failure = encode_failure(error)
        self._dead.append(
            DeadEvent(
                self.row.number, event.position, lane.number, event.key, int(kind), attempts, failure, now_ms
            )
        )
        what = f"{event_name(event, self.row)}, {said_when_parked(event, self.row)}"
        self._driver.complain(error, f"putting into windows {what}")

    # -- what is done ----------------------------------------------------------------------------

    def _note(self, lane: _Lane) -> None:
        lane.is_dirty = True
        self._unfilled += 1
        self._unwritten += 1
        self._driver.committer.schedule()

    def _write_passed(self) -> None:
        for lane in self._lanes.values():
            if lane.cursor > lane.marked and not lane.is_leaving:
                self._note(lane)

    def _fill(self, batch: Batch) -> Callable[[Exception | None], None] | None:
        """Put what is done into a commit that is about to be written."""
        watches, are_marked = self._careful.fill([lane.in_hand for lane in self._lanes.values()])
        if not (self._unfilled or watches):
            return None
        batch.watches.extend(watches)
        filled, self._unfilled = self._unfilled, 0
        number, now_ms = self.row.number, self._driver.clock.now_ms()
        batch.dead.extend(self._dead)
        self._dead = []
        for lane in list(self._lanes.values()):
            if lane.is_dirty:
                batch.windows.append(lane.change(number))
            if lane.is_dirty or lane.cursor - lane.marked > _MARK_EVERY:
                batch.lanes.append(lane.mark(number, now_ms=now_ms, end=self._end))
            if lane.is_leaving:
                del self._lanes[lane.number]
        return partial(self._committed, filled, are_marked)

    def _committed(self, filled: int, are_marked: bool, error: Exception | None) -> None:
        if error is not None or self._paused:
            return
        self._unwritten -= filled
        if are_marked:
            self._careful.written()
        if self._look_again:
            self._look_again = False
            self.look()

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
        self._careful.end()
        self.abandon()
