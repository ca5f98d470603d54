"""Parked events are redriven in the order of their keys, edited, and discarded; live workers notice."""

from __future__ import annotations

import asyncio

import pytest

from perdure import (
    Client,
    Event,
    NonRetryable,
    NotDecodable,
    Note,
    NotParked,
    NotSerialisable,
    ParkedDetails,
    PerdureError,
    Redriving,
    Stream,
    SubscriptionStatus,
)
from perdure.blocks.event import position_text
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]


class Notes:
    """A handler that refuses some events, until it is mended."""

    def __init__(self, orders: Orders, **options: str) -> None:
        self.seen = list[tuple[str, int]]()
        self.events = list[Event[Placed]]()
        self.bad = set[int]()

        @orders.on(Placed, **options)  # pyright: ignore[reportArgumentType]
        async def note(event: Event[Placed]) -> None:
            await asyncio.sleep(0)
            if event.data.amount in self.bad:
                raise NonRetryable("no")
            self.seen.append((event.key, event.data.amount))
            self.events.append(event)

        self.handler = note

    def amounts(self, key: str) -> list[int]:
        return [amount for one, amount in self.seen if one == key]


@pytest.fixture
def notes(orders: Orders) -> Notes:
    return Notes(orders)


def places(harness: Harness, orders: Orders, *numbers: int) -> list[int]:
    """Where the events of these numbers, from 1, stand in their stream."""
    events = harness.store.store.streams.events(orders.name, after=0, limit=1_000).events
    return [events[number - 1].position for number in numbers]


def positions(harness: Harness, orders: Orders, *numbers: int) -> list[str]:
    """The same, as people see them."""
    return [position_text(place) for place in places(harness, orders, *numbers)]


async def park(harness: Harness, orders: Orders, notes: Notes) -> None:
    """a1 fails, a2 and a3 are behind it; b4 is well; c5 fails, c6 is behind it."""
    notes.bad = {1, 5}
    batch = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("c", 6)]
    await harness.append_batch(orders, [Placed(*one) for one in batch])
    await harness.settle()
    notes.seen.clear()
    notes.events.clear()


async def test_all_that_is_parked_is_redriven_in_the_order_of_its_keys_and_new_ones_come_after(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    await harness.append(orders, Placed("a", 7))
    await harness.until(lambda: len(accounts(harness.store.store, notes.handler).parked) == 6)

    notes.bad = set()
    redriven: Redriving = await harness.subscription(notes.handler).redrive(reason="mended", by="ann")
    await harness.append(orders, Placed("a", 8))
    await harness.until(lambda: len(notes.seen) == 7)
    await harness.append(orders, Placed("a", 9))
    await harness.settle()

    assert redriven == Redriving(positions(harness, orders, 1, 2, 3, 5, 6, 7), 0, False, False)
    assert (notes.amounts("a"), notes.amounts("c")) == ([1, 2, 3, 7, 8, 9], [5, 6])
    assert await harness.subscription(notes.handler).parked() == []


async def test_a_dry_run_says_what_would_be_redriven_and_changes_nothing(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)
    before = await subscription.parked()

    everything = await subscription.redrive(dry_run=True)
    of_a = await subscription.redrive(key="a", dry_run=True)
    of_one = await subscription.redrive(positions(harness, orders, 6)[0], dry_run=True)
    await harness.settle()

    assert everything == Redriving(positions(harness, orders, 1, 2, 3, 5, 6), 0, False, True)
    assert (of_a.events, of_one.events) == (
        positions(harness, orders, 1, 2, 3),
        positions(harness, orders, 5, 6),
    )
    assert (await subscription.parked(), notes.seen) == (before, [])


async def test_a_redriven_event_is_the_same_one(harness: Harness, orders: Orders) -> None:
    names = list[tuple[str, str, str, int]]()
    bad = True

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        names.append((event.id, event.key, event.idempotency_key, event.attempt))
        if bad:
            raise NonRetryable("no")

    await harness.append(orders, Placed("a", 1), id="x")
    await harness.settle()
    bad = False
    await harness.subscription(note).redrive()
    await harness.until(lambda: len(names) == 2)
    await harness.settle()

    assert names == [("x", "a", f"note/{orders.name}/{positions(harness, orders, 1)[0]}", 1)] * 2


async def test_one_that_fails_again_holds_its_key_again_and_says_how_often_it_was_redriven(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    notes.bad = {2}
    await subscription.redrive(key="a")
    await harness.settle()
    await harness.until(lambda: notes.amounts("a"))
    await harness.settle()
    await harness.append(orders, Placed("a", 7))
    await harness.settle()

    assert notes.amounts("a") == [1]
    parked = await subscription.parked(key="a")
    second, third, seventh = positions(harness, orders, 2, 3, 7)
    assert [(one.position, one.reason, one.redrives) for one in parked] == [
        (second, "failed", 1), (third, "behind", 1), (seventh, "behind", 0),
    ]  # fmt: skip
    assert (await subscription.status()).parked == {"failed": 2, "behind": 3}


async def test_events_of_a_key_that_does_not_hold_are_redriven_one_by_one(
    harness: Harness, orders: Orders
) -> None:
    notes = Notes(orders, on_exhausted="park_event")
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)
    before = [one.position for one in await subscription.parked()]

    notes.bad = set()
    redriven = await subscription.redrive(positions(harness, orders, 5))
    await harness.until(lambda: notes.seen)
    await harness.settle()

    assert (before, redriven.events, notes.seen) == (
        positions(harness, orders, 1, 5),
        positions(harness, orders, 5),
        [("c", 5)],
    )
    assert [one.position for one in await subscription.parked()] == positions(harness, orders, 1)


async def test_keyless_events_are_redriven_too(harness: Harness, name: str) -> None:
    keyless: Orders = Stream(name, Placed | Paid)
    notes = Notes(keyless)
    await park(harness, keyless, notes)

    notes.bad = set()
    await harness.subscription(notes.handler).redrive()
    await harness.until(lambda: len(notes.seen) == 2)
    await harness.settle()

    assert sorted(notes.seen) == [("", 1), ("", 5)]
    assert await harness.subscription(notes.handler).parked() == []


async def test_an_edit_is_delivered_and_the_original_and_the_audit_are_kept(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    await subscription.edit(
        positions(harness, orders, 1)[0], {"order": "a", "amount": 10}, reason="typing error", by="ann"
    )
    await subscription.edit(positions(harness, orders, 1)[0], Placed("a", 11), reason="once more", by="bob")
    shown: ParkedDetails = await subscription.show(positions(harness, orders, 1)[0])
    await subscription.redrive(key="a")
    await harness.until(lambda: len(notes.seen) == 3)
    await harness.settle()

    assert (shown.type, shown.original, shown.payload) == (
        "order.placed", b'{"order":"a","amount":1}', b'{"order":"a","amount":11}',
    )  # fmt: skip
    written: list[Note] = shown.notes
    assert [(note.deed, note.by, note.reason) for note in written] == [
        ("edited", "ann", "typing error"), ("edited", "bob", "once more"),
    ]  # fmt: skip
    assert (shown.parked.reason, "NonRetryable: no" in shown.traceback[-1]) == ("failed", True)
    assert notes.amounts("a") == [11, 2, 3]
    page = harness.store.store.streams.events(orders.name, after=0, limit=1)
    assert page.events[0].payload == b'{"order":"a","amount":1}'


async def test_an_edit_that_the_handler_could_not_read_is_refused(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    with pytest.raises(NotDecodable, match="amount"):
        await subscription.edit(
            positions(harness, orders, 1)[0], {"order": "a", "amount": "much"}, reason="bad"
        )
    with pytest.raises(NotSerialisable):
        await subscription.edit(positions(harness, orders, 1)[0], print, reason="bad")
    with pytest.raises(NotParked, match=positions(harness, orders, 4)[0]):
        await subscription.edit(positions(harness, orders, 4)[0], Placed("b"), reason="it is done")
    with pytest.raises(PerdureError, match="no position"):
        await subscription.edit("4", Placed("b"), reason="no position")
    assert (await subscription.show(positions(harness, orders, 1)[0])).notes == []


async def test_a_key_flows_again_when_what_held_it_is_discarded(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    discarded = await subscription.discard(key="a", reason="a test order", by="ann")
    await harness.until(lambda: harness.engine.is_quiet)
    await harness.settle()
    await harness.append(orders, Placed("a", 7))
    await harness.until(lambda: notes.seen)
    await harness.settle()

    assert (discarded, notes.seen) == (positions(harness, orders, 1, 2, 3), [("a", 7)])
    with pytest.raises(NotParked):
        await subscription.discard(positions(harness, orders, 1), reason="twice")
    of = [set(places(harness, orders, *numbers)) for numbers in ((1, 2, 3), (5, 6), (4, 7))]
    found = accounts(harness.store.store, notes.handler, handled=of[2])
    assert [found.discarded, found.parked, found.done] == of


async def test_what_was_behind_one_that_is_discarded_stays_parked_until_it_is_redriven(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    await subscription.discard(positions(harness, orders, 1), reason="bad")
    await harness.append(orders, Placed("a", 7))
    await harness.settle()
    before = list(notes.seen)
    await subscription.redrive(key="a")
    await harness.until(lambda: len(notes.seen) == 3)
    await harness.settle()

    assert (before, notes.amounts("a")) == ([], [2, 3, 7])


async def test_another_process_redrives_and_live_workers_notice(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)

    notes.bad = set()
    async with Client(harness.url) as client:
        await client.subscription("note", orders.name).redrive(key="c")
        await harness.until(lambda: len(notes.seen) == 2)
        await harness.settle()
        status: SubscriptionStatus = await client.subscription("note", orders.name).status()

    assert notes.seen == [("c", 5), ("c", 6)]
    assert (status.parked, status.due) == ({"failed": 1, "behind": 2}, 0)


async def test_a_redrive_hands_over_so_many_a_second(harness: Harness, orders: Orders, notes: Notes) -> None:
    notes.bad = {1}
    await harness.append_batch(orders, [Placed("a", amount) for amount in range(1, 31)])
    await harness.settle()

    notes.bad = set()
    redrive = asyncio.create_task(harness.subscription(notes.handler).redrive(rate=10))
    began_ms, most = harness.clock.now_ms(), 0.0
    while not redrive.done():
        await harness.advance(0.2)
        most = max(most, len(notes.seen) - (harness.clock.now_ms() - began_ms) / 100)
    redriven = await redrive
    await harness.until(lambda: len(notes.seen) == 30)

    assert most <= 1
    assert harness.clock.now_ms() - began_ms >= 2_800
    assert (len(redriven.events), notes.amounts("a")) == (30, list(range(1, 31)))


@pytest.mark.parametrize("rate", [0, -1.0])
async def test_a_rate_at_which_nothing_would_ever_be_handed_over_is_refused(
    harness: Harness, notes: Notes, rate: float
) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        await harness.subscription(notes.handler).redrive(rate=rate)


async def test_a_redrive_stops_when_too_many_fail_again(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    notes.bad = set(range(20))
    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(20)])
    await harness.settle()

    redrive = asyncio.create_task(harness.subscription(notes.handler).redrive(rate=2, max_failures=3))
    while not redrive.done():
        await harness.advance(1)
    redriven = await redrive

    assert redriven.is_stopped
    assert 3 <= redriven.failed <= len(redriven.events) < 20
    while (await harness.subscription(notes.handler).status()).due:
        await harness.settle()
    assert len(await harness.subscription(notes.handler).parked()) == 20


async def test_a_redrive_that_is_cut_short_leaves_the_rest_parked_and_is_gone_on_with(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    notes.bad = {1}
    await harness.append_batch(orders, [Placed("a", amount) for amount in range(1, 31)])
    await harness.settle()

    notes.bad = set()
    redrive = asyncio.create_task(harness.subscription(notes.handler).redrive(rate=10))
    await harness.until(lambda: notes.seen)
    redrive.cancel()
    await harness.crash()
    await harness.append(orders, Placed("a", 31))
    await harness.settle()
    before = list(notes.amounts("a"))
    await harness.subscription(notes.handler).redrive()
    await harness.until(lambda: len(set(notes.amounts("a"))) == 31)
    await harness.settle()

    assert before in ([1], [1, 1])
    assert list(dict.fromkeys(notes.amounts("a"))) == list(range(1, 32))


async def test_what_is_parked_is_found_by_key_reason_and_page(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    failed = await subscription.parked(reason="failed")
    of_c = await subscription.parked(key="c")
    page = await subscription.parked(after=positions(harness, orders, 2)[0], limit=2)

    assert [one.position for one in failed] == positions(harness, orders, 1, 5)
    assert [one.position for one in of_c] == positions(harness, orders, 5, 6)
    assert [one.position for one in page] == positions(harness, orders, 3, 5)
    with pytest.raises(PerdureError, match="'late' is no reason"):
        await subscription.parked(reason="late")


async def test_nothing_is_discarded_or_redriven_where_nothing_is_meant(
    harness: Harness, orders: Orders, notes: Notes
) -> None:
    await park(harness, orders, notes)
    subscription = harness.subscription(notes.handler)

    redriven = await subscription.redrive([])

    assert redriven.events == []
    with pytest.raises(NotParked):
        await subscription.discard([], reason="none")
    with pytest.raises(ValueError, match="say which"):
        await subscription.discard(reason="none")
    assert len(await subscription.parked()) == 5
