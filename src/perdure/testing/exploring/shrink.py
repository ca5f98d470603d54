"""Making a failing schedule short: the fewest departures from the default order, as early as can be.

It tries to leave choices out, or to make them as the default order would, and
keeps what still fails in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator

from .path import ImpossibleChoice, Path
from .plan import Plan
from .play import Played, play

_TRIES_MAX = 1_000


async def shrink(plan: Plan, found: Played) -> Played:
    """A schedule that fails as `found` does, and from which nothing can be left out."""
    best = found
    tries = 0
    improved = True
    while improved and tries < _TRIES_MAX:
        improved = False
        for wanted in _shorter(best.path):
            tries += 1
            played = await play(plan, Path(wanted, depth=0, skips=True))
            if _fails_alike(played, found) and _cost(played.path) < _cost(best.path):
                best, improved = played, True
                break
            if tries >= _TRIES_MAX:
                break
    return best


async def confirm(plan: Plan, played: Played) -> bool:
    """Whether the schedule fails again when it is given by its names."""
    try:
        again = await play(plan, Path(played.path.needed, depth=0))
    except ImpossibleChoice:
        return False
    return _fails_alike(again, played)


def _fails_alike(played: Played, found: Played) -> bool:
    failure, wanted = played.failure, found.failure
    return failure is not None and wanted is not None and failure.is_like(wanted)


def _cost(path: Path) -> tuple[int, int, int, int]:
    departures = path.departures
    unusual = sum(path.taken[place].index for place in departures)
    return len(departures), len(path.needed), sum(departures), unusual


def _shorter(path: Path) -> Iterator[list[str | None]]:
    """Variants of a schedule that may be shorter: large pieces first."""
    names: list[str | None] = list(path.needed)
    departures = path.departures
    size = len(names)
    while size:
        for start in range(0, len(names), size):
            end = min(start + size, len(names))
            if any(start <= place < end for place in departures):
                yield [*names[:start], *[None] * (end - start), *names[end:]]
            yield [*names[:start], *names[end:]]
        size //= 2
    for place in departures:  # the same event, earlier
        for earlier in range(place):
            yield [*names[:earlier], names[place], *names[earlier:place], *names[place + 1 :]]
