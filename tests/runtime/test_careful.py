"""Events that workers may have died of have their turns, where events are taken page by page."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure.core.events import LaneRow, LaneWatch
from perdure.runtime.careful import Careful
from perdure.runtime.floor import Floor
from perdure.runtime.lanes import Lane
from perdure.testing.clock import ManualClock

SUSPECT, NEXT = 5, 6


@dataclass
class Reader:
    """Whoever takes pages; and how often it was asked for a commit, and to look."""

    floor: Floor
    lane: Lane = field(
        default_factory=lambda: Lane(
            LaneRow(1, 0, 4, (), (), LaneWatch(1, 0, crashes=1, until=NEXT, suspects=((SUSPECT, 1),)))
        )
    )
    commits: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self.careful = Careful(self.floor, schedule=self._commit, look=self._look)

    def _commit(self) -> None:
        self.commits += 1

    def _look(self) -> None:
        self.looks += 1

    def read(self) -> list[int]:
        """Which events of a page of two are taken."""
        if not self.careful.begin_page():
            return []
        taken = [position for position in (SUSPECT, NEXT) if self.careful.may_take(self.lane, position)]
        for position in taken:
            self.careful.taken(self.lane, position)
        self.careful.end_page([self.lane], NEXT)
        return taken

    def write(self) -> list[LaneWatch]:
        """The commit that was asked for."""
        watches, are_marked = self.careful.fill([self.lane])
        if are_marked:
            self.careful.written()
        return watches


async def test_a_suspect_begins_when_what_runs_beside_it_has_ended_and_not_before() -> None:
    floor = Floor(ManualClock())
    floor.enter(floor, 1)
    reader = Reader(floor)

    beside = reader.read(), reader.write(), floor.is_tense, reader.careful.waits
    floor.leave(floor, 1)
    alone = [watch.begun for watch in reader.write()]

    assert beside == ([], [], True, True)
    assert alone == [(SUSPECT,)]
    assert reader.read() == [SUSPECT]


async def test_nothing_else_begins_before_it_is_on_disk_that_a_suspect_was_survived() -> None:
    floor = Floor(ManualClock())
    reader, other = Reader(floor), Reader(floor)

    reader.read()
    reader.write()
    taken = reader.read()
    before = floor.is_tense, other.read()
    (survived,) = reader.write()
    after = floor.is_tense, reader.careful.waits

    assert (taken, before) == ([SUSPECT], (True, []))
    assert (survived.begun, survived.suspects) == ((), ())
    assert after == (False, False)
