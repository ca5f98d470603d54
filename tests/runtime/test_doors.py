"""What many callers of a client ask at once is done at once, and each hears_all of its own."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Client, RunDamaged, Signal, StoreError, step, workflow
from perdure.core.records import Message, MessageKind, NewRun
from perdure.doors import StoreDoor
from perdure.stores.base import Batch, Committed, Reply, RunQuery, Store
from perdure.stores.opening import open_store
from perdure.testing import Harness
from tests.stores.build import new_run, start

word = Signal[int]("word")
DEFINITION: Any = None
"""A client does not look at it."""


@step
async def doubles(value: int) -> int:
    return 2 * value


@workflow
async def doubled(value: int) -> int:
    return await doubles(value)


@workflow
async def hears_all(count: int) -> list[int]:
    return [await word.receive() for _ in range(count)]


class LookedAt:
    """A real store. Keeps what is asked of it, and holds up what it is to write as long as it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[Batch] = []
        self.reads: list[str] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __getattr__(self, name: str) -> Any:
        self.reads.append(name)
        return getattr(self.store, name)

    def submit(self, batch: Batch) -> Committed:
        self.batches.append(batch)
        assert self.goes_on.wait(20)
        return self.store.submit(batch)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LookedAt]:
    url: str = (
        f"sqlite:///{tmp_path}/runs.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    opened = open_store(url)
    yield LookedAt(opened)
    opened.close()


def door_to(store: LookedAt) -> StoreDoor:
    looked_at: Any = store
    return StoreDoor(looked_at)


async def start_all(door: StoreDoor, starts: list[NewRun]) -> list[Any]:
    asked = (door.start(new, DEFINITION) for new in starts)
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_what_many_callers_start_at_once_is_written_in_one_commit(store: LookedAt) -> None:
    door = door_to(store)

    outcomes = await start_all(door, [new_run(f"order-{number}") for number in range(200)])

    assert [len(batch.starts) for batch in store.batches] == [200]
    assert [outcome.run.id for outcome in outcomes] == [f"order-{number}" for number in range(200)]
    await door.close()


async def test_what_comes_while_a_commit_is_under_way_goes_into_the_next(store: LookedAt) -> None:
    door = door_to(store)
    store.goes_on.clear()
    first = asyncio.create_task(start_all(door, [new_run("order-1")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    later = asyncio.create_task(start_all(door, [new_run("order-2"), new_run("order-3")]))
    await asyncio.sleep(0)
    store.goes_on.set()
    await asyncio.gather(first, later)

    assert [[new.id for new in batch.starts] for batch in store.batches] == [
        ["order-1"],
        ["order-2", "order-3"],
    ]
    await door.close()


async def test_one_commit_holds_a_thousand_starts_at_most_and_some_megabytes(store: LookedAt) -> None:
    door = door_to(store)
    large = [new_run(f"large-{number}", input=b"x" * 3_000_000) for number in range(3)]

    await start_all(door, [*(new_run(f"order-{number}") for number in range(1_500)), *large])

    assert [len(batch.starts) for batch in store.batches] == [1_000, 502, 1]
    await door.close()


async def test_a_start_that_nobody_waits_for_any_more_is_not_written(store: LookedAt) -> None:
    door = door_to(store)
    store.goes_on.clear()
    first = asyncio.create_task(start_all(door, [new_run("order-1")]))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(door.start(new_run("order-2"), DEFINITION))
    await asyncio.sleep(0)

    given_up.cancel()
    await asyncio.sleep(0)
    store.goes_on.set()
    await first
    await door.close()

    assert [new.id for batch in store.batches for new in batch.starts] == ["order-1"]


async def test_what_is_on_its_way_when_the_door_closes_is_written(store: LookedAt) -> None:
    door = door_to(store)
    store.goes_on.clear()
    first = asyncio.create_task(start_all(door, [new_run("order-1")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    behind = asyncio.create_task(start_all(door, [new_run("order-2")]))
    await asyncio.sleep(0)

    closing = asyncio.create_task(door.close())
    await asyncio.sleep(0)
    store.goes_on.set()
    await closing

    assert [outcome.verdict for outcome in [*await first, *await behind]] == ["started", "started"]


async def test_a_start_that_cannot_be_kept_hinders_no_other(postgres_url: str) -> None:
    store = LookedAt(open_store(postgres_url))
    door = door_to(store)
    chance = random.Random(7)
    too_long = new_run("".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(3_000)))

    refused, *others = await start_all(door, [too_long, new_run("order-1"), new_run("order-2")])

    assert isinstance(refused, StoreError)
    assert "cannot be kept" in str(refused)
    assert [outcome.verdict for outcome in others] == ["started", "started"]
    assert {row.id for row in store.store.list_runs(RunQuery())} == {"order-1", "order-2"}
    await door.close()


async def test_signals_that_are_sent_at_once_come_in_the_order_of_the_calls(harness: Harness) -> None:
    async with Client(harness.url) as client:
        run = await client.start(hears_all(50))

        await asyncio.gather(*(run.send(word, number) for number in range(50)))

        assert await run.result() == list(range(50))


async def test_one_look_is_for_all_the_ends_that_are_waited_for(harness: Harness) -> None:
    async with Client(harness.url) as client:
        store: Any = LookedAt(open_store(harness.url))
        await client.door.close()
        client._door = StoreDoor(store)
        runs = [await client.start(doubled(number)) for number in range(100)]
        store.reads.clear()

        results = await asyncio.gather(*(run.result() for run in runs))

        assert results == [2 * number for number in range(100)]
        assert store.reads.count("stopped_runs") < 20
        assert "run_by_number" not in store.reads


async def test_one_look_is_for_all_the_answers_that_are_waited_for(store: LookedAt) -> None:
    door = door_to(store)
    lease = store.store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store.store, lease)
    asked = [message_to(run, f"q{number}") for number in range(100)]
    answers = asyncio.gather(*(door.ask(message) for message in asked))
    await asyncio.sleep(0)

    replies = [Reply(message.request, ok=True, payload=b"1", at_ms=1) for message in asked]
    store.store.commit(lease, Batch(replies=replies))

    assert await answers == replies
    assert store.reads.count("replies") < 10
    assert "reply" not in store.reads
    await door.close()


def message_to(run: int, request: str) -> Message:
    return Message(0, run, MessageKind.UPDATE, "rename", b"1", request, 1)


async def test_a_damaged_run_is_told_to_who_waits_for_it_and_to_no_other(
    harness: Harness, tmp_path: Path
) -> None:
    async with Client(harness.url) as client:
        good, bad = await client.start(doubled(1), id="good"), await client.start(doubled(2), id="bad")
        await asyncio.gather(good.result(), bad.result())
        await harness.stop()
        with apsw.Connection(harness.url.removeprefix("sqlite:///")) as file:
            file.execute("UPDATE run SET output = '5' WHERE id = 'bad'")

        found, wrong = await asyncio.gather(good.result(), bad.result(), return_exceptions=True)

    assert found == 2
    assert isinstance(wrong, RunDamaged)


async def test_who_gives_up_waiting_for_an_end_leaves_the_others_waiting(harness: Harness) -> None:
    async with Client(harness.url) as client:
        run = await client.start(hears_all(1))
        stays, leaves = asyncio.create_task(run.result()), asyncio.create_task(run.result())
        await asyncio.sleep(0)

        leaves.cancel()
        await asyncio.sleep(0)
        await run.send(word, 7)

        assert await stays == [7]
        assert leaves.cancelled()


async def test_who_waits_again_after_all_have_given_up_is_told(harness: Harness) -> None:
    async with Client(harness.url) as client:
        run = await client.start(hears_all(1))
        leaves = asyncio.create_task(run.result())
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.sleep(0)
        await run.send(word, 7)

        assert await run.result() == [7]
