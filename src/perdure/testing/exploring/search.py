"""Which schedule comes next: first all orders, the least unusual first; then random walks.

Every schedule is the default order with departures from it. `Orders` gives each
exactly once: those with one departure, then with two, and so on. It works by
running again from the start, since a coroutine cannot be copied. Nothing is
left out as equivalent: the order of a journal is the order of delivery, and a
workflow may look at it, so no two orders are the same to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .path import Path, Taken


class Orders:
    """All orders, by the number of departures from the default order."""

    def __init__(self, *, schedules: int, depth: int) -> None:
        """At most so many `schedules` are given; after `depth` choices nothing departs any more."""
        self._left = schedules
        self._depth = depth
        self._waiting: deque[tuple[list[Taken], int, int]] = deque()
        self._begun = False
        self.is_over_bound = False
        """Whether there are more orders than may be given."""
        self.is_over_depth = False
        """Whether there are orders that depart after the last choice that may."""

    @property
    def is_empty(self) -> bool:
        """Whether all have been given."""
        return self._begun and not self._waiting

    def next(self) -> Path:
        """The next order to play."""
        self._left -= 1
        if not self._begun:
            self._begun = True
            return Path(depth=self._depth)
        taken, place, index = self._waiting.popleft()
        names = [one.name for one in taken[:place]]
        return Path([*names, taken[place].names[index]], depth=self._depth)

    def learn(self, path: Path) -> None:
        """Note the orders that depart from this one once more, after its last departure."""
        departures = path.departures
        first = departures[-1] + 1 if departures else 0
        taken = path.taken
        for place in range(first, len(taken)):
            others = range(1, len(taken[place].names))
            if others and place >= self._depth:
                self.is_over_depth = True
                return
            room = self._left - len(self._waiting)
            self.is_over_bound = self.is_over_bound or len(others) > room
            self._waiting.extend((taken, place, index) for index in others[: max(0, room)])


class Walks:
    """Random walks: each event draws a rank when it becomes possible, and the lowest goes first."""

    def __init__(self, draw: Callable[[], float], *, depth: int) -> None:
        self._draw = draw
        self._depth = depth

    def next(self) -> Path:
        """The next walk to play."""
        return Path(depth=self._depth, draw=self._draw)
