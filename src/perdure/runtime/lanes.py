"""A lane: which of its events are done, and, where it is watched, which are in hand. Pure.

The cursor is the last position up to which all are done; what is done above it is kept
beside it, as stretches between those that are not. So an event that takes long holds up
nothing but the cursor, however many others go by.

A lane with which a worker died is watched: an event is written down before it begins.
Those that were in hand when the next worker dies are suspects, and are handled alone.
"""

from __future__ import annotations

from ..core.events import LaneMark, LanePast, LaneRow, LaneWatch
from ..stores.standing import PASTS

_PASTS_APART_MS = 1_000
"""How far apart in time the marks are, at least, that are kept."""


class Past:
    """How far a lane was of late, as it is kept in its marks: its latest, and before that one a second."""

    __slots__ = ("handled", "kept")

    def __init__(self, kept: tuple[LanePast, ...]) -> None:
        self.kept = kept
        self.handled = kept[-1].handled if kept else 0
        """How many of its events were done or parked, since it was made."""

    def note(self, cursor: int, *, now_ms: int, end: int) -> tuple[LanePast, ...]:
        """It is marked now; `end` is the last position in its stream, as far as that is known."""
        past = self.kept
        if len(past) > 1 and past[-1].at_ms - past[-2].at_ms < _PASTS_APART_MS:
            past = past[:-1]
        self.kept = (*past[1 - PASTS :], LanePast(now_ms, cursor, max(0, end - cursor), self.handled))
        return self.kept


class Lane:
    """One lane of a subscription, in the hands of this worker."""

    __slots__ = (
        "_before", "_begun", "_crashes", "_highest", "_known_to", "_open", "_past", "_row", "_suspects",
        "_until", "cursor", "is_dirty", "is_leaving", "is_news", "read_to",
    )  # fmt: skip

    def __init__(self, row: LaneRow) -> None:
        self._row = row
        self.cursor = row.cursor
        self.read_to = row.cursor
        """Events up to this position have been read, those of other lanes among them."""
        self.is_dirty = False
        """Whether there is something to write."""
        self.is_news = False
        """The same, of what is in hand of a watched lane."""
        self.is_leaving = False
        """Whether nothing of it is begun any more: it goes to another worker."""
        self._before = [(row.done[at], row.done[at + 1]) for at in range(0, len(row.done), 2)]
        """Stretches that were done before, above what has been read."""
        self._highest = row.done[-1] if row.done else row.cursor
        """The last position that is done."""
        self._known_to = self._highest
        self._open: dict[int, None] = {}
        """Positions that were read and are not done, in order."""
        watch = row.watch or LaneWatch(row.subscription, row.lane, 0, 0)
        self._crashes, self._until = watch.crashes, watch.until
        self._begun: set[int] = set()
        self._suspects = dict(watch.suspects)
        self._past = Past(row.history)

    @property
    def number(self) -> int:
        return self._row.lane

    @property
    def generation(self) -> int:
        return self._row.generation

    # -- what is done ----------------------------------------------------------------------------

    def enter(self, position: int) -> bool:
        """An event of the lane was read, after all that were before it: whether it is to be delivered."""
        while self._before and self._before[0][1] < position:
            self._before.pop(0)
        if position <= self.cursor or (self._before and self._before[0][0] <= position):
            return False
        self._open[position] = None
        return True

    def finish(self, position: int) -> None:
        """It is done, or parked. What was not read along, but was parked before, leaves the lane as it is."""
        if position in self._open:
            del self._open[position]
            self._highest = max(self._highest, position)
            self._past.handled += 1
            self.is_dirty = True

    def pass_to(self, position: int) -> None:
        """All events up to this one have been read."""
        self.read_to = max(self.read_to, position)

    @property
    def is_caught_up(self) -> bool:
        """Whether it has been read as far as by whoever had it before."""
        return self.read_to >= self._known_to

    @property
    def has_passed(self) -> bool:
        """Whether it has read past events of other lanes, beyond what is written of it."""
        return self._passed_to > self.cursor

    @property
    def _passed_to(self) -> int:
        """Where its next event stands, but one: what lies between is other lanes', or done."""
        first = next(iter(self._open), None)
        return self.read_to if first is None else first - 1

    def mark(self, *, now_ms: int, end: int, is_given_up: bool = False) -> LaneMark:
        """What is to be kept of it; given up, it goes to whoever takes it.

        `end` is the last position in the stream, as far as that is known.
        """
        self.is_dirty = False
        self.cursor = max(self.cursor, self._passed_to)
        past = self._past
        if not self._open or not past.kept or past.handled > past.kept[-1].handled:
            # Else it has only passed what is others', and its own events are as they were.
            past.note(self.cursor, now_ms=now_ms, end=end)
        done: list[int] = []
        at = self.cursor + 1
        for position in self._open:
            if at <= (end := min(position - 1, self._highest)):
                done += (at, end)
            at = position + 1
            if position > self._highest:
                break
        read_to = min(self.read_to, self._highest)
        if at <= read_to:
            done += (at, read_to)
        for start, end in self._before:
            if end > self.read_to:
                done += (max(start, self.read_to + 1), end)
        row = self._row
        return LaneMark(
            self.cursor, tuple(done), row.subscription, row.lane, row.generation, past.kept, is_given_up
        )

    # -- what is in hand -------------------------------------------------------------------------

    @property
    def is_watched(self) -> bool:
        """Whether an event is written down before it begins."""
        return self._crashes > 0

    def deaths(self, position: int) -> int:
        """How many workers died with this event in hand; 0: it is no suspect."""
        return self._suspects.get(position, 0)

    def begin(self, position: int) -> None:
        """It is in hand as soon as this is on disk."""
        self._begun.add(position)
        self.is_news = True

    def let_go(self, position: int) -> None:
        """It is not in hand any more, and its worker lives: it is no suspect."""
        if self._crashes and (position in self._begun or position in self._suspects):
            self._begun.discard(position)
            self._suspects.pop(position, None)
            self.is_news = True

    def see_whether_over(self) -> None:
        """Watch no longer, if all is done that can have been in hand when a worker died."""
        if self._crashes and self.read_to >= self._until and not self._begun:
            first = next(iter(self._open), None)
            if first is None or first > self._until:
                self._crashes, self._suspects, self.is_news = 0, {}, True

    def watch(self) -> LaneWatch:
        """What is to be kept of that."""
        self.is_news = False
        begun, suspects = tuple(sorted(self._begun)), tuple(sorted(self._suspects.items()))
        return LaneWatch(self._row.subscription, self._row.lane, self._crashes, self._until, begun, suspects)
