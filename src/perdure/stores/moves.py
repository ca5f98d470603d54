"""What the stores share of moving: what a mark means to others, and how much goes into a page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from ..errors import StoreCorrupt, StoreError, StoreInUse, StoreMoved
from .base import MoveMark, Store
from .rows import Damage

K = TypeVar("K", int, str)
V = TypeVar("V")

ROW_BYTES = 100
"""What a row counts for in a page beside its payload; written out in the statements, too."""


def refuse_closed(mark: MoveMark | None, url: str) -> None:
    """Raise StoreMoved if the mark closes the store to all but its move."""
    if mark is not None and mark.is_closed:
        raise closed(mark, url)


def refuse_closed_store(store: Store) -> None:
    """The same, for who has the store open."""
    refuse_closed(store.move_mark(), store.url)


def closed(mark: MoveMark, url: str) -> StoreMoved:
    """The error for who wants to use a store that the mark closes."""
    at = datetime.fromtimestamp(mark.at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if mark.stage == "moved":
        return StoreMoved(
            f"The runs of store '{url}' were moved to '{mark.other}' (at {at}), so this one is closed.",
            other=mark.other,
            hint=f"Use {mark.other} from now on.",
        )
    if mark.stage == "moving":
        return StoreMoved(
            f"The runs of store '{url}' are being moved to '{mark.other}' (since {at}), so it is closed.",
            other=mark.other,
            hint="Wait for the move to end, then use the other one. If it was broken off, run the same "
            "`perdure move` again, or once with --abandon to stay here.",
        )
    return StoreMoved(
        f"Store '{url}' cannot be used yet: runs of '{mark.other}' are being moved to it (since {at}).",
        other=mark.other,
        hint="Wait for the move to end. If it was broken off, run the same `perdure move` again.",
    )


def refuse_other_mark(found: MoveMark | None, wanted: MoveMark | None, url: str) -> None:
    """Raise StoreMoved unless the mark is the one that the move left there."""
    if found == wanted:
        return
    stands = "no move any more" if found is None else f"one that is {found.stage}, turn {found.turn}"
    raise StoreMoved(
        f"The move of store '{url}' is in other hands: the store tells of {stands}. Nothing was written.",
        other=(found or wanted or MoveMark("moved", "", 0, "", 0)).other,
        hint="Another `perdure move` went on with it, or it was abandoned. See what that one says.",
    )


def in_use(workers: Iterable[tuple[str, int]], url: str) -> StoreInUse:
    """The error for a mark that cannot be changed while workers, with their processes, are alive."""
    names = ", ".join(f"'{name}' (process {process})" for name, process in workers)
    return StoreInUse(
        f"Store '{url}' has workers that are alive: {names}. Nothing was moved.",
        hint="Stop them first: runs move between two stores that nobody works on.",
    )


def not_empty(url: str) -> StoreError:
    """The error for a store that cannot be moved to."""
    return StoreError(
        f"Store '{url}' has runs of its own, or streams, and runs are moved to an empty store only: their "
        "numbers and ids could be the same. Nothing was moved.",
        hint="Name another file, or another ?schema= of the database.",
    )


def first_within(sizes: Iterable[tuple[K, int]], bytes_max: int) -> list[K]:
    """The first ones that together have at most so many bytes; one at least."""
    chosen: list[K] = []
    for key, size in sizes:
        bytes_max -= size
        if chosen and bytes_max < 0:
            break
        chosen.append(key)
    return chosen


def load_undamaged(keys: Sequence[K], load: Callable[[Sequence[K]], list[V]]) -> tuple[list[V], list[Damage]]:
    """Load all at once; or, if any is damaged, one by one, with a sentence for each that is."""
    try:
        return load(keys), []
    except StoreCorrupt as error:
        if len(keys) == 1:
            return [], [_damage(keys[0], error.what)]
    loaded: list[V] = []
    damage: list[Damage] = []
    for key in keys:
        one, wrong = load_undamaged([key], load)
        loaded += one
        damage += wrong
    return loaded, damage


def _damage(key: int | str, what: str) -> Damage:
    return Damage(key, what) if isinstance(key, int) else Damage(0, what)
