"""`start_on`: an event starts a run, once, whatever comes twice and whatever crashes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import DefinitionError, Event, Stream, WorkflowCall, workflow
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked
from tests.streams.test_transaction import Death


@workflow
async def ships(order: str, amount: int) -> str:
    await asyncio.sleep(60)
    return f"{amount} for {order}"


async def ids(harness: Harness) -> list[str]:
    return sorted(run.id for run in (await harness.list()).runs)


async def test_an_event_starts_a_run_whose_id_is_made_of_it(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.start_on(Placed)
    def shipping(event: Event[Placed]) -> WorkflowCall[str]:
        return ships(event.key, event.data.amount)

    await harness.append(orders, Placed("17", 5), id="placed/17", source="till")
    await harness.append(orders, Paid("17"))
    await harness.append(orders, Placed("18", 6), id="placed-18")
    await harness.settle()
    run = await harness.get(f"{orders.name}/shipping/till/placed%2F17", ships)
    await harness.advance(60)

    assert await run.result() == "5 for 17"
    assert await ids(harness) == [f"{orders.name}/shipping/placed-18", run.id]
    assert shipping.name == "shipping"


async def test_events_of_one_id_start_one_run_and_one_that_gives_none_starts_nothing(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.start_on(Placed, id=lambda event: f"order-{event.key}")
    def shipping(event: Event[Placed]) -> WorkflowCall[str] | None:
        return ships(event.key, 1) if event.data.amount else None

    await harness.append_batch(orders, [Placed("17", 1), Placed("17", 2), Placed("18", 0)])
    await harness.settle()
    await harness.restart()
    await harness.append(orders, Placed("17", 3))
    await harness.settle()

    assert await ids(harness) == ["order-17"]
    assert await parked(harness, orders.name, shipping.name) == []


async def test_an_id_that_belongs_to_a_run_with_other_input_parks_the_event_at_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.start_on(Placed, id=lambda event: "one")
    def shipping(event: Event[Placed]) -> WorkflowCall[str]:
        return ships(event.key, event.data.amount)

    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    await harness.settle()

    assert await parked(harness, orders.name, shipping.name) == [(2, DeadKind.FAILED)]


@pytest.mark.parametrize("before", [True, False])
async def test_whichever_commit_the_worker_dies_in_each_event_has_started_one_run(
    orders: Stream[Placed | Paid], before: bool
) -> None:
    deaths = 0

    @orders.start_on(Placed)
    def shipping(event: Event[Placed]) -> WorkflowCall[str]:
        return ships(event.key, event.data.amount)

    for number in range(1, 100):
        async with Harness(time_flies=True) as harness:
            await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2), Placed("b", 3)])
            death = Death(harness, number, before=before)
            await harness.settle()
            await harness.crash()
            await harness.settle()
            results = [await (await harness.get(run_id, ships)).result() for run_id in await ids(harness)]
        assert sorted(results) == ["1 for a", "2 for a", "3 for b"], f"death at commit {number}"
        deaths += death.has_come
        if not death.has_come:
            break

    assert deaths >= 2
    assert shipping.name == "shipping"


async def test_what_gives_no_call_of_a_workflow_is_named_in_what_is_parked(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    def shipping(event: Event[Placed]) -> Any:
        return "ships"

    handler = orders.start_on(Placed)(shipping)
    await harness.append(orders, Placed("a"))
    await harness.settle()
    for _ in range(6):
        await harness.advance(300)
    (one,) = await harness.subscription(handler).parked()

    assert "shipping() starts runs" in one.error


def test_an_async_function_is_refused(orders: Stream[Placed | Paid]) -> None:
    async def shipping(event: Event[Placed]) -> None: ...

    with pytest.raises(DefinitionError, match=r"shipping\(\) is async"):
        orders.start_on(Placed)(shipping)  # type: ignore[arg-type]
