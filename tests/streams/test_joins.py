"""Joins of two streams in an engine: each pair once, whatever comes late, or crashes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest

from perdure import DefinitionError, Event, Join, Joined, Late, Stream
from perdure.core.standing import KeepRule
from perdure.testing import Harness

numbers = count(1)
TEN_MINUTES = timedelta(minutes=10)


@dataclass(frozen=True)
class Ordered:
    order: str
    cents: int = 0


@dataclass(frozen=True)
class Paid:
    order: str
    receipt: int = 0


Orders = Stream[Ordered]
Payments = Stream[Paid]
Both = tuple[Orders, Payments]
Pairs = Join[Stream[Joined[Ordered, Paid]], Stream[Late]]


@pytest.fixture
def streams() -> Both:
    number = next(numbers)
    return (
        Stream(f"ordered-{number}", Ordered, key=lambda one: one.order),
        Stream(f"paid-{number}", Paid, key=lambda one: one.order),
    )


def now(harness: Harness) -> datetime:
    return datetime.fromtimestamp(harness.clock.now_ms() / 1000, UTC)


def told(harness: Harness, pairs: Pairs) -> list[tuple[int | None, int | None]]:
    page = harness.store.store.streams.events(pairs.results.name, after=0, limit=10_000)
    found = [pairs.results.decode(event) for event in page.events]
    return [(one.left and one.left.cents, one.right and one.right.receipt) for one in found]


def aside(harness: Harness, pairs: Pairs) -> list[Late]:
    page = harness.store.store.streams.events(pairs.late.name, after=0, limit=10_000)
    return [pairs.late.decode(event) for event in page.events]


async def test_events_of_a_key_that_are_near_each_other_are_a_pair_whichever_comes_first(
    harness: Harness, streams: Both
) -> None:
    orders, payments = streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES)
    seen = list[Event[Any]]()

    @pairs.results.on()
    async def note(event: Event[Joined[Ordered, Paid]]) -> None:
        seen.append(event)

    begin = now(harness)
    await harness.append(orders, Ordered("a", 1))
    await harness.advance(minutes=5)
    await harness.append(payments, Paid("a", 2))
    await harness.append(payments, Paid("b", 3))
    await harness.advance(minutes=5)
    await harness.append(orders, Ordered("b", 4))
    await harness.append(orders, Ordered("c", 5))
    await harness.advance(hours=2)

    assert sorted(told(harness, pairs), key=str) == [(1, 2), (4, 3)]
    first = seen[0].data
    assert (first.key, first.left, first.right) == ("a", Ordered("a", 1), Paid("a", 2))
    assert (first.left_time, first.right_time) == (begin, begin + timedelta(minutes=5))
    assert note.name == "note"


async def test_an_order_that_nobody_pays_is_told_of_when_the_time_is_over(
    harness: Harness, streams: Both
) -> None:
    orders, payments = streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES, unmatched="left")

    await harness.append(payments, Paid("z"))
    await harness.append_batch(orders, [Ordered("a", 1), Ordered("b", 2)])
    await harness.append(payments, Paid("a", 3))
    await harness.advance(minutes=9)
    await harness.crash()
    await harness.append(payments, Paid("b", 4), time=now(harness) + timedelta(minutes=2))
    await harness.append(payments, Paid("z"))
    before = told(harness, pairs)
    await harness.advance(hours=1)
    await harness.crash()
    await harness.advance(hours=1)

    assert before == [(1, 3)]
    assert told(harness, pairs) == [(1, 3), (2, None)]
    stand = await harness.subscription(pairs).event_time()
    assert stand.misdated == 1


async def test_silence_of_both_sides_ends_what_waits(harness: Harness, streams: Both) -> None:
    orders, payments = streams
    pairs = orders.join(
        Ordered, payments, Paid, name="paid", within=TEN_MINUTES, unmatched="both", idle_after=60
    )

    await harness.append(payments, Paid("a", 1), time=now(harness) - timedelta(minutes=20))
    await harness.append(orders, Ordered("a", 2))
    await harness.settle()
    assert (await harness.subscription(pairs).event_time()).open_windows == 1
    await harness.advance(hours=1)

    assert sorted(told(harness, pairs), key=str) == [(2, None), (None, 1)]
    assert (await harness.subscription(pairs).event_time()).open_windows == 0


async def test_an_event_later_than_it_may_be_goes_aside(harness: Harness, streams: Both) -> None:
    orders, payments = streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES, out_of_order=60)

    await harness.append_batch(orders, [Ordered("a", 1)])
    await harness.append(orders, Ordered("a", 2), time=now(harness) - timedelta(minutes=3), id="x")
    await harness.append(payments, Paid("a", 3))
    await harness.settle()

    assert told(harness, pairs) == [(1, 3)]
    (late,) = aside(harness, pairs)
    assert (late.reason, late.id, late.late_by) == ("late", "x", timedelta(minutes=2))


async def test_an_event_that_cannot_be_read_goes_aside(harness: Harness, streams: Both) -> None:
    orders, payments = streams

    @dataclass(frozen=True)
    class Changed:
        order: int

    Changed.__name__ = "Ordered"
    await harness.append(orders, Ordered("a", 1))
    changed: Stream[Any] = Stream(orders.name, Changed, key=str, compat="none")
    pairs = changed.join(Changed, payments, Paid, name="paid", within=TEN_MINUTES)
    await harness.restart()
    await harness.settle()

    (late,) = aside(harness, pairs)
    assert (late.reason, late.key, late.data) == ("unreadable", "a", {"order": "a", "cents": 1})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_pairs_are_those_of_a_plain_computation_through_crashes_at_any_commit(
    harness: Harness, streams: Both, seed: int
) -> None:
    chance, (orders, payments) = Random(seed), streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES, unmatched="both")
    begin = now(harness)
    events = [(number, chance.choice("abcdef"), chance.uniform(0, 3600)) for number in range(1, 81)]
    arrivals = sorted((at + chance.uniform(0, 29), number, key, at) for number, key, at in events)

    await harness.open_once()
    at_s = 0.0
    for arrives, number, key, at in arrivals:
        await harness.advance(arrives - at_s)
        at_s, time = arrives, begin + timedelta(seconds=at)
        if number % 2:
            await harness.append(orders, Ordered(key, number), time=time)
        else:
            await harness.append(payments, Paid(key, number), time=time)
        if chance.random() < 0.15:
            await harness.crash()
    await harness.advance(hours=3)

    found = {(number, key): at for number, key, at in events}
    expected = [
        (left, right)
        for (left, key), at in found.items()
        for (right, other), then in found.items()
        if left % 2
        and not right % 2
        and key == other
        and abs(round(at * 1000) - round(then * 1000)) <= 600_000
    ]
    paired = {number for pair in expected for number in pair}
    alone = [
        ((number, None) if number % 2 else (None, number)) for number, _, _ in events if number not in paired
    ]
    assert sorted(told(harness, pairs), key=str) == sorted([*expected, *alone], key=str)
    assert aside(harness, pairs) == []


def test_joins_that_cannot_be_are_refused(streams: Both) -> None:
    orders, payments = streams
    keyless: Payments = Stream("keyless", Paid)

    with pytest.raises(DefinitionError, match="'keyless' has no key"):
        orders.join(Ordered, keyless, Paid, name="paid", within=60)
    with pytest.raises(DefinitionError, match="within"):
        orders.join(Ordered, payments, Paid, name="paid", within=0)
    with pytest.raises(DefinitionError, match="some"):
        orders.join(Ordered, payments, Paid, name="paid", within=60, unmatched="some")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DefinitionError, match="no events of type"):
        orders.join(Paid, payments, Paid, name="paid", within=60)


async def test_a_join_begins_with_what_the_other_stream_keeps(harness: Harness, streams: Both) -> None:
    orders, payments = streams
    await harness.append_batch(payments, [Paid("a", 1), Paid("b", 2)])
    rule = KeepRule(payments.name, 0, None, waits=False)
    harness.store.store.streams.let_go(rule, now_ms=1 << 50, limit=1)
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES)

    await harness.append(orders, Ordered("a", 3))
    await harness.append(orders, Ordered("b", 4))
    await harness.advance(hours=1)

    assert told(harness, pairs) == [(4, 2)]


async def test_a_join_that_is_sent_back_tells_the_same_pairs(harness: Harness, streams: Both) -> None:
    orders, payments = streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES)

    await harness.open_once()
    await harness.append(orders, Ordered("a", 1))
    await harness.append(payments, Paid("a", 2))
    await harness.settle()
    await harness.subscription(pairs.name, orders.name).seek("earliest")
    await harness.append(payments, Paid("a", 3))
    await harness.advance(hours=1)

    assert told(harness, pairs) == [(1, 2), (1, 3)]


async def test_its_lag_is_that_of_both_streams(harness: Harness, streams: Both) -> None:
    orders, payments = streams
    pairs = orders.join(Ordered, payments, Paid, name="paid", within=TEN_MINUTES)
    await harness.append_batch(orders, [Ordered("a", 1), Ordered("b", 2)])
    await harness.append_batch(payments, [Paid(str(number)) for number in range(4)])
    await harness.settle()
    await harness.advance(seconds=20)

    done = await harness.subscription("paid", orders.name).lag()

    assert (done.events, done.in_per_second, done.out_per_second) == (0, 0.1, pytest.approx(0.1))
    assert pairs.results.name
