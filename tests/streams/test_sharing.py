"""The lanes of a subscription, shared among workers: each takes its part, and no key gets out of order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack

from perdure import Client, Engine, Event, Stream
from perdure.blocks.handler import Handler
from perdure.runtime.lease import LEASE_MS
from perdure.stores.streams import LANES
from perdure.testing.engine import HarnessEngine
from tests.runtime.waiting import until
from tests.streams.events import Paid, Placed

KEYS = 40


def lanes_of(engine: Engine) -> int:
    """How many lanes it has in hand, of its only handler."""
    assert engine._subscriptions is not None
    (one,) = engine._subscriptions._subscribers.values()
    return sum(not lane.is_leaving for lane in one._lanes.values())


class Seen:
    """What was handled, by key; and whether two of a key were ever handled at once."""

    def __init__(self) -> None:
        self.amounts = defaultdict[str, list[int]](list)
        self.running = set[str]()
        self.overlaps = list[str]()
        self.count = 0

    async def handle(self, event: Event[Placed]) -> None:
        if event.key in self.running:
            self.overlaps.append(event.key)
        self.running.add(event.key)
        try:
            await asyncio.sleep(0.001)
        finally:
            self.running.discard(event.key)
        self.amounts[event.key].append(event.data.amount)
        self.count += 1

    @property
    def in_order(self) -> bool:
        """Whether each key's events came one after another, but for those that came again."""
        return all(
            later <= earlier + 1
            for amounts in self.amounts.values()
            for earlier, later in zip([-1, *amounts], amounts, strict=False)
        )


async def append_some(client: Client, orders: Stream[Placed | Paid], first: int, last: int) -> None:
    for amount in range(first, last):
        await client.append_batch(orders, [Placed(f"key-{key}", amount) for key in range(KEYS)])


def handler_of(orders: Stream[Placed | Paid], seen: Seen) -> Handler[Placed]:
    return orders.on(Placed, name="note")(seen.handle)


async def test_workers_that_come_and_go_share_the_lanes_and_keep_each_key_in_order(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    seen = Seen()
    handlers = [handler_of(orders, seen)]
    async with AsyncExitStack() as stack, Client(url) as client:
        first = await stack.enter_async_context(Engine(url, handlers=handlers))
        await until(lambda: lanes_of(first) == LANES)
        appending = asyncio.create_task(append_some(client, orders, 0, 30))
        await until(lambda: seen.count > KEYS)
        second = Engine(url, handlers=handlers)
        third = Engine(url, handlers=handlers)
        async with second:
            await until(lambda: (lanes_of(first), lanes_of(second)) == (8, 8))
            async with third:
                await until(lambda: sorted(map(lanes_of, (first, second, third))) == [LANES - 2 * 6, 6, 6])
        await until(lambda: lanes_of(first) == LANES)
        await appending
        await until(lambda: all(amounts[-1] == 29 for amounts in seen.amounts.values()))

    assert len(seen.amounts) == KEYS
    assert seen.in_order
    assert seen.overlaps == []
    # Closing an engine breaks off what it has in hand; giving a lane up does not.
    assert seen.count - 30 * KEYS <= 2 * 32


async def test_a_lane_is_given_up_when_what_runs_of_it_is_done_and_not_before(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    gate, begun = asyncio.Event(), list[tuple[str, int]]()

    @orders.on(Placed)
    async def note(event: Event[Placed]) -> None:
        begun.append((event.key, event.data.amount))
        if event.data.amount == 0:
            await gate.wait()

    async with Engine(url, handlers=[note]) as first, Client(url) as client:
        await append_some(client, orders, 0, 2)
        await until(lambda: len(begun) == 32)
        async with Engine(url, handlers=[note]) as second:
            await until(lambda: lanes_of(first) == 8)
            before = list(begun)
            gate.set()
            await until(lambda: lanes_of(second) == 8 and len(begun) >= 2 * KEYS)

    assert {amount for _, amount in before} == {0}
    assert len(set(begun)) == len(begun) == 2 * KEYS


async def test_events_that_wait_for_each_other_are_one_workers(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    amounts = list[int]()

    @orders.on(Placed, order="stream")
    async def note(event: Event[Placed]) -> None:
        await asyncio.sleep(0)
        amounts.append(event.data.amount)

    first, second = Engine(url, handlers=[note]), Engine(url, handlers=[note])
    async with Client(url) as client, first, second:
        await append_some(client, orders, 0, 3)
        await until(lambda: len(amounts) == 3 * KEYS)
        held = lanes_of(first), lanes_of(second)

    assert sorted(held) == [0, LANES]
    assert amounts == sorted(amounts)


async def test_the_lanes_of_a_worker_that_dies_go_to_the_others_and_nothing_is_left_out(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    seen = Seen()
    handlers = [handler_of(orders, seen)]
    dies = HarnessEngine(url, handlers=handlers)
    async with AsyncExitStack() as stack, Client(url) as client:
        await dies.__aenter__()
        heirs = [await stack.enter_async_context(Engine(url, handlers=handlers)) for _ in range(2)]
        await until(lambda: sorted(map(lanes_of, (dies, *heirs))) == [LANES - 2 * 6, 6, 6])
        await append_some(client, orders, 0, 10)
        await until(lambda: seen.count > KEYS)

        dies.drop()
        died_s = asyncio.get_running_loop().time()
        await until(lambda: sum(map(lanes_of, heirs)) == LANES)
        taken_s = asyncio.get_running_loop().time() - died_s
        await append_some(client, orders, 10, 12)
        await until(lambda: all(amounts[-1] == 11 for amounts in seen.amounts.values()))

    assert len(seen.amounts) == KEYS
    assert {tuple(sorted(set(amounts))) for amounts in seen.amounts.values()} == {tuple(range(12))}
    assert seen.in_order
    assert taken_s < LEASE_MS / 1_000 + 1


async def test_workers_that_are_sent_back_while_lanes_change_hands_go_on_in_order(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    seen = Seen()
    handlers = [handler_of(orders, seen)]
    async with Client(url) as client, Engine(url, handlers=handlers) as first:
        await append_some(client, orders, 0, 10)
        await until(lambda: seen.count > KEYS)
        async with Engine(url, handlers=handlers) as second:
            for _ in range(3):
                await client.subscription("note", orders.name).seek("earliest")
                seen.amounts.clear()
                await until(lambda: len(seen.amounts) > KEYS // 2)
            await until(lambda: (lanes_of(first), lanes_of(second)) == (8, 8))
        await until(lambda: len(seen.amounts) == KEYS and all(a[-1] == 9 for a in seen.amounts.values()))
        await append_some(client, orders, 10, 11)
        await until(lambda: all(amounts[-1] == 10 for amounts in seen.amounts.values()))

    assert all(set(amounts) == set(range(11)) for amounts in seen.amounts.values())
    assert seen.overlaps == []
