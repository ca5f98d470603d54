"""Giving events to runs that wait for them on PostgreSQL, by workers that are hindered, or killed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from perdure import Client, Stream, workflow
from perdure.errors import StoreUnreachable
from perdure.testing import Harness
from perdure.testing.fixtures import provide_harness


@dataclass(frozen=True)
class Arrived:
    parcel: str
    place: str


arrivals: Stream[Arrived] = Stream("arrivals-given", Arrived, key=lambda one: one.parcel)


@pytest.fixture
def harness(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Harness]:
    yield from provide_harness(request, time_flies=False, path=postgres_url)


@workflow
async def waits(parcel: str, times: int) -> list[str]:
    return [(await arrivals.next(Arrived, where={"parcel": parcel})).data.place for _ in range(times)]


@pytest.mark.parametrize("is_written", [False, True], ids=["before it is written", "after it was written"])
async def test_what_a_worker_is_hindered_in_giving_is_given_after_the_next_glance(
    harness: Harness, is_written: bool
) -> None:
    run = await harness.start(waits("a", 1))
    await harness.settle()
    streams = harness.store.store.streams
    give, tries = streams.give_awaited, list[Any]()

    def give_or_fail(*given: Any) -> Any:
        tries.append(given)
        if len(tries) > 1:
            return give(*given)
        if is_written:
            give(*given)
        raise StoreUnreachable("The connection broke.")

    streams.give_awaited = give_or_fail  # type: ignore[method-assign]
    await harness.append(arrivals, Arrived("a", "here"))

    assert await run.result() == ["here"]
    assert len(tries) == 2 - is_written


async def test_an_event_that_a_transaction_elsewhere_holds_back_is_given_when_that_has_ended(
    harness: Harness, postgres_server: str
) -> None:
    """Nobody tells of its end, and here nobody glances."""
    run = await harness.start(waits("a", 1))
    await harness.settle()
    harness.engine._lookout.stop()  # type: ignore[union-attr]
    with psycopg.connect(postgres_server) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        await harness.append(arrivals, Arrived("a", "here"))
        await harness.until(lambda: harness.engine._subscriptions.giving._held_back.is_waiting)  # type: ignore[union-attr]
        before = (await run.status()).name
        connection.rollback()

    assert (before, await run.result()) == ("RUNNING", ["here"])


async def test_however_often_its_worker_is_killed_a_run_is_given_each_event_once_and_in_order(
    harness: Harness,
) -> None:
    chance = random.Random(4)
    names = [str(number) for number in range(5)]
    run = await harness.start(waits("a", len(names)), id="one")
    async with Client(harness.url) as client:
        for name in names:
            await client.append(arrivals, Arrived("b", name))
            await client.append(arrivals, Arrived("a", name))
            match chance.randrange(3):
                case 0:
                    await harness.crash()
                case 1:
                    await harness.settle()
                case _:
                    pass

    assert await run.result() == names
