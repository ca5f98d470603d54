"""Handlers with `transaction=True`, and events of theirs that were parked: redriven, each is done once."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Event, NonRetryable, Stream
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked
from tests.streams.notes import Notes
from tests.streams.test_transaction import Death


async def test_what_was_parked_is_written_once_and_in_order_when_it_is_redriven(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes, bad = Notes(harness), {"a1"}

    @orders.on(Placed, transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        name = f"{event.key}{event.data.amount}"
        notes.write(connection, name)
        if name in bad:
            raise NonRetryable("no")

    await harness.restart()
    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2), Placed("b", 3)])
    await harness.settle()
    first, stood = notes.read(), await parked(harness, orders.name, writes.name)
    bad.clear()
    await harness.subscription(writes).redrive(reason="mended")
    await harness.until(lambda: notes.read() == ["b3", "a1", "a2"])  # a server tells of it at the next look
    await harness.crash()
    await harness.settle()

    assert (first, len(stood)) == (["b3"], 2)
    assert notes.read() == ["b3", "a1", "a2"]
    assert await parked(harness, orders.name, writes.name) == []


async def test_one_that_fails_again_is_parked_again_and_has_written_nothing(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)
    tries: list[int] = []

    @orders.on(Placed, transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        tries.append(event.data.amount)
        notes.write(connection, "written")
        raise NonRetryable("no")

    await harness.restart()
    await harness.append(orders, Placed("a", 1))
    await harness.settle()
    await harness.subscription(writes).redrive(reason="a try")
    await harness.until(lambda: len(tries) == 2)  # a server tells of it at the next look
    await harness.settle()

    (again,) = await harness.subscription(writes).parked()
    assert (again.redrives, notes.read()) == (1, [])


@pytest.mark.parametrize("before", [True, False])
async def test_a_redriven_event_is_written_once_whichever_commit_the_worker_dies_in(
    orders: Stream[Placed | Paid], before: bool
) -> None:
    is_bad, deaths = True, 0

    @orders.on(Placed, transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        if is_bad:
            raise NonRetryable("no")
        notes.write(connection, f"{event.key}{event.data.amount}")

    for number in range(1, 100):
        is_bad = True
        async with Harness(time_flies=True) as harness:
            notes = Notes(harness)
            await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2)])
            await harness.settle()
            is_bad = False
            await harness.subscription(writes).redrive(reason="mended")
            death = Death(harness, number, before=before)
            await harness.settle()
            await harness.crash()
            await harness.settle()
            found = notes.read()
        assert found == ["a1", "a2"], f"death at commit {number}"
        deaths += death.has_come
        if not death.has_come:
            break

    assert deaths >= 1
