"""What a handler does with an event that it has given up: park its key, park it alone, or stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from perdure import DefinitionError, Event, NonRetryable, NotHandled, Retry, Stream
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked

Orders = Stream[Placed | Paid]


async def test_an_event_may_be_parked_alone_and_the_later_ones_of_its_key_go_on(
    harness: Harness, orders: Orders
) -> None:
    seen = list[int]()

    @orders.on(on_exhausted="park_event")
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        if event.data.amount == 1:
            raise NonRetryable("no")

    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2)])
    await harness.settle()
    await harness.crash()
    await harness.append(orders, Placed("a", 3))
    await harness.settle()

    assert seen == [1, 2, 3]
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.FAILED)]


async def test_a_handler_of_no_order_parks_events_alone(harness: Harness, orders: Orders) -> None:
    seen = list[int]()

    @orders.on(order="none", concurrency=1)
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        if event.data.amount == 1:
            raise NonRetryable("no")

    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2)])
    await harness.settle()

    assert seen == [1, 2]
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.FAILED)]


async def test_a_handler_may_stop_until_somebody_resumes_it(harness: Harness, orders: Orders) -> None:
    seen, works = list[tuple[int, int]](), False

    @orders.on(on_exhausted="stop", concurrency=1, retry=Retry(attempts=2, delay=1))
    async def note(event: Event[Placed]) -> None:
        seen.append((event.data.amount, event.attempt))
        if not works:
            raise ValueError("no")

    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2)])
    await harness.advance(100)
    await harness.append(orders, Placed("b", 3))
    await harness.crash()
    await harness.advance(100)
    stopped, before = await harness.subscription(note).status(), list(seen)
    works = True
    resumed = await harness.subscription(note).resume(reason="mended")
    await harness.until(lambda: len(seen) == 5)
    await harness.settle()

    assert before == [(1, 1), (1, 2)]
    assert (stopped.status, stopped.parked) == ("stopped", {})
    assert "ValueError: no" in stopped.reason
    assert resumed
    assert sorted(seen[2:]) == [(1, 1), (2, 1), (3, 1)]
    assert seen.index((1, 1), 2) < seen.index((2, 1))
    assert (await harness.subscription(note).status()).status == "active"
    assert await parked(harness, orders.name, note.name) == []


async def test_a_person_may_stop_a_handler(harness: Harness, orders: Orders) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.append(orders, Placed("a", 1))
    await harness.settle()
    await harness.subscription(note).stop(reason="maintenance")
    await harness.restart()
    await harness.append(orders, Placed("a", 2))
    await harness.settle()
    status = await harness.subscription(note).status()

    assert seen == [1]
    assert (status.status, status.reason) == ("stopped", "maintenance")
    assert status.since is not None


async def test_what_on_exhausted_may_be_is_said(orders: Orders) -> None:
    with pytest.raises(DefinitionError, match="on_exhausted='drop'"):
        orders.on(on_exhausted="drop")  # pyright: ignore[reportArgumentType]


# -- what a handler gives back ---------------------------------------------------------------------


async def test_a_value_that_a_handler_returns_is_complained_of_once_and_by_name(
    harness: Harness, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    @orders.on()
    def note(event: Event[Placed]) -> int:
        return event.data.amount

    with caplog.at_level(logging.WARNING, "perdure"):
        await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
        await harness.settle()
        await harness.until(lambda: caplog.messages)
        await harness.settle()

    (complaint,) = caplog.messages
    assert f"Handler note() of stream '{orders.name}' returned a value (int)" in complaint
    assert await parked(harness, orders.name, note.name) == []


async def test_an_awaitable_that_a_function_gives_back_is_awaited(harness: Harness, orders: Orders) -> None:
    seen = list[int]()

    async def work(event: Event[Any]) -> None:
        seen.append(event.data.amount)

    note = orders.on(name="note")(lambda event: work(event))  # noqa: PLW0108 (no coroutine function itself)
    await harness.append(orders, Placed("a", 1))
    await harness.until(lambda: seen)
    await harness.settle()

    assert seen == [1]
    assert await parked(harness, orders.name, note.name) == []


async def test_a_handler_that_yields_is_refused_where_it_is_defined(orders: Orders) -> None:
    with pytest.raises(DefinitionError, match=f"'note' of stream '{orders.name}' yields"):

        @orders.on()
        async def note(event: Event[Placed]) -> AsyncGenerator[int]:
            yield 1


async def test_a_generator_that_a_handler_returns_parks_the_event(harness: Harness, orders: Orders) -> None:
    note = orders.on(name="note")(lambda event: (one for one in [event]))

    await harness.append(orders, Placed("a", 1))
    await harness.until(lambda: True)
    await harness.settle()
    subscription = harness.subscription(note)
    await harness.settle()
    while not (found := await subscription.parked()):
        await harness.settle()

    assert [(one.reason, one.attempts) for one in found] == [("failed", 1)]
    assert "note() of stream" in found[0].error
    assert NotHandled.__name__ in found[0].error
