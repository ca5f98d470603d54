"""Which events of lanes that workers died with may be taken now, where events are taken page by page.

Law: an event of a watched lane is taken when it is on disk that it is in hand; a suspect, of which workers
died perhaps, when nothing else runs. So whichever worker it kills next, it is known which event it was.
While no worker has died all are taken as they come, and nothing is written for this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..core.events import LaneWatch
from ..stores.dead import DEATHS_BEFORE_PARKING
from .floor import Floor
from .lanes import Lane

Place = tuple[Lane, int]
"""An event, by its lane and position."""


class Careful:
    """Asked about each event of a page, in order. What has to wait is held back, and comes again."""

    def __init__(self, floor: Floor, *, schedule: Callable[[], None], look: Callable[[], None]) -> None:
        """`schedule` brings a commit about; `look` has the next page read."""
        self._floor = floor
        self._schedule = schedule
        self._look = look
        self._marked: dict[int, Lane] = {}
        """By position, what is in hand, on disk or as soon as what is awaited is there."""
        self._is_marking = False
        """Whether it is awaited that marks are on disk, or that a suspect was let go."""
        self._is_unfilled = False
        """Whether they are in no commit yet."""
        self._suspect: Place | None = None
        """It waits until nothing else runs, or has its turn."""
        self._is_alone = False
        """Whether it has its turn."""
        self._is_survived = False
        """Whether it was taken, and is to be let go on disk."""
        self._found: Place | None = None
        """This page's first suspect."""
        self._only: Place | None = None
        """What of this page may be taken, if that is one event alone."""
        self._held: dict[int, int] = {}
        """By lane, this page's first event that has to wait."""
        self._closed: set[int] = set()
        """Lanes of which nothing more of this page is marked: a suspect comes first."""
        floor.join(self, lambda: self._suspect is not None and not self._is_alone, self._pump)

    @property
    def waits(self) -> bool:
        """Whether there is no use in reading on before marks are on disk, or a suspect has its turn."""
        return self._is_marking or (self._suspect is not None and not self._is_alone)

    def begin_page(self) -> bool:
        """Whether anything may be taken now: nothing beside another's suspect."""
        self._held, self._closed, self._found = {}, set(), None
        self._only = self._suspect if self._is_alone else None
        return self._is_alone or not self._floor.is_tense

    def may_take(self, lane: Lane, position: int) -> bool:
        """Whether to take an event now; else all that come after it in its lane are held back, too."""
        if lane.number in self._held:
            self._hold(lane, position)
            return False
        if self._only is not None:
            may = self._only == (lane, position)
        else:
            may = not lane.is_watched or position in self._marked or self.is_killer(lane, position)
        if not may:
            self._held[lane.number] = position
            self._hold(lane, position)
        return may

    def _hold(self, lane: Lane, position: int) -> None:
        if self._only is not None or lane.number in self._closed:
            return
        if lane.deaths(position):
            self._closed.add(lane.number)
            self._found = self._found or (lane, position)
        elif position not in self._marked:
            self._mark(lane, position)

    def is_killer(self, lane: Lane, position: int) -> bool:
        """Whether so many workers died of the event that it is parked."""
        return lane.deaths(position) >= DEATHS_BEFORE_PARKING

    def taken(self, lane: Lane, position: int) -> None:
        """It was, or it was parked; and the worker lives."""
        self._marked.pop(position, None)
        lane.let_go(position)
        if self._suspect == (lane, position):
            # Until that is on disk: who dies of another event before would be laid to this one.
            self._is_survived = self._is_marking = self._is_unfilled = True

    def end_page(self, lanes: Collection[Lane], after: int) -> dict[int, int]:
        """The page went up to `after`. Gives, by lane, where those are that hold something back."""
        stands = {number: position - 1 for number, position in self._held.items()}
        for lane in lanes:
            lane.pass_to(stands.get(lane.number, after))
            lane.see_whether_over()
        if self._found is not None and not self._is_marking and self._suspect is None:
            self._suspect = self._found
            self._pump_suspect()
        if any(lane.is_news for lane in lanes):
            self._schedule()
        return stands

    def drop(self, leaving: Collection[Lane]) -> None:
        """These lanes go to another worker, and what is in hand of them."""
        self._marked = {position: lane for position, lane in self._marked.items() if lane not in leaving}
        if self._suspect is not None and self._suspect[0] in leaving:
            self._end_suspect()

    def end(self) -> None:
        """Nothing is taken any more: others need not wait."""
        self._floor.part(self)

    def fill(self, lanes: Collection[Lane]) -> tuple[list[LaneWatch], bool]:
        """What a commit is to have, and whether the marks that are awaited are in it."""
        are_filled, self._is_unfilled = self._is_unfilled, False
        return [lane.watch() for lane in lanes if lane.is_news], are_filled

    def written(self) -> None:
        """The marks are on disk."""
        self._is_marking = False
        if self._is_survived:
            self._end_suspect()
        self._look()

    # -- turns -------------------------------------------------------------------------------------

    def _mark(self, lane: Lane, position: int) -> None:
        lane.begin(position)
        self._marked[position] = lane
        self._is_marking = self._is_unfilled = True

    def _pump(self) -> None:
        """Whoever was alone has had its turn."""
        self._pump_suspect()
        if not self.waits:
            self._look()

    def _pump_suspect(self) -> None:
        if self._suspect is None or self._is_alone or not self._floor.is_empty:
            return
        self._is_alone = True
        position = self._suspect[1]
        self._floor.enter(self, position, alone=f"the event at {position}")
        self._mark(*self._suspect)
        self._schedule()

    def _end_suspect(self) -> None:
        ended, self._is_alone, self._suspect = self._suspect, False, None
        self._is_survived = False
        if ended is not None:
            self._floor.leave(self, ended[1])
