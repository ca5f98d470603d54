"""A key that waits long, or has too much, keeps no other from its turn; and memory does not grow with it."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Event, Retry, Stream
from perdure.runtime import subscriber
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held in memory is a hundredth, so that a test need not append millions."""
    monkeypatch.setattr(subscriber, "_HELD_MAX", 50)


def held(harness: Harness, stream: str) -> int:
    """How many events are in memory."""
    everyone = harness.engine._subscriptions._subscribers  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
    (one,) = (one for one in everyone.values() if one.row.stream == stream)
    return one._memory.count  # pyright: ignore[reportPrivateUsage]


async def test_a_key_that_fails_with_much_behind_it_holds_up_no_other(
    harness: Harness, orders: Orders
) -> None:
    seen, most, bad = list[tuple[str, int]](), 0, True

    @orders.on(retry=Retry(attempts=4, delay=100, jitter=False))
    async def note(event: Event[Placed]) -> None:
        nonlocal most
        most = max(most, held(harness, orders.name))
        if event.key == "bad" and bad:
            raise ValueError("not yet")
        seen.append((event.key, event.data.amount))

    await harness.append_batch(orders, [Placed("bad", n) for n in range(1_000)])
    await harness.append_batch(orders, [Placed(f"good-{n % 5}", n) for n in range(200)])
    await harness.settle()
    while_it_waits = list(seen)
    bad = False
    await harness.advance(100)
    await harness.append(orders, Placed("bad", 1_000))
    await harness.settle()

    assert sorted(n for _, n in while_it_waits) == list(range(200))
    assert [n for key, n in seen if key == "bad"] == list(range(1_001))
    for key in range(5):
        assert [n for one, n in seen if one == f"good-{key}"] == list(range(key, 200, 5))
    assert most <= 50
    found = accounts(harness.store.store, note)
    assert len(found.done) == 1_201


async def test_when_it_is_parked_what_waits_behind_it_on_disk_is_too(
    harness: Harness, orders: Orders
) -> None:
    seen = list[int]()

    @orders.on(retry=Retry(attempts=2, delay=100, jitter=False))
    async def note(event: Event[Placed]) -> None:
        if event.key == "bad" and event.data.amount < 500:
            raise ValueError("never")
        seen.append(event.data.amount)

    await harness.append_batch(orders, [Placed("bad", n) for n in range(1_000)])
    await harness.append_batch(orders, [Placed("good", n) for n in range(10)])
    await harness.settle()
    before = (await harness.subscription(note).status()).due
    await harness.advance(200)
    status = await harness.subscription(note).status()

    assert before > 900
    assert (seen, status.parked, status.due) == (list(range(10)), {"failed": 1, "behind": 999}, 0)


async def test_what_waits_on_disk_goes_on_in_order_after_a_crash(harness: Harness, orders: Orders) -> None:
    seen, gate = list[tuple[str, int]](), asyncio.Event()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        if event.key == "slow":
            await gate.wait()
        seen.append((event.key, event.data.amount))

    await harness.append_batch(orders, [Placed("slow", n) for n in range(200)])
    await harness.append_batch(orders, [Placed("quick", n) for n in range(10)])
    await harness.settle()
    quick = list(seen)
    await harness.crash()
    await harness.append(orders, Placed("slow", 200))
    await harness.settle()
    gate.set()
    await harness.settle()

    assert quick == [("quick", n) for n in range(10)]
    assert [n for key, n in seen if key == "slow"] == list(range(201))


async def test_memory_is_flat_however_far_the_producer_is_ahead(harness: Harness, orders: Orders) -> None:
    most, seen = 0, 0

    @orders.on(concurrency=2)
    async def note(event: Event[Placed]) -> None:
        nonlocal most, seen
        most = max(most, held(harness, orders.name))
        await asyncio.sleep(0)
        seen += 1

    await harness.open_once()
    for batch in range(10):  # a hundred are appended while one or two are handled
        await harness.append_batch(orders, [Placed(f"{n % 17}", 100 * batch + n) for n in range(100)])
    await harness.until(lambda: seen == 1_000)
    await harness.settle()

    assert most <= 50
    assert len(accounts(harness.store.store, note).done) == 1_000


async def test_a_stream_that_is_handled_in_order_is_not_put_in_line(harness: Harness, orders: Orders) -> None:
    seen, gate = list[int](), asyncio.Event()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        await gate.wait()
        seen.append(event.data.amount)

    await harness.append_batch(orders, [Placed(f"{n % 7}", n) for n in range(300)])
    await harness.settle()
    due = (await harness.subscription(note).status()).due
    gate.set()
    await harness.settle()

    assert due == 0
    assert seen == list(range(300))
