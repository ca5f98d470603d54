"""Handlers with `transaction=True`: what they write and the mark that the event is done are one commit."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import apsw
import pytest

from perdure import (
    DefinitionError,
    Event,
    LeaseLost,
    Retry,
    StepError,
    StoreNotOurs,
    StoreUnavailable,
    Stream,
    start_within,
    workflow,
)
from perdure.core.events import DeadKind
from perdure.stores.base import Batch
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked
from tests.streams.notes import Notes

only_sqlite = pytest.mark.parametrize("harness", ["sqlite"], indirect=True)


class Death:
    """Of the worker, at its commit of this number: before that is written, or before anybody hears of it."""

    def __init__(self, harness: Harness, number: int, *, before: bool) -> None:
        self._harness = harness
        self._left = number
        self.has_come = False
        if before:
            harness.store.before_commit = self._look
        else:
            harness.store.after_commit = self._look

    def _look(self, batch: Batch) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_come = True
            self._harness.store.kill()
            raise StoreUnavailable("The worker dies.")


@pytest.mark.parametrize("before", [True, False])
async def test_what_a_handler_writes_is_there_once_whichever_commit_the_worker_dies_in(
    orders: Stream[Placed | Paid], before: bool
) -> None:
    wanted = [f"{key}{amount}" for key in "ab" for amount in range(3)]
    deaths = 0

    @orders.on(Placed, transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        notes.write(connection, f"{event.key}{event.data.amount}")

    for number in range(1, 100):
        async with Harness(time_flies=True) as harness:
            notes = Notes(harness)
            death = Death(harness, number, before=before)
            appending = asyncio.gather(
                *(harness.append(orders, Placed(one[0], int(one[1])), id=one) for one in wanted),
                return_exceptions=True,
            )
            await harness.until(lambda: death.has_come or appending.done())  # noqa: B023
            await harness.settle()
            await harness.crash()
            await appending
            await asyncio.gather(
                *(harness.append(orders, Placed(one[0], int(one[1])), id=one) for one in wanted)
            )
            await harness.settle()
            found = notes.read()
        assert sorted(found) == wanted, f"death at commit {number}"
        assert [one for one in found if one[0] == "a"] == wanted[:3], f"death at commit {number}"
        deaths += death.has_come
        if not death.has_come:
            break

    assert deaths >= 2
    assert writes.name == "writes"


async def test_a_handler_that_fails_undoes_its_own_writes_alone_and_is_tried_again(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)

    @orders.on(transaction=True, retry=Retry(attempts=2, delay=10, jitter=False))
    def writes(event: Event[Placed], connection: Any) -> None:
        notes.write(connection, f"{event.key} {event.attempt}")
        if event.key == "bad" or (event.key == "late" and event.attempt == 1):
            raise ValueError("no")

    await harness.restart()
    await harness.append_batch(orders, [Placed("bad"), Placed("good"), Placed("late")])
    await harness.settle()
    first = notes.read()
    await harness.advance(10)
    await harness.crash()
    await harness.settle()

    assert (first, notes.read()) == (["good 1"], ["good 1", "late 2"])
    assert await parked(harness, orders.name, writes.name) == [(1, DeadKind.FAILED)]


@pytest.mark.parametrize(
    "error",
    [StopIteration(), asyncio.CancelledError(), LeaseLost("of another"), StoreNotOurs("another")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_handler_raises_is_its_own(
    harness: Harness, orders: Stream[Placed | Paid], error: BaseException
) -> None:
    await harness.open_once()
    notes = Notes(harness)

    @orders.on(transaction=True, retry=Retry(attempts=1))
    def writes(event: Event[Placed], connection: Any) -> None:
        notes.write(connection, event.key)
        if event.key == "bad":
            raise error

    await harness.restart()
    await harness.append_batch(orders, [Placed("bad"), Placed("good")])
    await harness.settle()

    assert notes.read() == ["good"]
    assert await parked(harness, orders.name, writes.name) == [(1, DeadKind.FAILED)]


@only_sqlite
async def test_a_commit_that_is_refused_and_written_later_has_the_writes_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    calls = list[str]()
    await harness.open_once()
    notes = Notes(harness)

    @orders.on(transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        calls.append(event.key)
        notes.write(connection, event.key)
        if len(calls) == 1:
            raise apsw.FullError("no space")

    await harness.append_batch(orders, [Placed("a"), Placed("b")])
    await harness.until(lambda: len(calls) >= 3)
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert (calls, sorted(notes.read())) == (["a", "a", "b"], ["a", "b"])
    assert writes.name == "writes"


async def test_a_run_started_in_a_handlers_transaction_is_there_with_what_it_wrote(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)

    @workflow
    async def ships_one(order: str) -> str:
        return f"shipped {order}"

    @orders.on(transaction=True, retry=Retry(attempts=2, delay=10, jitter=False))
    def writes(event: Event[Placed], connection: Any) -> None:
        run_id = start_within(ships_one(event.key))
        notes.write(connection, run_id)
        if event.attempt == 1:
            raise ValueError("not yet")

    await harness.append(orders, Placed("17"))
    await harness.settle()
    before = await harness.list()
    await harness.advance(10)
    (run_id,) = notes.read()

    assert len(before.runs) == 0
    assert await (await harness.get(run_id, ships_one)).result() == "shipped 17"
    assert len((await harness.list()).runs) == 1
    assert writes.name == "writes"


@only_sqlite
async def test_a_handler_may_not_write_to_perdures_tables_nor_end_the_transaction(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on(transaction=True, retry=Retry(give_up_on=(StepError,)))
    def writes(event: Event[Placed], connection: Any) -> None:
        connection.execute(event.key)

    await harness.append_batch(orders, [Placed("DELETE FROM event"), Placed("COMMIT"), Placed("SELECT 1")])
    await harness.settle()

    assert [place for place, _ in await parked(harness, orders.name, writes.name)] == [1, 2]


def test_what_cannot_be_called_with_an_event_and_a_connection_is_refused(
    orders: Stream[Placed | Paid],
) -> None:
    def takes_one(event: Event[Placed]) -> None: ...
    def takes_two(event: Event[Placed], connection: Any) -> None: ...
    async def awaits(event: Event[Placed], connection: Any) -> None: ...

    with pytest.raises(DefinitionError, match=r"takes_one.*event and a connection"):
        orders.on(Placed, transaction=True)(takes_one)
    with pytest.raises(DefinitionError, match=r"takes_two.*called with the event"):
        orders.on(Placed)(takes_two)
    with pytest.raises(DefinitionError, match=r"awaits.*async"):
        orders.on(Placed, transaction=True)(awaits)


async def test_a_commit_whose_answer_is_lost_has_a_handlers_writes_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)

    @orders.on(transaction=True)
    def writes(event: Event[Placed], connection: Any) -> None:
        notes.write(connection, event.key)

    await harness.append_batch(orders, [Placed(key) for key in "abc"])
    await harness.until(lambda: harness.engine.is_quiet)
    harness.store.fail_after_commit()
    with contextlib.suppress(StoreUnavailable):
        await harness.append(orders, Placed("d"))
        await harness.settle()
    await harness.crash()
    await harness.settle()

    assert sorted(notes.read())[:3] == ["a", "b", "c"]
    assert len(set(notes.read())) == len(notes.read())
    assert writes.name == "writes"
