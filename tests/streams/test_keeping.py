"""Streams that let go of old events, and handlers that stand where nothing is left."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from perdure import Client, DefinitionError, Event, Stream
from perdure.core.standing import KeepRule
from perdure.stores.streams import LANES
from perdure.testing import Harness
from tests.streams.events import Placed


def add(total: int, event: Event[Placed]) -> int:
    return total + event.data.amount


def kept(harness: Harness, name: str) -> int:
    """How many events the stream keeps."""
    store = harness.store.store.streams
    page = store.events(name, after=0, limit=10_000)
    while page.gone > page.after:  # more may go meanwhile
        page = store.events(name, after=page.gone, limit=10_000)
    return len(page.events)


async def let_go(harness: Harness, name: str, *, down_to: int) -> None:
    """Let time pass, a little at a time, until the stream keeps no more than that; fails if it does not."""
    for _ in range(2_000):
        if kept(harness, name) == down_to:
            return
        await harness.advance(0.1)
    raise AssertionError(f"the stream keeps {kept(harness, name)} events")


async def test_what_is_old_and_done_goes_by_itself(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed, key=lambda one: one.order, keep=timedelta(days=1))
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    await harness.append_batch(orders, [Placed(str(n), n) for n in range(2_500)])
    await harness.advance(hours=23)
    await harness.append(orders, Placed("late"))
    before = kept(harness, name)
    await harness.advance(hours=2)
    await let_go(harness, name, down_to=1)

    assert (before, kept(harness, name), len(seen)) == (2_501, 1, 2_501)
    assert note.name == "note"


async def test_what_is_over_the_size_goes_by_itself(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed, keep_bytes=100)

    await harness.open_once()
    await harness.append_batch(orders, [Placed("1234567890", 100) for _ in range(20)])
    await harness.advance(minutes=2)
    await let_go(harness, name, down_to=2)

    await harness.advance(minutes=5)
    assert kept(harness, name) == 2


async def test_a_handler_that_stands_still_keeps_what_it_has_not_done(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed, keep=timedelta(days=1))
    gate, seen = asyncio.Event(), list[int]()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        if event.data.amount == 5:
            await gate.wait()
        seen.append(event.data.amount)

    await harness.open_once()
    await harness.append_batch(orders, [Placed("", n) for n in range(10)])
    await harness.settle()
    await harness.advance(days=30)
    await let_go(harness, name, down_to=5)
    await harness.advance(days=1)
    before = kept(harness, name)
    gate.set()
    await harness.settle()

    assert before == 5
    assert seen == list(range(10))
    assert note.name == "note"


async def test_a_lane_without_events_of_its_own_does_not_hold_the_others_back(
    harness: Harness, name: str
) -> None:
    orders = Stream(name, Placed, key=lambda one: one.order, keep=timedelta(minutes=1))

    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    for _ in range(3):
        await harness.append(orders, Placed("the same key"))
    await harness.settle()
    await harness.advance(minutes=3)
    await let_go(harness, name, down_to=0)

    assert kept(harness, name) == 0
    assert (await harness.subscription(note).lag()).events == 0


async def test_nor_does_a_lane_of_windows_or_of_a_join(harness: Harness, name: str) -> None:
    minute = timedelta(minutes=1)
    orders = Stream(name, Placed, key=lambda one: one.order, keep=minute)
    others = Stream(f"{name}-others", Placed, key=lambda one: one.order, keep=minute)
    sums = orders.window(Placed, tumbling=60, initial=0)(add)
    pairs = orders.join(Placed, others, Placed, name="pairs", within=60)

    await harness.open_once()
    for _ in range(3):
        await harness.append(orders, Placed("the same key"))
        await harness.append(others, Placed("the same key"))
    await harness.advance(minutes=3)
    await let_go(harness, orders.name, down_to=0)
    await let_go(harness, others.name, down_to=0)

    assert (kept(harness, sums.results.name), kept(harness, pairs.results.name)) == (1, 9)


async def test_what_a_join_has_not_read_of_either_stream_stays_while_nobody_serves_it(
    harness: Harness, name: str
) -> None:
    minute = timedelta(minutes=1)
    orders = Stream(name, Placed, key=lambda one: one.order, keep=minute)
    others = Stream(f"{name}-others", Placed, key=lambda one: one.order, keep=minute)
    streams = harness.store.store.streams
    await harness.open_once()

    streams.subscribe(orders.name, "pairs", lanes=LANES, from_start=True, other=others.name)
    await harness.append(orders, Placed("a"))
    await harness.append(others, Placed("a"))
    await harness.advance(hours=1)
    before = (kept(harness, orders.name), kept(harness, others.name))
    pairs = orders.join(Placed, others, Placed, name="pairs", within=60)
    await harness.advance(minutes=3)
    await harness.until(lambda: kept(harness, pairs.results.name))
    await let_go(harness, others.name, down_to=0)

    assert before == (1, 1)
    assert kept(harness, pairs.results.name) == 1


async def test_a_join_below_what_its_second_stream_keeps_stands_loudly(
    harness: Harness, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    orders = Stream(name, Placed, key=lambda one: one.order)
    others = Stream(f"{name}-others", Placed, key=lambda one: one.order)
    pairs = orders.join(Placed, others, Placed, name="pairs", within=timedelta(days=3_650))
    rule = KeepRule(others.name, 0, None, waits=False)
    subscription = harness.subscription(pairs.name, orders.name)

    await harness.open_once()
    await harness.append_batch(others, [Placed("a", n) for n in range(3)])
    await harness.settle()
    await harness.stop()
    async with Client(harness.url) as client:
        await client.append_batch(others, [Placed("a", n) for n in range(3, 6)])
        await client.door.write(lambda store: store.streams.let_go(rule, now_ms=1 << 50, limit=5))
    with caplog.at_level(logging.WARNING, "perdure"):
        await harness.open()
        await harness.settle()
        lag = await subscription.lag()
        await subscription.seek("earliest")
        await harness.append(orders, Placed("a"))
        await harness.advance(minutes=3)

    assert f"of stream '{others.name}', and the first event that it still keeps" in lag.problem
    assert lag.problem in caplog.text
    # Those that had been read have waited for it; the one that is left is of the real clock, and so late.
    assert (kept(harness, pairs.results.name), kept(harness, pairs.late.name)) == (3, 1)


@pytest.mark.parametrize("of_them", [1, 1_500])
async def test_a_handler_below_what_is_kept_stands_loudly_until_a_person_sends_it_on(
    harness: Harness, name: str, caplog: pytest.LogCaptureFixture, of_them: int
) -> None:
    orders = Stream(name, Placed, keep=timedelta(minutes=5), unhandled="remove")
    seen = list[int]()
    await harness.open_once()

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        if event.data.amount == 0:
            await asyncio.get_running_loop().create_future()
        seen.append(event.data.amount)

    await harness.append_batch(orders, [Placed("", n) for n in range(of_them)])
    await harness.settle()
    await harness.advance(minutes=10)
    await let_go(harness, name, down_to=0)
    await harness.append(orders, Placed("", 7))
    with caplog.at_level(logging.WARNING, "perdure"):
        await harness.crash()
        await harness.settle()
        subscription = harness.subscription(note)
        lag = await subscription.lag()
        before = list(seen)
        await subscription.seek("earliest")
        await harness.settle()

    assert (before, seen) == ([], [7])
    assert f"{name}/note goes on at position" in lag.problem
    assert len([one for one in caplog.messages if "was let go, unhandled" in one]) == 1


def test_a_rule_that_cannot_be_is_refused() -> None:
    for wrong in (timedelta(), timedelta(days=-1)):
        with pytest.raises(DefinitionError, match="cannot be"):
            Stream("orders", Placed, keep=wrong)
    with pytest.raises(DefinitionError, match="cannot be"):
        Stream("orders", Placed, keep_bytes=-1)
