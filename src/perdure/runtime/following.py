"""Reads a stream along, page by page, for the lanes of a subscription that are this worker's.

Law: an event is found once for as long as its lane is here, and after all before it. Lanes need not be
equally far: it is read on after the one that is least far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..core.events import EventPage, EventRow, SubscriptionRow
from ..core.positions import gone_below
from ..stores.base import Store
from ..stores.streams import lane_of
from .lanes import Lane
from .pause import Pause
from .sweep import Sweep

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 1_000


class Page(Protocol):
    """Reads events of the stream above a position."""

    def __call__(self, store: Store, *, after: int, limit: int) -> EventPage: ...


class Following:
    """How far the stream has been read."""

    def __init__(
        self,
        driver: Driver,
        row: SubscriptionRow,
        lanes: dict[int, Lane],
        *,
        page: Page,
        look: Callable[[], None],
        found: Callable[[EventRow, Lane], None],
        passed: Callable[[], None],
    ) -> None:
        """`look` is called when there may be more, and calls `read_on` if it may be; `found` gets each
        event that is to be delivered, and `passed` is called at the end of a page."""
        self._driver = driver
        self._row = row
        self._lanes = lanes
        self._page = page
        self._look = look
        self._deliver = found
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self.after = 0
        """It has been read up to here, for the lane that is least far."""
        self.end_of_stream = 0
        """The last position in it, when it was read."""
        self._sweep = Sweep(driver.clock, self._write_passed)
        self._is_lost = False
        """Whether the next events have been let go by the stream: then a person must say where to go on."""
        self._is_reading = False
        self._look_again = False
        self._held_back = Pause(self._loop, look)
        """For events that may not be read yet: nobody tells when they may."""
        self._stopped = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read."""
        return not (self._is_reading or self._held_back.is_waiting)

    def turn(self) -> None:
        """Read next after the lane that is least far."""
        was_lost, self._is_lost = self._is_lost, False
        after = [lane.read_to for lane in self._lanes.values() if not lane.is_leaving]
        self.after = min(after, default=self.after)
        if was_lost:
            self._loop.call_soon(self._look)

    def read_on(self, room: int) -> None:
        """Read what is next, so many events at most; later, if it is being read or there is no room."""
        if self._is_lost:
            return
        if self._is_reading or room <= 0:
            self._look_again = True
            return
        self._is_reading = True
        page, after, limit = self._page, self.after, min(_PAGE, room)
        self._driver.reads.ask(
            lambda store: page(store, after=after, limit=limit),
            lambda found: self._found(found, asked_after=after),
        )

    def go_on(self) -> None:
        """There may be room again."""
        if self._look_again:
            self._look_again = False
            self._look()

    def _found(self, page: EventPage | Exception, *, asked_after: int) -> None:
        self._is_reading = False
        if self._stopped:
            return
        if isinstance(page, Exception):
            self._driver.complain(page, f"reading stream {self._row.stream!r}")
            return
        if page.gone > asked_after:
            self._is_lost = page.gone > self.after
            if not self._is_lost:  # the lane that is so far behind leaves
                self._loop.call_soon(self._look)
            else:
                lost = gone_below(f"{self._row.stream}/{self._row.name}", self.after, page.gone)
                self._driver.complain(lost, f"reading stream {self._row.stream!r}")
            return
        self._driver.horizon.note(self, self._row.stream, after=page.after, is_held_back=page.is_held_back)
        self.end_of_stream = page.last
        # One that was taken meanwhile may not be as far as where this page begins.
        lanes = {
            number: lane
            for number, lane in self._lanes.items()
            if lane.read_to >= asked_after and not lane.is_leaving
        }
        for event in page.events:
            lane = lanes.get(lane_of(event, self._row.lanes))
            if lane is not None and event.position > lane.read_to and lane.enter(event.position):
                self._deliver(event, lane)
        for lane in lanes.values():
            lane.pass_to(page.after)
        if any(lane.has_passed for lane in self._lanes.values()):
            self._sweep.begin()
        self.turn()
        self._passed()
        if page.after > asked_after or self._look_again:
            self._look_again = False
            self._held_back.reset()
            self._loop.call_soon(self._look)
        elif page.is_held_back:
            self._held_back.begin()

    def sweep(self) -> None:
        """Have written how far lanes have been read."""
        self._sweep.end()

    def _write_passed(self) -> None:
        for lane in self._lanes.values():
            if lane.has_passed:
                lane.is_dirty = True
                self._driver.committer.schedule()

    def end(self) -> None:
        """Read no more."""
        self._stopped = True
        self._sweep.cancel()
