"""`abandon`: a move that was broken off is undone, as long as its runs are still at home where they were."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import StoreMoved, StoreUnavailable
from ..stores.base import MoveMark, Store
from ..stores.opening import without_secret
from .marking import change, is_same, opened, refuse_strangers


@dataclass(frozen=True, slots=True)
class Abandoned:
    """What was undone."""

    source: str
    """The URL of the store that the runs are in, as it may be shown."""
    target: str
    """That of the other store; as it was given, if it could not be opened."""
    reopened: bool
    """Whether the source had been closed."""
    cleared: bool
    """Whether the target had been closed; what had arrived there is removed."""
    trouble: str
    """Why the target could not be cleared; it stays closed. Empty: no trouble."""


def abandon(from_url: str, to_url: str) -> Abandoned:
    """Undo a move that was broken off: open the source again, and clear the target.

    Does nothing where there is nothing to undo. A target that cannot be opened is left as
    it is: closed. A crash in between leaves the source open, or both closed; call it again.

    Raises StoreMoved once the source has been given up (then only `move` itself goes on) or
    if the source is part of another move, and whatever a store raises.
    """
    with opened(from_url, create=False) as source:
        here = source.move_mark()
        try:
            with opened(to_url, create=False) as target:
                return abandon_between(source, target)
        except StoreUnavailable as error:
            # Whether there is no such target, or it is not reached: the source decides alone.
            if here is None or here.stage != "moving" or source.move_mark() != here:
                raise
            change(source, here, None)
            return Abandoned(
                source.url, without_secret(to_url), reopened=True, cleared=False, trouble=error.what
            )


def abandon_between(source: Store, target: Store) -> Abandoned:
    """The same, between two stores that are open, though they may be closed by a move."""
    here, there = source.move_mark(), target.move_mark()
    is_arrived = there is not None and there.stage == "arrived" and is_same(here, there)
    if here is not None and (here.stage == "moved" or is_arrived):
        # That it has arrived, and the source does not know, is so if that is an old copy of itself.
        raise _too_late(source, here)
    refuse_strangers(source, here, target, there)
    reopened = here is not None and here.stage == "moving"
    if reopened:
        change(source, here, None)
    # Only now: until the source is open, somebody could still go on with the move.
    cleared = there is not None and there.stage == "arriving"
    if cleared:
        change(target, there, None)
    return Abandoned(source.url, target.url, reopened=reopened, cleared=cleared, trouble="")


def _too_late(source: Store, mark: MoveMark) -> StoreMoved:
    return StoreMoved(
        f"The move of store '{source.url}' to '{mark.other}' cannot be abandoned: its runs are there.",
        other=mark.other,
        hint="Run the same `perdure move` without --abandon: it ends the move if need be. Then move them "
        "back, to a new store.",
    )
