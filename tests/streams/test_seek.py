"""Sending a handler elsewhere in its stream: what it gets again, what it does not, and what is fenced off."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from perdure import (
    Client,
    Event,
    PerdureError,
    PositionGone,
    Retry,
    Seek,
    SeekNote,
    Stream,
    StreamError,
    SubscriptionNotFound,
)
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Paid, Placed
from tests.streams.test_keeping import kept


async def place(harness: Harness, orders: Stream[Placed | Paid], *amounts: int) -> list[str]:
    """Append orders of these amounts, each of its own key and a minute after the other; their positions."""
    positions = list[str]()
    for amount in amounts:
        appended = await harness.append(orders, Placed(f"{amount}", amount), id=f"order-{amount}")
        positions.append(appended.position)
        await harness.advance(minutes=1)
    await harness.settle()
    return positions


async def test_a_handler_that_is_sent_to_the_earliest_gets_all_again_without_a_restart(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    first, *_ = await place(harness, orders, 1, 2, 3)
    done = await harness.subscription(note).seek("earliest")
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert done == Seek(first, again=3, skipped=0, unparked=0, is_exact=True, is_done=True)
    assert sorted(seen) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("to", ["position", "time", "event"])
async def test_it_goes_on_with_the_event_that_is_named(
    harness: Harness, orders: Stream[Placed | Paid], to: str
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    began = harness.clock.now_ms()
    positions = await place(harness, orders, 1, 2, 3, 4)
    subscription = harness.subscription(note)
    when = datetime.fromtimestamp(began / 1000, UTC) + timedelta(minutes=1, seconds=30)
    match to:
        case "position":
            done = await subscription.seek(positions[2])
        case "time":
            done = await subscription.seek(when)
        case _:
            done = await subscription.seek(event="order-3")
    await harness.settle()

    assert (done.position, done.again) == (positions[2], 2)
    assert sorted(seen) == [1, 2, 3, 3, 4, 4]


async def test_a_dry_run_only_says_what_it_would_do(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    seen, gate = list[int](), asyncio.Event()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        if event.data.amount > 2:
            await gate.wait()
        seen.append(event.data.amount)

    await harness.open_once()
    await place(harness, orders, 1, 2, 3, 4)
    subscription = harness.subscription(note)
    back = await subscription.seek("earliest", dry_run=True)
    on = await subscription.seek("latest", dry_run=True)
    gate.set()
    await harness.settle()

    assert (back.again, back.skipped, back.is_done) == (2, 0, False)
    assert (on.again, on.skipped, on.is_done) == (0, 2, False)
    assert seen == [1, 2, 3, 4]
    assert await subscription.seeks() == []


async def test_who_is_sent_past_events_does_not_get_them(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    begun = list[int]()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        begun.append(event.data.amount)
        if event.data.amount == 1:
            await asyncio.get_running_loop().create_future()

    await harness.open_once()
    await place(harness, orders, 1, 2, 3)
    await harness.subscription(note).seek("latest")
    await harness.settle()
    await place(harness, orders, 4)

    assert begun == [1, 4]


async def test_what_a_handler_had_in_hand_is_not_marked_after_it_was_sent_back(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    begun, gate, slow = list[int](), threading.Event(), threading.Event()

    @orders.on()
    def note(event: Event[Placed]) -> None:
        """On a thread, which cannot be cancelled."""
        begun.append(event.data.amount)
        if event.data.amount == 2 and not slow.is_set():
            slow.set()
            gate.wait(20)

    await harness.open_once()
    await place(harness, orders, 1, 2)
    await harness.until(slow.is_set)
    await harness.until(lambda: accounts(harness.store.store, note).done)
    seeking = asyncio.create_task(harness.subscription(note).seek("earliest"))
    await harness.until(seeking.done)
    gate.set()
    await harness.until(lambda: len(accounts(harness.store.store, note).done) == 2)
    await harness.crash()
    await harness.settle()

    assert sorted(begun) == [1, 1, 2, 2]


async def test_no_two_events_of_a_key_are_handled_at_once_when_it_is_sent_back(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    running, most, ended = 0, 0, list[str]()
    asked_to_stop, may_stop = asyncio.Event(), asyncio.Event()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            asked_to_stop.set()
            await may_stop.wait()  # it has to clean up
            ended.append(event.key)
            raise
        finally:
            running -= 1

    await harness.open_once()
    await harness.append_batch(orders, [Placed("k", 1), Placed("k", 2)])
    await harness.until(lambda: running)
    await harness.subscription(note).seek("earliest")
    await harness.until(asked_to_stop.is_set)
    for _ in range(100):
        await asyncio.sleep(0)
    may_stop.set()
    await harness.until(lambda: ended and running)

    assert (most, ended) == (1, ["k"])


async def test_what_the_worker_writes_before_it_hears_of_it_is_left_out(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    handled = list[int]()
    gate = asyncio.Event()

    @orders.on(retry=Retry(attempts=1))
    async def note(event: Event[Placed]) -> None:
        handled.append(event.data.amount)
        if len(handled) <= 2:
            await gate.wait()
            if event.data.amount == 2:
                raise ValueError("once")

    await harness.open_once()
    await place(harness, orders, 1, 2)
    # The store is told behind the worker's back, which then marks one as done and parks the other.
    store = harness.store.store
    (row,) = [one for one in store.streams.subscriptions() if one.stream == orders.name]
    store.streams.seek(row.number, 0, now_ms=1, who="", reason="")
    gate.set()
    await harness.until(lambda: len(handled) == 4)
    await harness.settle()

    assert sorted(handled) == [1, 1, 2, 2]
    assert await harness.subscription(note).parked() == []


async def test_parked_events_behind_the_place_are_delivered_again(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen, bad = list[int](), True

    @orders.on(retry=Retry(attempts=1))
    async def note(event: Event[Placed]) -> None:
        if bad:
            raise ValueError("bad")
        seen.append(event.data.amount)

    await harness.open_once()
    await place(harness, orders, 1, 2, 3)
    bad = False
    done = await harness.subscription(note).seek(event="order-2", reason="the bug is mended", by="ann")
    await harness.settle()

    assert (done.again, done.unparked) == (2, 2)
    assert sorted(seen) == [2, 3]
    assert [parked.key for parked in await harness.subscription(note).parked()] == ["1"]


async def test_who_sent_it_and_why_is_kept(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    first, second = await place(harness, orders, 1, 2)
    subscription = harness.subscription(note)
    await subscription.seek("earliest", reason="wrong sums", by="ann")
    await subscription.seek(second)
    now = datetime.fromtimestamp(harness.clock.now_ms() / 1000, UTC)

    assert await subscription.seeks() == [
        SeekNote(second, now, "", ""), SeekNote(first, now, "ann", "wrong sums"),
    ]  # fmt: skip


async def test_another_process_sends_it_too(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    await place(harness, orders, 1)
    async with Client(harness.url) as client:
        await client.subscription(note).seek("earliest")
    await harness.until(lambda: len(seen) == 2)

    assert seen == [1, 1]


async def test_of_many_workers_each_goes_on_with_its_lanes(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    await place(harness, orders, *range(8))
    subscription = harness.subscription(note)
    for _ in range(3):
        await subscription.seek("earliest")
    await harness.settle()
    await place(harness, orders, 8)

    assert set(seen) == set(range(9))
    assert seen.count(8) == 1


async def test_a_handler_may_be_named_as_the_command_line_names_it(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    await place(harness, orders, 1)

    named = harness.engine.subscription(f"{orders.name}/{note.name}")
    assert (named.stream, named.name) == (orders.name, note.name)
    assert (await named.seek("latest", dry_run=True)).skipped == 0


async def test_a_place_that_is_not_there_is_refused(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    await place(harness, orders, 1)
    subscription = harness.subscription(note)

    with pytest.raises(StreamError, match="is no place"):
        await subscription.seek("yesterday")
    with pytest.raises(StreamError, match="has no position 4000000000000 yet"):
        await subscription.seek("4000000000000")
    with pytest.raises(StreamError, match="given id 'nobody'"):
        await subscription.seek(event="nobody")
    with pytest.raises(PerdureError, match="one of them"):
        await subscription.seek()
    assert await subscription.seeks() == []


async def test_a_place_whose_events_are_gone_is_refused(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed, key=lambda one: one.order, keep=timedelta(minutes=2))

    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    began = datetime.fromtimestamp(harness.clock.now_ms() / 1000, UTC)
    first, *_ = await place(harness, orders, 1, 2, 3, 4, 5)  # pyright: ignore[reportArgumentType]
    async with asyncio.timeout(20):
        while kept(harness, name) == 5:
            await harness.advance(0.1)  # a little at a time: each stream of this process has its turn
    subscription = harness.subscription(note)

    for there in (first, began):
        with pytest.raises(PositionGone) as refused:
            await subscription.seek(there)
        assert refused.value.first > first
    assert (await subscription.seek("earliest")).position == refused.value.first


async def test_a_handler_that_is_gone_is_forgotten_and_one_that_is_served_is_not(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    await place(harness, orders, 1)
    with pytest.raises(StreamError, match="serves"):
        await harness.subscription(note).remove()
    await harness.stop()
    async with Client(harness.url) as client:
        await client.subscription(note).remove()
        with pytest.raises(SubscriptionNotFound):
            await client.subscription(note).lag()
