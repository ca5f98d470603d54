"""Two workers and one file: one works, and who lost the lease writes nothing."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Engine, LeaseLost, Signal, StoreInUse, step, workflow
from perdure.runtime.lease import LEASE_MS
from perdure.testing import Harness

ready = Signal[str]("ready")
worked: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    worked.clear()


@step
async def works(what: str) -> str:
    worked.append(what)
    return what


@workflow
async def works_when_ready() -> list[str]:
    first = await works("first")
    await ready.receive()
    return [first, await works("second")]


async def test_a_fifth_engine_is_told_who_holds_the_file(harness: Harness) -> None:
    one, two, three = (Engine(harness.url, clock=harness.clock) for _ in range(3))
    async with one, two, three:
        with pytest.raises(StoreInUse, match=r"has 4 workers already.*\(process \d+\).*as a client"):
            async with Engine(harness.url, clock=harness.clock):
                pass


async def test_a_store_is_free_when_its_engine_has_closed(harness: Harness) -> None:
    await harness.stop()

    async with Engine(harness.url) as engine:
        assert (await engine.list()).runs == []
    await harness.open()


async def test_the_lease_is_renewed_for_as_long_as_the_engine_runs(harness: Harness) -> None:
    for _ in range(10):
        await harness.advance(LEASE_MS / 1000 - 1)

    (worker,) = await harness.workers()
    assert worker.until.timestamp() * 1000 > harness.clock.now_ms()


async def test_who_lost_the_lease_writes_nothing_and_all_who_wait_hear_of_it(
    harness: Harness,
) -> None:
    run = await harness.engine.start(works_when_ready(), id="one")
    await harness.settle()
    waits = [asyncio.create_task(run.result()), asyncio.create_task(harness.engine.serve())]
    await harness.settle()
    # The first worker is paused past its lease; the second takes over.
    harness.store.hold_up_commits()
    sending = asyncio.create_task(run.send(ready, "from the first"))
    await harness.until(lambda: harness.store.held_up)
    harness.clock.jump(LEASE_MS / 1000 + 1)
    second = Harness(harness.url.removeprefix("sqlite:///"), clock=harness.clock)
    async with second:
        harness.store.release_commits()
        with pytest.raises(LeaseLost, match="found it over"):
            await sending
        await asyncio.wait(waits)
        with pytest.raises(LeaseLost):
            await harness.engine.start(works_when_ready(), id="two")
        goes_on = await second.engine.get("one", works_when_ready)
        await goes_on.send(ready, "from the second")

        assert await goes_on.result() == ["first", "second"]
        assert [type(wait.exception()) for wait in waits] == [LeaseLost, LeaseLost]
        assert [view.id for view in (await second.engine.list()).runs] == ["one"]
    assert worked == ["first", "second"]


async def test_a_worker_that_died_is_replaced_at_once(harness: Harness) -> None:
    await harness.engine.start(works_when_ready(), id="one")
    await harness.settle()

    await harness.crash()

    run = await harness.engine.get("one", works_when_ready)
    await run.send(ready, "go")
    assert await run.result() == ["first", "second"]
    assert worked == ["first", "second"]
