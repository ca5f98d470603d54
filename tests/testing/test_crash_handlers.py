"""crash_everywhere on handlers, windows and joins that are right: where it crashes, and what it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Event, NonRetryable, PerdureError, Retry, Stream, step, workflow
from perdure.blocks.serving import _defined
from perdure.testing import Append, Crashed, Wait, crash_everywhere
from perdure.testing.clock import START_MS

pytestmark = pytest.mark.slow

BEGIN = datetime.fromtimestamp(START_MS / 1000, UTC)


@dataclass(frozen=True)
class Placed:
    order: str
    cents: int


@dataclass(frozen=True)
class Shipped:
    order: str


@dataclass(frozen=True)
class Paid:
    order: str


orders: Stream[Placed] = Stream("crashed-orders", Placed, key=lambda one: one.order)
shipments: Stream[Shipped] = Stream("crashed-shipments", Shipped, key=lambda one: one.order)
payments: Stream[Paid] = Stream("crashed-payments", Paid, key=lambda one: one.order)


@orders.on()
async def ship(event: Event[Placed]) -> None:
    """Does nothing that lasts."""


@orders.on()
def pack(event: Event[Placed]) -> None:
    """On a thread."""


@orders.on(transaction=True)
def announce(event: Event[Placed], connection: Any) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS revenue (cents INTEGER)")
    connection.execute("INSERT INTO revenue VALUES (?)", (event.data.cents,))
    shipments.append_within(Shipped(event.data.order))


@step
async def deliver(order: str) -> str:
    return order


@workflow
async def delivery(order: str) -> str:
    return await deliver(order)


@orders.start_on()
def deliver_it(event: Event[Placed]) -> Any:
    return delivery(event.data.order)


@orders.window(initial=0, tumbling=60, out_of_order=10, idle_after=60)
def revenue(total: int, event: Event[Placed]) -> int:
    return total + event.data.cents


paid = orders.join(Placed, payments, Paid, name="paid", within=60, unmatched="left", out_of_order=10)


@pytest.fixture(autouse=True, scope="module")
def leave_no_handlers() -> Iterator[None]:
    """Engines of other modules would serve them."""
    yield
    _defined._handlers.clear()


EVENTS = [Append(orders, Placed("a", 1)), Append(orders, Placed("b", 2)), Append(orders, Placed("a", 3))]


async def test_a_handler_is_crashed_before_and_after_each_event_and_each_commit() -> None:
    crashes = await crash_everywhere(EVENTS, handlers=[ship])

    assert {
        "append-to-crashed-orders/1:before-record",
        "append-to-crashed-orders/3:after-record",
        "append-to-crashed-orders/2:twice",
        "crashed-orders/ship/1:before-effect",
        "crashed-orders/ship/3:after-effect",
        "done-crashed-orders/ship/2:before-record",
        "done-crashed-orders/ship/2:zombie",
    } <= set(crashes.spots)
    assert crashes.compared
    assert crashes.missed == ()


async def test_each_event_is_handled_and_none_twice_but_one_of_a_key_that_was_in_hand() -> None:
    def check(crashed: Crashed[None]) -> None:
        times = Counter(effect.args[0].data for effect in crashed.effects)
        again = [placed.order for placed, count in times.items() if count == 2]
        assert len(times) == 3
        assert max(times.values()) <= (2 if crashed.crash else 1)
        assert len(again) == len(set(again)), "of a key one is in hand"

    await crash_everywhere(EVENTS, handlers=[pack], check=check, kinds=["before-effect", "after-effect"])


async def test_what_a_handler_writes_in_its_transaction_is_there_once() -> None:
    def check(crashed: Crashed[None]) -> None:
        assert crashed.query("SELECT sum(cents), count(*) FROM revenue") == [(6, 3)]
        assert sorted(one.order for one in crashed.events(shipments)) == ["a", "a", "b"]

    crashes = await crash_everywhere(EVENTS, handlers=[announce], check=check)

    assert "crashed-orders/announce/3:after-effect" in crashes.spots


async def test_each_event_starts_one_run_which_comes_to_its_end() -> None:
    crashes = await crash_everywhere(EVENTS[:2], handlers=[deliver_it])

    assert "deliver/1:after-effect" in crashes.spots
    assert crashes.compared


async def test_the_results_of_windows_are_the_same_wherever_they_are_crashed() -> None:
    events = [
        Wait(90),
        Append(orders, Placed("a", 1), time=BEGIN),
        Append(orders, Placed("a", 2), time=BEGIN + timedelta(seconds=30)),
        Append(orders, Placed("a", 4), time=BEGIN + timedelta(seconds=71)),
        Append(orders, Placed("a", 8), time=BEGIN + timedelta(seconds=1)),
    ]

    def check(crashed: Crashed[None]) -> None:
        assert [one.value for one in crashed.events(revenue.results)] == [3, 4]
        assert len(crashed.events(revenue.late)) == 1

    crashes = await crash_everywhere(events, handlers=[revenue], check=check)

    assert "windows-crashed-orders/revenue/1:zombie" in crashes.spots
    assert crashes.by_kind["due-while-down"] == 1
    assert crashes.compared


async def test_a_join_tells_the_same_pairs_wherever_it_is_crashed() -> None:
    events = [Append(orders, Placed("a", 1)), Append(orders, Placed("b", 2)), Append(payments, Paid("a"))]

    def check(crashed: Crashed[None]) -> None:
        pairs = {(one.key, one.right is not None) for one in crashed.events(paid.results)}
        assert pairs == {("a", True), ("b", False)}

    crashes = await crash_everywhere(events, handlers=[paid], check=check)

    assert crashes.compared


async def test_what_cannot_be_handled_is_parked_wherever_it_is_crashed() -> None:
    @orders.on(name="picky", retry=Retry(attempts=2, delay=1.0))
    async def picky(event: Event[Placed]) -> None:
        if event.data.cents == 1:
            raise NonRetryable("no")
        if event.data.cents == 2:
            raise OSError("never")

    def check(crashed: Crashed[None]) -> None:
        assert sorted(one.cents for one in crashed.parked(picky)) == [1, 2, 3]

    crashes = await crash_everywhere([*EVENTS, Wait(5)], handlers=[picky], check=check)

    assert "parked-crashed-orders/picky/1:after-record" in crashes.spots
    assert crashes.compared


@workflow
async def places(order: str) -> str:
    await orders.append(Placed(order, 1))
    return await deliver(order)


async def test_a_workflow_is_crashed_together_with_the_handlers_of_what_it_appends() -> None:
    def check(crashed: Crashed[None]) -> None:
        assert crashed.result == "17"
        assert crashed.events(shipments) == [Shipped("17")]

    crashes = await crash_everywhere(places("17"), handlers=[announce], check=check)

    assert "crashed-orders/announce/1:after-effect" in crashes.spots
    assert "deliver/1:after-effect" in crashes.spots


async def test_what_is_not_crashed_is_refused() -> None:
    with pytest.raises(PerdureError, match="no event to be handled"):
        await crash_everywhere([Wait(1)], handlers=[ship])
    with pytest.raises(PerdureError, match="Only a workflow alone is crashed in processes"):
        await crash_everywhere(EVENTS, handlers=[ship], process=True)
    with pytest.raises(PerdureError, match="Only a workflow alone is crashed in processes"):
        await crash_everywhere(delivery("17"), handlers=[ship], process=True)


@pytest.mark.crash_everywhere(handlers=[announce])
def test_a_test_may_yield_events() -> Iterator[Any]:
    crashed = yield EVENTS[0], Wait(1), EVENTS[1]

    assert crashed.events(orders) == [Placed("a", 1), Placed("b", 2)]
    assert len(crashed.events(shipments)) == 2


async def test_a_handler_of_the_results_of_windows_is_crashed_with_them() -> None:
    @revenue.results.on(name="note")
    async def note(event: Event[Any]) -> None:
        """Does nothing that lasts."""

    def check(crashed: Crashed[None]) -> None:
        assert {effect.args[0].data.value for effect in crashed.effects} == {4, 2}

    await crash_everywhere(EVENTS, handlers=[revenue, note], check=check)
