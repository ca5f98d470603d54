"""`order="stream"`: one event after the other, also when some were parked."""

from __future__ import annotations

import asyncio

from perdure import Event, NonRetryable, Stream
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]


async def test_what_is_redriven_sends_none_of_its_key_behind_later_events_of_others(
    harness: Harness, orders: Orders
) -> None:
    seen, gate, bad = list[str](), asyncio.Event(), True

    @orders.on(order="stream", on_exhausted="park_event")
    async def note(event: Event[Placed]) -> None:
        name = f"{event.key}{event.data.amount}"
        if name == "a1" and bad:
            raise NonRetryable("not yet")
        if name == "b1":
            await gate.wait()
        seen.append(name)

    await harness.append_batch(orders, [Placed(*one) for one in (("a", 1), ("b", 1), ("a", 2), ("b", 2))])
    await harness.settle()
    bad = False
    await harness.subscription(note).redrive()
    await harness.settle()
    gate.set()
    await harness.settle()

    assert seen == ["b1", "a2", "b2", "a1"]


async def test_none_is_begun_before_it_is_on_disk_that_the_one_before_it_waits_behind_a_parked_one(
    harness: Harness, orders: Orders
) -> None:
    left = dict[str, set[int]]()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        name = f"{event.key}{event.data.amount}"
        left[name] = accounts(harness.store.store, note).pending
        if name == "a1":
            raise NonRetryable("never")

    placed = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2), ("a", 4), ("b", 3)]
    await harness.append_batch(orders, [Placed(*one) for one in placed])
    await harness.settle()
    await harness.append_batch(orders, [Placed("a", 5), Placed("b", 4)])
    await harness.settle()

    assert list(left) == ["a1", "b1", "b2", "b3", "b4"]
    assert [len(pending) for pending in left.values()] == [7, 6, 3, 1, 1]
