"""`sys.exit` in a handler fails the event, as any error does: it ends no worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from perdure import Event, Handler, Retry, Stream, WorkflowCall, step, step_info, workflow
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Placed, parked

Orders = Stream[Placed]
ONCE = Retry(attempts=1)


@workflow
async def ship(order: str) -> None:
    pass


def exit_at(event: Event[Placed]) -> None:
    if event.data.amount < 0:
        sys.exit(3)


def on_the_loop(orders: Orders) -> Handler[Any]:
    @orders.on(retry=ONCE)
    async def note(event: Event[Placed]) -> None:
        await asyncio.sleep(0)
        exit_at(event)

    return note


def on_a_thread(orders: Orders) -> Handler[Any]:
    return orders.on(retry=ONCE, name="note")(exit_at)


def in_the_transaction(orders: Orders) -> Handler[Any]:
    @orders.on(retry=ONCE, transaction=True)
    def note(event: Event[Placed], connection: Any) -> None:
        exit_at(event)

    return note


def starting_runs(orders: Orders) -> Handler[Any]:
    @orders.start_on()
    def note(event: Event[Placed]) -> WorkflowCall[None]:
        exit_at(event)
        return ship(event.key)

    return note


def over_windows(orders: Orders) -> Handler[Any]:
    @orders.window(initial=0, tumbling=timedelta(hours=1))
    def note(total: int, event: Event[Placed]) -> int:
        exit_at(event)
        return total + 1

    return note


@pytest.mark.parametrize(
    "make",
    [on_the_loop, on_a_thread, in_the_transaction, starting_runs, over_windows],
    ids=lambda f: f.__name__,
)
async def test_an_event_at_which_a_handler_exits_is_parked_and_the_worker_goes_on(
    harness: Harness, name: str, make: Callable[[Orders], Handler[Any]]
) -> None:
    orders: Orders = Stream(name, Placed, key=lambda one: one.order)
    handler = make(orders)
    await harness.open_once()

    await harness.append_batch(orders, [Placed("bad", -1), Placed("good", 1)])
    await harness.advance(hours=1)
    await harness.append(orders, Placed("good", 2))
    await harness.until(lambda: len(accounts(harness.store.store, handler).parked) == 1)

    assert await parked(harness, orders.name, "note") == [(1, DeadKind.FAILED)]
    (dead,) = await harness.subscription(handler).parked()
    assert dead.error == "SystemExit: 3"


async def test_a_step_that_exits_in_its_transaction_fails_and_the_worker_goes_on(harness: Harness) -> None:
    @step(transaction=True, retry=ONCE)
    def leave() -> None:
        assert step_info().connection is not None
        sys.exit(3)

    @workflow
    async def leaves() -> str:
        try:
            await leave()
        except Exception as error:
            return f"{type(error).__name__}: {error.__cause__!r}"
        return "went on"

    said = await harness.run(leaves())

    assert said == "StepFailed: SystemExit(3)"
