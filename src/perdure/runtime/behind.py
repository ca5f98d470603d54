"""Keys whose events wait on disk: behind one that is parked, or because there are too many to hold.

While a key is here its new events are put in line on disk, and none is begun from memory.
What is due of it is read a few at a time, when nothing of it is in hand or on its way to disk; when
nothing is left there, the key is handled from memory again. So its order holds, and
memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..core.events import DueEvents, EventRow, SubscriptionRow
from ..stores.base import Store

if TYPE_CHECKING:
    from .driver import Driver

AT_ONCE = 32


class Line:
    """A key of a lane of which events wait on disk."""

    __slots__ = ("is_asked", "is_halted", "key", "lane", "out", "unwritten")

    def __init__(self, lane: int, key: str) -> None:
        self.lane = lane
        self.key = key
        self.unwritten = 0
        """Rows that are on their way to disk."""
        self.out = 0
        """Events that were read from disk and are in memory."""
        self.is_asked = False
        self.is_halted = False
        """Whether one of those was parked: the others are, too, and are to be dropped."""

    @property
    def is_busy(self) -> bool:
        return bool(self.unwritten or self.out or self.is_asked)


class Behind:
    """The lines of a subscription, as far as its lanes are this worker's."""

    def __init__(
        self,
        driver: Driver,
        row: SubscriptionRow,
        lanes: Collection[int],
        *,
        prepare: Callable[[Store, Sequence[EventRow]], None],
        deliver: Callable[[EventRow, Line], None],
        may_read: Callable[[int, str], bool],
        room: Callable[[], int],
        pump: Callable[[], None],
    ) -> None:
        """`prepare` is called when events were read, from the thread that reads.

        `may_read`: whether none of a lane's key are in memory, or are still to be read along;
        `pump` is called when events were delivered.
        """
        self._driver = driver
        self._row = row
        self._lanes = lanes
        self._prepare = prepare
        self._deliver = deliver
        self._may_read = may_read
        self._room = room
        self._pump = pump
        self._lines: dict[tuple[int, str], Line] = {}
        self._to_see: dict[Line, None] = {}
        self.edition = -1
        """Of what the subscription's row was when it was looked at last."""
        self._stopped = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read."""
        return not any(line.is_asked for line in self._lines.values())

    def has(self, lane: int, key: str) -> bool:
        """Whether a new event of the key must go behind others."""
        return bool(key) and (lane, key) in self._lines

    def put(self, lane: int, key: str) -> Line:
        """A row of the key is on its way to disk."""
        line = self._line(lane, key)
        line.unwritten += 1
        self._see(line)
        return line

    def written(self, lane: int, key: str) -> None:
        """It is there."""
        line = self._lines.get((lane, key))
        if line is not None:
            line.unwritten -= 1

    def returned(self, line: Line) -> None:
        """An event that was read from disk is done, or parked, on disk."""
        line.out -= 1
        self._see(line)

    def look(self) -> None:
        """See what the store has of the lanes."""
        if self._lanes:
            number = self._row.number
            self._driver.reads.ask(lambda store: store.streams.dead.held(number), self._found_lines)

    def _found_lines(self, rows: Iterable[tuple[int, str, bool]] | Exception) -> None:
        if self._stopped:
            return
        if isinstance(rows, Exception):
            self.edition = -1  # look once more
            self._driver.complain(rows, f"reading what is parked of stream {self._row.stream!r}")
            return
        self.learn(rows, self._lanes)
        self.see_to()

    def learn(self, rows: Iterable[tuple[int, str, bool]], lanes: Iterable[int]) -> None:
        """What the store has of these lanes: see to what is due, and to what is not there any more."""
        ours = set(lanes)
        known = {(lane, key): is_due for lane, key, is_due in rows if lane in ours}
        for (lane, key), is_due in known.items():
            line = self._line(lane, key)
            if is_due or line.is_busy:
                self._see(line)
        for place, line in self._lines.items():
            if place not in known:
                self._see(line)

    def drop(self, lane: int) -> None:
        """The lane is another worker's."""
        for place in [place for place in self._lines if place[0] == lane]:
            self._to_see.pop(self._lines.pop(place), None)

    def see_to(self) -> None:
        """Read on where something may be due, as far as there is room."""
        for line in list(self._to_see):
            if self._room() <= 0:
                return
            if not line.is_busy and self._may_read(line.lane, line.key):
                del self._to_see[line]
                line.is_asked = True
                self._ask(line)

    def _ask(self, line: Line) -> None:
        self._driver.reads.ask(partial(self._read, line.lane, line.key), partial(self._found, line))

    def _read(self, lane: int, key: str, store: Store) -> DueEvents:
        due = store.streams.dead.due(self._row.number, lane, key, limit=AT_ONCE)
        self._prepare(store, due.events)
        return due

    def _found(self, line: Line, due: DueEvents | Exception) -> None:
        line.is_asked = line.is_halted = False
        if self._stopped or not self._is_ours(line):
            return
        if isinstance(due, Exception):
            self._driver.complain(due, f"reading what waits of stream {self._row.stream!r}")
            self._see(line)
            return
        line.out = len(due.events)
        for event in due.events:
            self._deliver(event, line)
        if not (due.events or due.is_any_left or line.unwritten or line in self._to_see):
            self._lines.pop((line.lane, line.key), None)
        self._pump()

    def end(self) -> None:
        """Read no more."""
        self._stopped = True

    def _line(self, lane: int, key: str) -> Line:
        line = self._lines.get((lane, key))
        if line is None:
            line = self._lines[lane, key] = Line(lane, key)
        return line

    def _see(self, line: Line) -> None:
        if self._is_ours(line):
            self._to_see[line] = None

    def _is_ours(self, line: Line) -> bool:
        return self._lines.get((line.lane, line.key)) is line
