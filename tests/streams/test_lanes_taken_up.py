"""A lane that is taken up while a page is being read: what it is behind by is delivered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from perdure import Stream
from perdure.core.events import EventPage, EventRow, LaneRow, SubscriptionRow
from perdure.runtime.floor import Floor
from perdure.runtime.horizon import Horizon
from perdure.runtime.joiner import Joiner
from perdure.runtime.windower import Windower
from perdure.stores.base import Batch
from perdure.stores.streams import lane_of_key
from perdure.testing.clock import START_MS, ManualClock

ROW = SubscriptionRow(1, "orders", "note", 2)


class SlowReads:
    """Reads that are answered when the test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[Any], Any], Callable[[Any], None]]] = []

    def ask(self, look: Callable[[Any], Any], then: Callable[[Any], None], doing: str = "") -> None:
        self.asked.append((look, then))

    ask_again = ask

    def answer(self, events: dict[str, list[EventRow]], *, gone: int = 0) -> None:
        """All that were asked till now, in their order; events up to `gone` are not kept any more."""

        def page(stream: str, *, after: int, limit: int) -> EventPage:
            if stream in events and after < gone:
                return EventPage([], after, gone=gone)
            found = [one for one in events.get(stream, []) if one.position > after]
            return EventPage(found, found[-1].position if found else after)

        asked, self.asked = self.asked, []
        for look, then in asked:
            then(look(SimpleNamespace(streams=SimpleNamespace(events=page, windows=lambda number: []))))


def key_of_lane(lane: int) -> str:
    return next(key for key in map(str, range(100)) if lane_of_key(key, 0, 2) == lane)


@dataclass(frozen=True)
class Hit:
    page: str


EVENTS = [
    EventRow(
        position,
        f"{position}",
        "",
        "Hit",
        1,
        key_of_lane(position % 2),
        START_MS,
        START_MS,
        "",
        b'{"page":"x"}',
    )
    for position in range(1, 7)
]
"""Those of lanes 1 and 0 in turn."""


async def test_windows_of_a_lane_that_is_taken_up_while_a_page_is_read_miss_nothing() -> None:
    clock, reads, fillers = ManualClock(), SlowReads(), list[Any]()
    hits: Stream[Hit] = Stream("hits-of-lanes", Hit, key=lambda hit: hit.page)
    other: Stream[Hit] = Stream("other-hits-of-lanes", Hit, key=lambda hit: hit.page)
    counted = hits.window(tumbling=3600, initial=0, name="counted")(lambda count, event: count + 1)
    paired = hits.join(Hit, other, Hit, name="pairs", within=60)
    committer = SimpleNamespace(fillers=fillers, schedule=lambda: None)
    driver: Any = SimpleNamespace(committer=committer, reads=reads, clock=clock, floor=Floor(clock))
    driver.horizon = Horizon(driver.clock, driver.reads, lambda error, doing: None)

    for made in (Windower(driver, counted, ROW), Joiner(driver, paired, ROW)):
        made.take([LaneRow(1, 0, 4, (), ())])
        reads.answer({})
        asked, reads.asked = reads.asked, []
        made.take([LaneRow(1, 1, 0, (), ())])
        reads.answer({})
        reads.asked = asked
        for _ in range(9):
            reads.answer({hits.name: EVENTS})
            await asyncio.sleep(0)

    for fill in fillers:
        fill(batch := Batch())
        found = {change.lane: sum(row.events for row in change.windows) for change in batch.windows}
        assert found == {0: 1, 1: 3}


async def test_lanes_that_are_given_up_go_with_what_was_taken_of_them_and_take_no_more() -> None:
    clock, reads, fillers = ManualClock(), SlowReads(), list[Any]()
    hits: Stream[Hit] = Stream("hits-given-up", Hit, key=lambda hit: hit.page)
    other: Stream[Hit] = Stream("other-hits-given-up", Hit, key=lambda hit: hit.page)
    counted = hits.window(tumbling=3600, initial=0, name="counted")(lambda count, event: count + 1)
    paired = hits.join(Hit, other, Hit, name="given-up", within=60)
    committer = SimpleNamespace(fillers=fillers, schedule=lambda: None)
    driver: Any = SimpleNamespace(committer=committer, reads=reads, clock=clock, floor=Floor(clock))
    driver.horizon = Horizon(driver.clock, driver.reads, lambda error, doing: None)

    for made in (Windower(driver, counted, ROW), Joiner(driver, paired, ROW)):
        made.take([LaneRow(1, 0, 0, (), ()), LaneRow(1, 1, 0, (), ())])
        for events in (EVENTS[:4], EVENTS[:4], EVENTS[:4]):
            reads.answer({hits.name: events})
            await asyncio.sleep(0)
        made.keep(1)
        for _ in range(3):
            made.look()
            reads.answer({hits.name: EVENTS})
            await asyncio.sleep(0)

    for fill in fillers:
        fill(batch := Batch())
        found = {change.lane: sum(row.events for row in change.windows) for change in batch.windows}
        assert found == {0: 3, 1: 2}
        assert {(mark.lane, mark.is_given_up) for mark in batch.lanes} == {(0, False), (1, True)}


@pytest.mark.parametrize("leaves_before", [True, False], ids=["it has left", "it leaves then"])
async def test_lanes_go_on_when_only_one_that_leaves_would_need_what_the_stream_let_go_of(
    leaves_before: bool,
) -> None:
    clock, reads, fillers = ManualClock(), SlowReads(), list[Any]()
    hits: Stream[Hit] = Stream(f"hits-let-go-{leaves_before}", Hit, key=lambda hit: hit.page)
    other: Stream[Hit] = Stream(f"other-let-go-{leaves_before}", Hit, key=lambda hit: hit.page)
    counted = hits.window(tumbling=3600, initial=0, name="counted")(lambda count, event: count + 1)
    paired = hits.join(Hit, other, Hit, name="let-go", within=60)
    errors = list[BaseException]()
    committer = SimpleNamespace(fillers=fillers, schedule=lambda: None)
    driver: Any = SimpleNamespace(committer=committer, reads=reads, clock=clock, floor=Floor(clock))
    driver.complain = lambda error, doing: errors.append(error)
    driver.horizon = Horizon(driver.clock, driver.reads, lambda error, doing: None)

    for made in (Windower(driver, counted, ROW), Joiner(driver, paired, ROW)):
        made.take([LaneRow(1, 0, 4, (), ()), LaneRow(1, 1, 0, (), ())])
        reads.answer({})
        if leaves_before:
            made.keep(1)
        for _ in range(3):
            reads.answer({hits.name: EVENTS}, gone=3)
            await asyncio.sleep(0)
        if not leaves_before:
            made.keep(1)
        for _ in range(3):
            reads.answer({hits.name: EVENTS}, gone=3)
            await asyncio.sleep(0)

    for fill in fillers:
        fill(batch := Batch())
        assert {change.lane: sum(row.events for row in change.windows) for change in batch.windows} == {
            0: 1, 1: 0,
        }  # fmt: skip
    assert len(errors) == (0 if leaves_before else 2)
