"""How much of each other's data the versions of a schema must be able to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Literal, NamedTuple, get_args

from ..errors import DefinitionError
from .comparing import Change, Side, compare
from .making import Schema

Compat = Literal[
    "none", "backward", "forward", "full", "backward_transitive", "forward_transitive", "full_transitive"
]
"""`backward`: new code reads old events; `forward`: old code reads new ones; `full`: both. Of the version
next to it; with `_transitive`, of all that are kept."""


class Break(NamedTuple):
    """A change that the mode does not allow."""

    older: int
    newer: int
    side: Side
    change: Change

    def other(self, version: int) -> int:
        """The version on the other side of this one."""
        return self.older if version == self.newer else self.newer

    def __str__(self) -> str:
        """`$.amount: required field added (it has no default): version 2 cannot read events of version 1`."""
        where, rule, what, _ = self.change
        why = f"code of version {self.reader} cannot read events of version {self.data}"
        return f"{where}: {rule} ({what}): {why}"

    @property
    def reader(self) -> int:
        """The version of the code that cannot read."""
        return self.newer if self.side == "backward" else self.older

    @property
    def data(self) -> int:
        """The version of the events that cannot be read."""
        return self.older if self.side == "backward" else self.newer


def tell_breaks(broken: Iterable[Break]) -> list[str]:
    """What is broken, change by change: a change that breaks both sides is told once."""
    told: list[str] = []
    for _, same in groupby(broken, key=lambda one: (one.older, one.newer, one.change)):
        first, *others = same
        nor = "".join(f", nor code of version {one.reader} events of version {one.data}" for one in others)
        told.append(f"{first}{nor}")
    return told


class Bridges(NamedTuple):
    """Between which versions values are translated, so that their schemas need not fit."""

    up: frozenset[int]
    """From these to the next one."""
    down: frozenset[int]
    """From these to the one before."""

    def reach(self, source: int, target: int) -> bool:
        """Whether there is a translator for each step on the way."""
        if source <= target:
            return self.up.issuperset(range(source, target))
        return self.down.issuperset(range(target + 1, source + 1))


NO_BRIDGES = Bridges(frozenset(), frozenset())


def check_compat(compat: str, where: str) -> Compat:
    """The mode of this name. Raises DefinitionError."""
    for known in get_args(Compat):
        if compat == known:
            return known
    raise DefinitionError(
        f"{where}: compat={compat!r} is no mode.", hint=f"It may be {', '.join(get_args(Compat))}."
    )


def sides_of(compat: Compat) -> frozenset[Side]:
    """Which sides must be able to read the other's data."""
    name = compat.removesuffix("_transitive")
    both: frozenset[Side] = frozenset({"backward", "forward"})
    return both if name == "full" else frozenset(side for side in both if side == name)


def breaks_of(
    schemas: Mapping[int, Schema],
    version: int,
    compat: Compat,
    *,
    others: Iterable[int] | None = None,
    bridges: Bridges = NO_BRIDGES,
) -> list[Break]:
    """What of a version the mode does not allow, beside the others, older or newer; `others`: only these."""
    known = sorted(set(schemas) - {version})
    lower, higher = [one for one in known if one < version], [one for one in known if one > version]
    judged = known if compat.endswith("_transitive") else [*lower[-1:], *higher[:1]]
    allowed = set(known if others is None else others)
    found: list[Break] = []
    for other in (one for one in judged if one in allowed):
        older, newer = min(other, version), max(other, version)
        are_neighbours = other in (*lower[-1:], *higher[:1])
        changes = compare(schemas[older], schemas[newer], are_neighbours=are_neighbours)
        found += _breaks(changes, older, newer, sides_of(compat), bridges)
    return found


def _breaks(
    changes: Iterable[Change], older: int, newer: int, sides: frozenset[Side], bridges: Bridges
) -> Iterable[Break]:
    bridged: dict[Side, bool] = {
        "backward": bridges.reach(older, newer),
        "forward": bridges.reach(newer, older),
    }
    for change in changes:
        for side in sorted(change.breaks & sides):
            if not bridged[side]:
                yield Break(older, newer, side, change)
