"""`move`: the five steps, each of which may be the last that a process does. See the package."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ..errors import StoreCorrupt, StoreError
from ..stores.base import MoveCursor, MoveMark, MovePage, RunQuery, Store
from ..stores.moves import closed, refuse_other_mark
from ..stores.rows import Damage
from ..stores.stream_rows import EVENT_NUMBER
from .comparing import Counts, Part, compare, pages
from .marking import change, is_same, new_mark, opened, refuse_runs, refuse_strangers, refuse_workers

_DAMAGE_SHOWN = 20
_ALL = 1 << 30


class Step(StrEnum):
    """What `move` does, in this order."""

    READ = "read"
    """The whole source is read, to find what is damaged. Nothing is written yet."""
    CLOSING = "closing"
    """The source is closed to everybody else."""
    CLOSED = "closed"
    """The target is closed, too."""
    COPY = "copy"
    COMPARE = "compare"
    LEFT = "left"
    """The source is closed for good."""
    ARRIVED = "arrived"
    """The target is open."""


class Progress(NamedTuple):
    """How far a move has come."""

    step: Step
    done: int
    """Runs."""
    of: int
    """As far as is known; `done` may come to be more."""
    events: int = 0
    """Events of streams, which come after all runs."""


class Left(NamedTuple):
    """Something damaged that stays where it was: an id with all its generations, a reply, or an event."""

    id: str
    """Empty for a reply or an event."""
    what: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move has come to."""

    source: str
    """The URL of the store that was left, as it may be shown."""
    target: str
    runs: int
    """All generations counted, as is what follows. All are 0 if the move had been done before."""
    records: int
    messages: int
    replies: int
    streams: int
    events: int
    left: list[Left]
    was_done: bool
    """Whether there was nothing left to do: only the answer had not been heard."""


def move(
    from_url: str,
    to_url: str,
    *,
    leave_damaged: bool = False,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Moved:
    """Move all runs and event streams from one store to another, and close the first for good.

    Everything goes: finished runs and those under way, with their journals, attempts,
    states, tags, waiting messages and replies, under the same ids and numbers; and streams,
    with their events at the same positions, and how far each subscription is. The
    target is made if it is not there, and must be empty. What has arrived is read
    again and compared, one by one, before the first store is given up.

    A process that is killed, or an error, leaves the stores such that at most one can be
    written to: call it again with the same stores and it goes on, or call `abandon`.

    `leave_damaged`: runs and events that are damaged stay behind, instead of being refused.
    `progress` is called after each step, and each few hundred runs or events.

    Raises StoreInUse while a worker is alive on either; StoreCorrupt, before anything is
    written, if anything is damaged; StoreMoved for a store that is part of another move;
    StoreError for a target that is not empty, or has no room for the positions of the
    events; and whatever a store raises. It blocks: from
    async code, use `asyncio.to_thread`.
    """
    with opened(from_url, create=False) as source:
        refuse_workers(source)
        with opened(to_url, create=True) as target:
            return move_between(source, target, leave_damaged=leave_damaged, progress=progress)


def move_between(
    source: Store,
    target: Store,
    *,
    leave_damaged: bool = False,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Moved:
    """The same, between two stores that are open, though they may be closed by a move."""
    return _Move(source, target, progress, leave_damaged=leave_damaged).do()


class _Move:
    """One process's part in a move."""

    def __init__(
        self, source: Store, target: Store, progress: Callable[[Progress], object], *, leave_damaged: bool
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._leave_damaged = leave_damaged
        self._runs = 0
        """How many the source has."""
        self._damage: list[Damage] = []

    def do(self) -> Moved:
        source, target = self._source, self._target
        if source.address == target.address:
            raise StoreError(
                f"'{source.url}' and '{target.url}' are one and the same store. Nothing was moved.",
                hint="Name another file, or another ?schema= of the database.",
            )
        refuse_workers(source)
        refuse_workers(target)
        here, there = source.move_mark(), target.move_mark()
        if here is not None and here.stage == "moved":
            return self._end(here, there)
        refuse_strangers(source, here, target, there)
        refuse_runs(target, there)
        left, part = self._look_for_damage()
        here, there = self._close(here, there, anew=bool(part.ids))
        self._copy(there, part)
        counts = self._compare(here, there, part)
        self._tell(Step.COMPARE, counts.runs, counts.events)
        change(source, here, here._replace(stage="moved"))
        self._tell(Step.LEFT, counts.runs, counts.events)
        change(target, there, there._replace(stage="arrived"))
        self._tell(Step.ARRIVED, counts.runs, counts.events)
        return self._moved(counts, left)

    def _moved(self, counts: Counts, left: list[Left], *, was_done: bool = False) -> Moved:
        return Moved(
            self._source.url, self._target.url, counts.runs, counts.records, counts.messages, counts.replies,
            counts.streams, counts.events, left, was_done,
        )  # fmt: skip

    def _tell(self, step: Step, done: int, events: int = 0) -> None:
        self._progress(Progress(step, done, self._runs, events))

    def _tell_compared(self, counts: Counts) -> None:
        self._tell(Step.COMPARE, counts.runs, counts.events)

    # -- the marks -------------------------------------------------------------------------------

    def _end(self, here: MoveMark, there: MoveMark | None) -> Moved:
        """The source is given up already, so all had arrived: open the target, unless it is."""
        if there is None or not is_same(here, there):
            raise closed(here, self._source.url)
        if there.stage == "arriving":
            change(self._target, there, there._replace(stage="arrived"))
        elif there.is_closed:
            raise closed(there, self._target.url)
        return self._moved(Counts(), [], was_done=True)

    def _close(
        self, here: MoveMark | None, there: MoveMark | None, *, anew: bool
    ) -> tuple[MoveMark, MoveMark]:
        """Mark both; give the marks. `anew`: what has arrived before is not gone on with."""
        source, target = self._source, self._target
        is_under_way = here is not None and here.stage == "moving"
        moving = here._replace(turn=here.turn + 1) if here is not None and is_under_way else new_mark(target)
        arriving = moving._replace(stage="arriving", other=source.address)
        change(source, here, moving)
        self._tell(Step.CLOSING, 0)
        try:
            if there is not None and there.stage == "arriving" and (anew or not is_same(moving, there)):
                change(target, there, None)
                there = None
            change(target, there, arriving)
        except StoreError:
            if not is_under_way:
                with suppress(StoreError):  # what is raised says more; and `abandon` can do it later
                    change(source, moving, here)
            raise
        self._tell(Step.CLOSED, 0)
        return moving, arriving

    # -- the runs --------------------------------------------------------------------------------

    def _look_for_damage(self) -> tuple[list[Left], Part]:
        """Read all. Raises StoreCorrupt if anything is damaged that is not to be left."""
        self._runs = sum(self._source.counts().values())
        done = events = 0
        for page in pages(self._source, MoveCursor()):
            self._damage += page.damage
            done += len(page.runs)
            events += _events_in(page)
            self._tell(Step.READ, done, events)
        self._runs = done
        if self._damage and not (self._leave_damaged and all(wrong.can_stay for wrong in self._damage)):
            raise _damaged(self._source, self._damage)
        left = [self._name(wrong) for wrong in self._damage]
        ids = frozenset(each.id for each in left if each.id)
        return left, Part(ids, frozenset(number for id in ids for number in self._generations(id)))

    def _name(self, wrong: Damage) -> Left:
        # A list is not checked, and so finds what is damaged, too.
        query = RunQuery(all_generations=True, before=wrong.run + 1, limit=1)
        rows = self._source.list_runs(query) if wrong.run else []
        return Left(rows[0].id if rows else "", wrong.what)

    def _generations(self, id: str) -> list[int]:
        query = RunQuery(id_prefix=id, all_generations=True, limit=_ALL)
        return [row.number for row in self._source.list_runs(query) if row.id == id]

    def _copy(self, mark: MoveMark, part: Part) -> None:
        """Copy what has not arrived yet. Raises StoreCorrupt if something was damaged meanwhile."""
        done = events = 0
        for page in pages(self._source, self._target.arrived()):
            new = [wrong for wrong in page.damage if wrong not in self._damage]
            if new:
                raise _damaged(self._source, new)
            self._target.import_page(mark, part.of(page))
            done += len(page.runs)
            events += _events_in(page)
            self._tell(Step.COPY, done, events)

    def _compare(self, here: MoveMark, there: MoveMark, part: Part) -> Counts:
        """Compare what has arrived. Raises StoreCorrupt if it differs, StoreMoved if it was abandoned."""
        try:
            return compare(self._source, self._target, part, self._tell_compared)
        except StoreCorrupt:
            refuse_other_mark(self._source.move_mark(), here, self._source.url)
            refuse_other_mark(self._target.move_mark(), there, self._target.url)
            raise


def _events_in(page: MovePage) -> int:
    return len(page.rows) if page.kind == EVENT_NUMBER else 0


def _damaged(source: Store, damage: list[Damage]) -> StoreCorrupt:
    shown = " ".join(wrong.what for wrong in damage[:_DAMAGE_SHOWN])
    more = f" And {len(damage) - _DAMAGE_SHOWN:,} more." if len(damage) > _DAMAGE_SHOWN else ""
    can_stay = all(wrong.can_stay for wrong in damage)
    leave = "; or move the others with --leave-damaged: these then stay behind, in the store that is closed."
    return StoreCorrupt(
        f"Store '{source.url}' is damaged, so its runs are not moved: {shown}{more}",
        hint=f"Restore a backup{leave if can_stay else ': what windows have counted cannot be left behind.'}",
    )
