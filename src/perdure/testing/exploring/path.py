"""The choices of one schedule: which of the events that can happen happens next.

A path is given names to follow. When they are used up it takes the first of what
is possible, which is the default order; or, for a random walk, the one of lowest
rank. What it was offered and what it took is kept, so that a schedule can be
named, repeated and varied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Possible(NamedTuple):
    """Something that can happen next."""

    name: str
    happen: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Taken:
    """One choice."""

    names: tuple[str, ...]
    """What was possible; the first is what the default order takes."""
    index: int
    what: str = ""
    """What came of it, for people: `charge('17') → 'r-17'`."""

    @property
    def name(self) -> str:
        """What was chosen."""
        return self.names[self.index]


class ImpossibleChoice(Exception):
    """What is to happen next is not among what can happen."""

    def __init__(self, place: int, name: str, names: Sequence[str]) -> None:
        possible = ", ".join(repr(one) for one in names) or "nothing more"
        super().__init__(f"choice {place + 1} is to be {name!r}, but possible there: {possible}")


class Path:
    """Chooses, and remembers what it chose."""

    def __init__(
        self,
        wanted: Sequence[str | None] = (),
        *,
        depth: int,
        draw: Callable[[], float] | None = None,
        skips: bool = False,
    ) -> None:
        """`wanted`: names to take first, None for whatever comes first there.

        `draw` makes a random walk of what follows. `skips`: a name that is not
        possible is passed over, and not an error.
        """
        self.taken: list[Taken] = []
        self.depth = depth
        self._wanted = wanted
        self._followed = 0
        self._draw = draw
        self._skips = skips
        self._ranks: dict[str, float] = {}

    def choose(self, names: Sequence[str]) -> int:
        """The index of what happens next. Raises ImpossibleChoice."""
        index = self._index(names)
        self.taken.append(Taken(tuple(names), index))
        return index

    def _index(self, names: Sequence[str]) -> int:
        while self._followed < len(self._wanted):
            name = self._wanted[self._followed]
            self._followed += 1
            if name is None:
                return 0
            if name in names:
                return names.index(name)
            if not self._skips:
                raise ImpossibleChoice(len(self.taken), name, names)
        if self._draw is None or len(names) == 1 or len(self.taken) >= self.depth:
            return 0
        return self._lowest_ranked(names, self._draw)

    def _lowest_ranked(self, names: Sequence[str], draw: Callable[[], float]) -> int:
        # A rank for each event, and not a draw for each choice: else what is possible from the
        # start, as a cancel is, would hardly ever come late.
        for name in names:
            if name not in self._ranks:
                self._ranks[name] = draw()
        return min(range(len(names)), key=lambda index: self._ranks[names[index]])

    def finish(self) -> None:
        """Raise ImpossibleChoice when there was more to follow than could happen."""
        if self._followed < len(self._wanted) and not self._skips:
            raise ImpossibleChoice(len(self.taken), str(self._wanted[self._followed]), ())

    @property
    def departures(self) -> list[int]:
        """Where it left the default order."""
        return [place for place, taken in enumerate(self.taken) if taken.index]

    @property
    def needed(self) -> list[str]:
        """The names that lead here: up to the last departure, since what follows is the default order."""
        departures = self.departures
        return [taken.name for taken in self.taken[: departures[-1] + 1]] if departures else []
