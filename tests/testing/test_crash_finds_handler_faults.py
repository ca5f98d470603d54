"""Faults of handlers, and of the engine's delivery, planted one by one: crash_everywhere catches each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from battery.planted import counting_events_as_done_early, without_the_fence
from perdure import Event, NonRetryable, Stream
from perdure.blocks.handler import Handler
from perdure.blocks.serving import _defined
from perdure.core.events import LaneMark
from perdure.core.windows import LaneWindows
from perdure.runtime.memory import Memory
from perdure.runtime.subscriber import Subscriber
from perdure.stores import transactions
from perdure.stores.sqlite.streams import Streams
from perdure.testing import Append, Crashed, CrashFailure, crash_everywhere
from perdure.testing.crashing.delivering import Deliveries


@dataclass(frozen=True)
class Placed:
    order: str
    cents: int


orders: Stream[Placed] = Stream("orders", Placed, key=lambda one: one.order)
EVENTS = [Append(orders, Placed("a", 1)), Append(orders, Placed("b", 2)), Append(orders, Placed("a", 3))]
charged: list[int] = []


@orders.on()
async def charge(event: Event[Placed]) -> None:
    charged.append(event.data.cents)


@orders.on()
async def slow(event: Event[Placed]) -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@orders.on()
async def refuse(event: Event[Placed]) -> None:
    raise NonRetryable("never")


@orders.on(transaction=True)
def count_revenue(event: Event[Placed], connection: Any) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS revenue (cents INTEGER)")
    connection.execute("INSERT INTO revenue VALUES (?)", (event.data.cents,))


@orders.window(initial=0, tumbling=60, idle_after=60)
def total(state: int, event: Event[Placed]) -> int:
    return state + event.data.cents


@pytest.fixture(autouse=True, scope="module")
def leave_no_handlers() -> Iterator[None]:
    """Engines of other modules would serve them."""
    yield
    _defined._handlers.clear()


async def test_without_a_fault_all_of_them_pass() -> None:
    crashes = await crash_everywhere(EVENTS, handlers=[slow, refuse, count_revenue, total])

    assert crashes.runs > 40


def once(crashed: Crashed[None]) -> None:
    assert sorted(charged) == [1, 2, 3]


async def test_an_effect_that_is_not_guarded_is_caught_and_one_line_repeats_it() -> None:
    with pytest.raises(CrashFailure) as failure:
        await crash_everywhere(EVENTS, handlers=[charge], setup=charged.clear, check=once)

    assert str(failure.value).startswith("crash_everywhere(…, crash='orders/charge/1:after-effect')\n")
    assert "life 2: charge(Placed(order='a', cents=1)) at 'orders/charge/1'" in str(failure.value)
    with pytest.raises(CrashFailure, match="orders/charge/1:after-effect"):
        await crash_everywhere(
            EVENTS, handlers=[charge], setup=charged.clear, check=once, crash="orders/charge/1:after-effect"
        )


async def test_a_mark_before_the_effect_is_caught() -> None:
    with counting_events_as_done_early(), pytest.raises(CrashFailure, match="which was done on disk"):
        await crash_everywhere(EVENTS, handlers=[charge])


async def test_an_event_that_is_begun_before_the_one_of_its_key_is_done_on_disk_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [Append(orders, Placed("a", number)) for number in range(3)]
    say = r"slow\(\) was called with event 2 of stream 'orders' before event 1 of key 'a' was done on disk"

    monkeypatch.setattr(Memory, "key_of", lambda self, event: f"\0{event.position}")

    with pytest.raises(CrashFailure, match=say):
        await crash_everywhere(events, handlers=[slow])


async def test_a_missing_fence_is_caught() -> None:
    with (
        without_the_fence(),
        pytest.raises(CrashFailure, match="a worker that had lost its lease has written"),
    ):
        await crash_everywhere(EVENTS, handlers=[charge])


async def test_an_event_that_is_delivered_again_though_it_is_done_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = Streams.claim_lanes

    def from_the_start(self: Streams, *given: Any, **named: Any) -> Any:
        return [row._replace(cursor=0, done=()) for row in claim(self, *given, **named)]

    monkeypatch.setattr(Streams, "claim_lanes", from_the_start)

    with pytest.raises(CrashFailure, match="which was done on disk"):
        await crash_everywhere(EVENTS, handlers=[charge])


async def test_what_is_written_without_the_mark_that_it_is_done_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_done(mark: LaneMark, before: LaneMark, done: set[int]) -> LaneMark:
        return mark

    monkeypatch.setattr(transactions, "_with_done", without_done)
    monkeypatch.setattr(Deliveries, "wrong", lambda *_: "")  # it would tell before

    with pytest.raises(CrashFailure, match="table 'revenue' has"):
        await crash_everywhere(EVENTS, handlers=[count_revenue])


async def test_an_event_that_is_given_up_and_not_parked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    write_dead, written = Subscriber._write_dead, count()

    def now_and_then(self: Subscriber, *given: Any) -> None:
        if next(written) != 4:
            write_dead(self, *given)

    monkeypatch.setattr(Subscriber, "_write_dead", now_and_then)

    with pytest.raises(CrashFailure, match="is done on disk, and was never handled by refuse"):
        await crash_everywhere(EVENTS, handlers=[refuse])


async def test_windows_that_are_not_kept_with_their_events_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LaneWindows, "take_changed", lambda self: ([], []))

    with pytest.raises(CrashFailure, match=r"stream 'orders.total' (lacks|has)"):
        await crash_everywhere(EVENTS, handlers=[total])


async def test_an_idempotency_key_that_is_another_after_a_crash_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, numbers = Handler.read, count()

    def another(self: Handler[Any], *given: Any) -> Any:
        return replace(read(self, *given), idempotency_key=f"{next(numbers)}")

    monkeypatch.setattr(Handler, "read", another)

    with pytest.raises(
        CrashFailure, match=r"handler 'charge' .* was called again with another idempotency key"
    ):
        await crash_everywhere(EVENTS, handlers=[charge])
