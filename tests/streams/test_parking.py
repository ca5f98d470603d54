"""What becomes of events whose handlers fail, of those that cannot be read, and of a store that is full."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import apsw
import pytest

from perdure import (
    Event,
    NonRetryable,
    ParkedEvent,
    Retry,
    StoreFull,
    Stream,
    StreamError,
    Subscription,
    SubscriptionNotFound,
    event,
)
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked


async def test_a_handler_that_fails_is_tried_again_and_then_its_key_is_parked(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, int, int]]()

    @orders.on(retry=Retry(attempts=3, delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        seen.append((event.key, event.data.amount, event.attempt))
        if event.data.amount == 1:
            raise ValueError("no")

    await harness.open_once()
    await harness.append_batch(orders, [Placed("bad", 1), Placed("bad", 2), Placed("good", 3)])
    await harness.advance(100)
    await harness.append(orders, Placed("bad", 4))
    await harness.crash()
    await harness.append_batch(orders, [Placed("bad", 5), Placed("good", 6)])
    await harness.settle()

    assert sorted(seen) == [("bad", 1, 1), ("bad", 1, 2), ("bad", 1, 3), ("good", 3, 1), ("good", 6, 1)]
    assert await parked(harness, orders.name, "note") == [
        (1, DeadKind.FAILED), (2, DeadKind.BEHIND), (4, DeadKind.BEHIND), (5, DeadKind.BEHIND),
    ]  # fmt: skip


async def test_an_error_that_is_for_good_parks_at_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.attempt)
        raise NonRetryable("never")

    await harness.append(orders, Placed("a"))
    await harness.settle()

    assert seen == [1]
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.FAILED)]


async def test_an_event_that_cannot_be_read_is_parked_and_never_handled(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @event("order.placed")
    @dataclass(frozen=True)
    class Changed:
        order: int

    await harness.append(orders, Placed("not a number"))
    now: Stream[Changed] = Stream(orders.name, Changed, compat="none")
    seen: list[int] = []

    @now.on(Changed)
    async def note(event: Event[Changed]) -> None:
        seen.append(event.data.order)

    await harness.restart()
    await harness.settle()

    assert seen == []
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.UNREADABLE)]


async def test_while_a_key_waits_for_its_next_try_it_holds_up_no_other(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[str]()

    @orders.on(concurrency=1, retry=Retry(delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        if event.data.amount == 1 and event.attempt == 1:
            raise ValueError("not yet")
        seen.append(event.key)

    await harness.append_batch(orders, [Placed("bad", 1), Placed("good"), Placed("bad")])
    await harness.settle()
    before = list(seen)
    await harness.advance(10)

    assert (before, seen) == (["good"], ["good", "bad", "bad"])
    assert note.name == "note"


async def test_a_drain_lets_handlers_end_and_begins_no_more(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen, gate = list[int](), asyncio.Event()

    @orders.on(concurrency=1)
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        await gate.wait()

    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    await harness.until(lambda: seen)
    draining = asyncio.create_task(harness.engine.drain(60))
    await harness.settle()
    gate.set()
    await draining
    drained = list(seen)
    await harness.restart()
    await harness.settle()

    assert (drained, seen) == ([1], [1, 2])
    assert note.name == "note"


@pytest.mark.parametrize("harness", ["sqlite"], indirect=True)
async def test_an_event_that_the_disk_has_changed_is_parked_and_the_others_go_on(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()
    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2), Placed("c", 3)])
    path = harness.url.removeprefix("sqlite:///")
    with apsw.Connection(path) as connection:
        connection.execute("UPDATE event SET type = 'other' WHERE key = 'b'")

    @orders.on(Placed)
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.restart()
    await harness.settle()

    assert sorted(seen) == [1, 3]
    assert await parked(harness, orders.name, note.name) == [(2, DeadKind.UNREADABLE)]


async def test_a_handler_that_cancels_itself_is_tried_again_and_keeps_no_place(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, int]]()

    @orders.on(concurrency=1, retry=Retry(delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        seen.append((event.key, event.attempt))
        if event.key == "bad" and event.attempt == 1:
            raise asyncio.CancelledError

    await harness.append_batch(orders, [Placed("bad"), Placed("good")])
    await harness.settle()
    await harness.advance(10)

    assert seen == [("bad", 1), ("good", 1), ("bad", 2)]
    assert note.name == "note"


async def test_a_full_store_refuses_an_append_and_keeps_what_handlers_did(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        if event.data.amount == 1:
            harness.store.fill_up()

    await harness.append(orders, Placed("a", 1))
    await harness.until(lambda: seen)
    harness.store.fill_up()
    with pytest.raises(StoreFull):
        await harness.append(orders, Placed("a", 2))
    await harness.until(lambda: harness.engine.is_quiet)
    await harness.append(orders, Placed("a", 3))
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert seen == [1, 3]
    assert note.name == "note"


async def test_what_is_parked_is_read_by_its_subscription(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on(retry=Retry(attempts=1))
    async def note(event: Event[Placed]) -> None:
        raise ValueError("no")

    await harness.append_batch(orders, [Placed("bad"), Placed("bad")])
    await harness.settle()
    by_handler: list[ParkedEvent] = await harness.subscription(note).parked()
    subscription: Subscription = harness.subscription("note", orders.name)

    assert [(one.key, one.reason, one.attempts, one.error) for one in by_handler] == [
        ("bad", "failed", 1, "ValueError: no"), ("bad", "behind", 0, ""),
    ]  # fmt: skip
    assert await subscription.parked(limit=1) == by_handler[:1]


async def test_a_handler_that_has_not_subscribed_is_named(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.append(orders, Placed("a"))
    await harness.settle()

    with pytest.raises(StreamError, match=f"'other'.*'{orders.name}'.*{orders.name}/note") as refused:
        await harness.subscription("other", orders.name).parked()
    assert isinstance(refused.value, SubscriptionNotFound)
