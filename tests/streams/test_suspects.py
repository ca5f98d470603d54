"""An event that kills its worker is found and parked; those that were in hand beside it are not."""

from __future__ import annotations

import asyncio
from collections import Counter

from perdure import Event, Retry, Stream, WorkerKilled
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked

Orders = Stream[Placed | Paid]
KILLER = 7


class Deadly:
    """A handler of which the process dies at one event: it never returns, and the test crashes the engine."""

    def __init__(self, orders: Orders, *killers: int, **options: int) -> None:
        self.begun = list[int]()
        self.done = list[int]()
        self.dies = asyncio.Event()
        self.hangs = asyncio.Event()
        self._killers = killers

        @orders.on(**options)  # pyright: ignore[reportArgumentType]
        async def note(event: Event[Placed]) -> None:
            self.begun.append(event.data.amount)
            if event.data.amount in self._killers:
                self.dies.set()
                await asyncio.Event().wait()
            self.done.append(event.data.amount)

        self.handler = note

    async def lives(self, harness: Harness, most: int = 10) -> int:
        """How often it dies until nothing is left to do."""
        for life in range(most):
            await harness.settle()
            if not self.dies.is_set():
                return life
            self.dies.clear()
            await harness.crash()
        raise AssertionError("it dies again and again")


async def test_an_event_that_kills_its_worker_three_times_is_parked_and_no_other(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(orders, KILLER)
    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(20)])

    lives = await deadly.lives(harness)

    assert lives == 3
    assert await parked(harness, orders.name, "note") == [(KILLER + 1, DeadKind.CRASHED)]
    assert set(deadly.done) == set(range(20)) - {KILLER}
    (dead,) = await harness.subscription(deadly.handler).parked()
    assert (dead.reason, dead.attempts) == ("crashed", 3)
    assert dead.error.startswith(f"{WorkerKilled.__name__}: 3 workers died")


async def test_its_key_is_parked_with_it_and_others_flow(harness: Harness, orders: Orders) -> None:
    deadly = Deadly(orders, 1)
    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2), Placed("b", 3)])

    await deadly.lives(harness)

    assert await parked(harness, orders.name, "note") == [(1, DeadKind.CRASHED), (2, DeadKind.BEHIND)]
    assert set(deadly.done) == {3}


async def test_two_that_kill_are_both_found_and_no_other(harness: Harness, orders: Orders) -> None:
    deadly = Deadly(orders, 3, 11)
    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(20)])

    await deadly.lives(harness)

    assert await parked(harness, orders.name, "note") == [(4, DeadKind.CRASHED), (12, DeadKind.CRASHED)]
    assert set(deadly.done) == set(range(20)) - {3, 11}


async def test_a_suspect_is_handled_alone_and_the_others_after_it(harness: Harness, orders: Orders) -> None:
    at_once, most, dies = 0, 0, True
    begun = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        nonlocal at_once, most
        begun.append(event.data.amount)
        at_once += 1
        most = max(most, at_once)
        if dies:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        at_once -= 1

    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(5)])
    for _ in range(2):
        await harness.until(lambda: len(begun) == 5)
        begun.clear()
        await harness.kill()
        if _ == 1:
            dies, at_once, most = False, 0, 0
        await harness.open()
    await harness.settle()

    assert (sorted(begun), most) == ([0, 1, 2, 3, 4], 1)
    assert await parked(harness, orders.name, note.name) == []


async def test_workers_that_are_killed_from_outside_park_nothing(harness: Harness, orders: Orders) -> None:
    handled, gate = Counter[int](), asyncio.Event()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        if event.data.amount % 5 == 0:
            await gate.wait()
        handled[event.data.amount] += 1

    for life in range(6):
        await harness.append_batch(orders, [Placed(f"{life}-{n}", 10 * life + n) for n in range(10)])
        await harness.settle()
        gate.set()
        await harness.settle()
        gate.clear()
        await harness.append_batch(orders, [Placed(f"{life}-{n}+", 100 + 10 * life + n) for n in range(10)])
        await harness.settle()
        await harness.crash()
        gate.set()
        await harness.settle()
        gate.clear()

    assert set(handled) == {*range(60), *range(100, 160)}
    assert await parked(harness, orders.name, note.name) == []


async def test_a_worker_that_closes_in_good_order_is_no_death(harness: Harness, orders: Orders) -> None:
    begun = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        begun.append(event.data.amount)
        await asyncio.Event().wait()

    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    for life in range(1, 6):
        await harness.until(lambda life=life: len(begun) == 2 * life)
        await harness.restart()

    assert await parked(harness, orders.name, note.name) == []
    assert begun == [1, 2] * 5 or sorted(begun) == [1] * 5 + [2] * 5


async def test_a_suspect_of_one_handler_is_not_tried_beside_events_of_another(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(orders, 3)
    beside = list[int]()

    @orders.on(retry=Retry(delay=1))
    async def other(event: Event[Placed]) -> None:
        beside.append(event.data.amount)

    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(6)])
    await deadly.lives(harness)

    assert await parked(harness, orders.name, "note") == [(4, DeadKind.CRASHED)]
    assert await parked(harness, orders.name, other.name) == []
    assert set(beside) == set(range(6))


async def test_an_event_that_was_redriven_after_it_killed_gets_its_chances_again(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(orders, 1)
    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    await deadly.lives(harness)

    deadly._killers = ()  # pyright: ignore[reportPrivateUsage]
    await harness.subscription(deadly.handler).redrive()
    await harness.until(lambda: 1 in deadly.done)
    await harness.settle()

    assert await parked(harness, orders.name, "note") == []


async def test_others_wait_for_a_suspect_that_hangs_no_longer_than_a_lease_and_it_stays_one(
    harness: Harness, orders: Orders
) -> None:
    deadly = Deadly(orders, 1)
    await harness.append(orders, Placed("a", 1))
    for _ in range(2):
        await harness.until(deadly.dies.is_set)
        deadly.dies.clear()
        await harness.crash()
    await harness.until(deadly.dies.is_set)

    await harness.append(orders, Placed("b", 2))
    await harness.settle()
    before = list(deadly.done)
    await harness.advance(seconds=16)
    await harness.until(lambda: deadly.done)
    deadly.dies.clear()
    await harness.crash()
    await deadly.lives(harness)

    assert (before, deadly.done) == ([], [2])
    assert deadly.begun.count(1) == 3
    assert await parked(harness, orders.name, "note") == [(1, DeadKind.CRASHED)]
