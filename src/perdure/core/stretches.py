"""What of a lane is done above its cursor, as stretches: from, to, from, to, both included. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def covers(done: tuple[int, ...], position: int) -> bool:
    """Whether a position is in one of the stretches."""
    return any(done[at] <= position <= done[at + 1] for at in range(0, len(done), 2))


def joined(done: tuple[int, ...], positions: Iterable[int], *, above: int) -> tuple[int, ...]:
    """These stretches, in any order, and these positions, as far as they are above a cursor."""
    pairs = [(done[at], done[at + 1]) for at in range(0, len(done), 2)]
    pairs += [(position, position) for position in positions]
    ends: list[int] = []
    for start, end in sorted(pairs):
        if end <= above:
            continue
        if ends and start <= ends[-1] + 1:
            ends[-1] = max(ends[-1], end)
        else:
            ends += (max(start, above + 1), end)
    return tuple(ends)
