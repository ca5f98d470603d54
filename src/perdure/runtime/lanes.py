"""A lane: which of its events are done, in whatever order they end. Pure.

The cursor is the last position up to which all are done; those that are done above
it are kept beside it. So an event that takes long holds up nothing but the cursor.
"""

from __future__ import annotations

from collections import deque

from ..core.events import LaneMark, LaneRow


class Lane:
    """One lane of a subscription, in the hands of this worker."""

    __slots__ = ("_open", "_row", "cursor", "done", "is_dirty", "is_leaving", "parked", "read_to")

    def __init__(self, row: LaneRow) -> None:
        self._row = row
        self.cursor = row.cursor
        self.done = set(row.done)
        """Positions above the cursor that are done."""
        self.parked = set(row.parked)
        """Keys whose events are parked."""
        self.read_to = row.cursor
        """Events up to this position have been read, those of other lanes among them."""
        self.is_dirty = False
        """Whether there is something to write."""
        self.is_leaving = False
        """Whether nothing of it is begun any more: it goes to another worker."""
        self._open: deque[int] = deque()
        """Positions that were read and are above the cursor, in order."""

    @property
    def number(self) -> int:
        return self._row.lane

    def enter(self, position: int) -> bool:
        """An event of the lane was read: whether it is to be delivered, and was not before."""
        if position <= self.cursor:
            return False
        self._open.append(position)
        return position not in self.done

    def finish(self, position: int) -> None:
        """It is done, or parked."""
        self.done.add(position)
        self.is_dirty = True

    def pass_to(self, position: int) -> None:
        """All events up to this one have been read."""
        self.read_to = max(self.read_to, position)

    def mark(self, *, last: bool = False) -> LaneMark:
        """What is to be kept of it; the last time it goes to whoever takes it."""
        self.is_dirty = False
        waiting, done = self._open, self.done
        while waiting and waiting[0] in done:
            self.cursor = waiting.popleft()
            done.discard(self.cursor)
        if not waiting:
            self.cursor = max(self.cursor, self.read_to)
        return LaneMark(self.cursor, tuple(sorted(done)), self._row.subscription, self._row.lane, last)
