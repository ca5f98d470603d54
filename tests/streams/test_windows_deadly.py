"""An event at which a function over windows kills its worker is parked; all others are in their windows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import Aggregation, Event, Stream
from perdure.core.events import DeadKind
from perdure.stores.base import Batch
from perdure.testing import Harness
from tests.streams.events import Placed, parked

Orders = Stream[Placed]
HOUR = timedelta(hours=1)
EVENTS = 230
"""More than a page."""
LIVES_MAX = 10
only_sqlite = pytest.mark.parametrize("harness", ["sqlite"], indirect=True)


@pytest.fixture
def orders(name: str) -> Orders:
    return Stream(name, Placed, key=lambda one: one.order)


class Deadly:
    """Counts events by the hour, in a process that dies at some of them: then nothing more is written."""

    def __init__(self, harness: Harness, orders: Orders, *killers: int, times: int = 100) -> None:
        self._harness = harness
        self._killers = killers
        self._times = times
        self.has_died = False
        self.deaths = 0
        self.folds = 0
        self.beside: set[str] = set()
        """What is in hand of a handler."""
        self.deaths_beside: list[set[str]] = []
        self.hourly: Aggregation[Any, Any] = orders.window(initial=0, tumbling=HOUR, name="count")(
            self._count
        )

    def _count(self, total: int, event: Event[Placed]) -> int:
        self.folds += 1
        if event.data.amount in self._killers and not self.has_died and self.deaths < self._times:
            self.die()
        return total + 1

    def die(self) -> None:
        self.has_died = True
        self.deaths += 1
        self.deaths_beside.append(set(self.beside))
        self._harness.store.kill()

    async def live(self, is_over: Callable[[], bool]) -> int:
        """How often it dies until that is reached."""
        for deaths in range(LIVES_MAX):
            await self._harness.until(lambda: self.has_died or is_over())
            if not self.has_died:
                return deaths
            await self.die_once()
        raise AssertionError("it dies again and again")

    async def die_once(self) -> None:
        """Until it has; then another is open."""
        await self._harness.until(lambda: self.has_died)
        await self._harness.kill()
        self.has_died = False
        self.beside.clear()
        await self._harness.open()

    def counted(self) -> Counter[str]:
        page = self._harness.store.store.streams.events(self.hourly.results.name, after=0, limit=1_000)
        found = Counter[str]()
        for one in map(self.hourly.results.decode, page.events):
            found[one.key] += one.value
        return found


def some(count: int) -> list[Placed]:
    return [Placed(f"key-{amount % 23}", amount) for amount in range(count)]


async def until_parked(harness: Harness, orders: Orders, deadly: Deadly, *killers: int) -> int:
    """How often it dies until these are parked, and all else is in a window."""

    def is_over() -> bool:
        dead = harness.store.store.streams.dead
        known = harness.store.store.streams.subscriptions()
        rows = [row for row in known if (row.stream, row.name) == (orders.name, "count")]
        return bool(rows) and dead.counts(rows[0].number) == {int(DeadKind.CRASHED): len(killers)}

    deaths = await deadly.live(is_over)
    await harness.advance(hours=3)
    await harness.settle()
    assert await parked(harness, orders.name, "count") == [(n + 1, DeadKind.CRASHED) for n in killers]
    return deaths


@pytest.mark.parametrize("killer", [7, 211])
async def test_an_event_of_which_three_workers_died_is_parked_and_in_no_window(
    harness: Harness, orders: Orders, killer: int
) -> None:
    deadly = Deadly(harness, orders, killer)
    await harness.append_batch(orders, some(EVENTS))

    deaths = await until_parked(harness, orders, deadly, killer)

    wanted = Counter(one.order for one in some(EVENTS) if one.amount != killer)
    assert deaths == 3
    assert deadly.counted() == wanted
    (dead,) = await harness.subscription(deadly.hourly).parked()
    assert (dead.reason, dead.attempts) == ("crashed", 3)


@only_sqlite
@pytest.mark.parametrize("killers", [(3, 5, 222), (7, 203)])
async def test_each_of_several_killers_is_found(
    harness: Harness, orders: Orders, killers: tuple[int, ...]
) -> None:
    deadly = Deadly(harness, orders, *killers)
    await harness.append_batch(orders, some(EVENTS))

    await until_parked(harness, orders, deadly, *killers)

    assert deadly.counted() == Counter(one.order for one in some(EVENTS) if one.amount not in killers)


@only_sqlite
async def test_a_suspect_is_taken_when_no_handler_runs(harness: Harness, orders: Orders) -> None:
    deadly = Deadly(harness, orders, 7)
    await harness.append_batch(orders, some(EVENTS))
    await deadly.live(lambda: deadly.deaths == 2)

    @orders.on(concurrency=4)  # it comes when there are suspects already, and has none of its own
    async def beside(event: Event[Placed]) -> None:
        deadly.beside.add(event.position)
        for _ in range(20_000 if event.data.amount == 0 else 0):
            await asyncio.sleep(0)
        deadly.beside.discard(event.position)

    await until_parked(harness, orders, deadly, 7)

    assert deadly.deaths_beside[-1] == set()
    assert await parked(harness, orders.name, "beside") == []


@only_sqlite
async def test_no_suspect_is_blamed_for_what_came_later_in_another_lane(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(harness, orders, 7, 100)
    await harness.append_batch(orders, [Placed("a", amount) for amount in range(20)])
    for _ in range(2):
        await deadly.die_once()

    await harness.append(orders, Placed("b", 100))  # the worker of now has suspects to begin with

    await until_parked(harness, orders, deadly, 7, 20)


@only_sqlite
async def test_nothing_is_put_into_windows_beside_a_suspect_of_a_handler(
    harness: Harness, orders: Orders
) -> None:
    hangs, looks = asyncio.Event(), list[int]()

    @orders.on()
    async def suspicious(event: Event[Placed]) -> None:
        looks.append(deadly.folds if deadly else 0)
        await hangs.wait()
        looks.append(deadly.folds if deadly else 0)

    deadly: Deadly | None = None
    await harness.append(orders, Placed("a", 1))
    for _ in range(2):
        await harness.until(lambda: looks)
        await harness.crash()
        looks.clear()
    await harness.until(lambda: looks)
    looks.clear()
    deadly = Deadly(harness, orders)
    await harness.append_batch(orders, some(5))
    await harness.settle()
    hangs.set()
    await harness.settle()

    assert looks[0] == 0
    assert deadly.folds > 0


@only_sqlite
async def test_nothing_is_written_of_what_is_in_hand_while_no_worker_has_died(
    harness: Harness, orders: Orders
) -> None:
    written = list[object]()

    def note(batch: Batch) -> None:
        written.extend(batch.watches)

    deadly = Deadly(harness, orders)
    await harness.open_once()
    harness.store.before_commit = note
    await harness.append_batch(orders, some(EVENTS))
    await harness.advance(hours=3)
    await harness.settle()

    assert written == []
    assert deadly.counted() == Counter(one.order for one in some(EVENTS))


@only_sqlite
async def test_after_one_death_all_is_taken_and_nothing_more_is_written(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(harness, orders, 7, times=1)
    await harness.append_batch(orders, some(EVENTS))
    await deadly.live(lambda: deadly.deaths == 1)
    await harness.settle()
    written = list[object]()
    harness.store.before_commit = lambda batch: written.extend(batch.watches)

    await harness.append_batch(orders, some(10))
    await harness.advance(hours=3)
    await harness.settle()

    assert written == []
    assert deadly.counted() == Counter(one.order for one in [*some(EVENTS), *some(10)])
