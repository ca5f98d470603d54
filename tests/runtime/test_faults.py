"""A store that is full, stalls, fails, or answers that it failed when it did not."""

from __future__ import annotations

import asyncio

import apsw
import pytest

from perdure import (
    PerdureError,
    Signal,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    StoreUnreachable,
    step,
    workflow,
)
from perdure.stores.sqlite import SqliteStore
from perdure.testing import Harness
from perdure.testing.clock import loop_turn

more = Signal[int]("more")
effects: list[int] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def counts(number: int) -> int:
    effects.append(number)
    return number


@workflow
async def counts_up(to: int) -> list[int]:
    return [await counts(number) for number in range(to)]


@workflow
async def adds_two() -> int:
    return await more.receive() + await more.receive()


async def test_what_a_caller_asks_of_a_full_store_is_refused_and_leaves_no_trace(harness: Harness) -> None:
    run = await harness.engine.start(adds_two(), id="one")
    await harness.settle()

    harness.store.fill_up()
    with pytest.raises(StoreFull, match="nothing was written"):
        await harness.engine.start(adds_two(), id="two")
    await harness.settle()
    harness.store.fill_up()
    with pytest.raises(StoreFull):
        await run.send(more, 1)
    await harness.settle()
    for value in (10, 20):
        await run.send(more, value)

    assert await run.result() == 30
    assert [view.id for view in (await harness.engine.list()).runs] == ["one"]


@pytest.mark.parametrize(
    "error", [StoreFull("No space."), StoreLocked("In use."), StoreUnreachable("No answer.")]
)
async def test_runs_go_on_when_the_store_can_write_again_and_nothing_is_lost_or_done_twice(
    harness: Harness, error: StoreUnavailable
) -> None:
    run = await harness.engine.start(counts_up(20))
    harness.store.fail_before_commit(error, times=2)

    assert await run.result() == list(range(20))
    assert effects == list(range(20))
    assert list(harness.store.check()) == []


async def test_while_a_commit_is_held_up_the_loop_goes_on(harness: Harness) -> None:
    harness.store.hold_up_commits()
    starting = asyncio.create_task(harness.engine.start(counts_up(3)))
    await harness.until(lambda: harness.store.held_up)
    loop = asyncio.get_running_loop()

    longest = 0.0
    for _ in range(200):
        before = loop.time()
        await loop_turn()
        longest = max(longest, loop.time() - before)
    harness.store.release_commits()

    assert await (await starting).result() == [0, 1, 2]
    assert longest < 0.25


async def test_a_store_that_fails_stops_the_engine_and_everybody_who_waits_hears_why(
    harness: Harness,
) -> None:
    run = await harness.engine.start(adds_two(), id="one")
    waits = [asyncio.create_task(run.result()), asyncio.create_task(harness.engine.serve())]
    await harness.settle()

    harness.store.fail_before_commit()
    with pytest.raises(StoreUnavailable, match="The disk answered"):
        await run.send(more, 1)
    await asyncio.wait(waits)
    with pytest.raises(StoreUnavailable):
        await harness.engine.start(adds_two())
    await harness.restart()
    run = await harness.engine.get("one", adds_two)
    for value in (1, 2):
        await run.send(more, value)

    assert [type(wait.exception()) for wait in waits] == [StoreUnavailable, StoreUnavailable]
    assert await run.result() == 3


async def test_a_commit_that_was_written_and_reported_as_failed_is_not_repeated(harness: Harness) -> None:
    await harness.engine.start(counts_up(5), id="one")
    harness.store.fail_after_commit()
    await harness.until(lambda: harness.engine.driver.committer.error)
    await harness.restart()

    assert await (await harness.engine.get("one", counts_up)).result() == [0, 1, 2, 3, 4]
    assert sorted(set(effects)) == [0, 1, 2, 3, 4]
    assert list(harness.store.check()) == []


async def test_no_step_begins_after_the_engine_has_stopped(harness: Harness) -> None:
    await harness.engine.start(counts_up(1_000), id="one")
    harness.store.before_commit = lambda batch: (
        harness.store.fail_before_commit() if len(effects) == 5 else None
    )
    await harness.until(lambda: harness.engine.driver.committer.error)
    done = len(effects)

    await harness.settle()

    assert len(effects) == done


async def test_waiting_for_an_update_of_a_stopped_engine_ends(harness: Harness) -> None:
    run = await harness.engine.start(adds_two(), id="one")
    result = asyncio.create_task(run.result())
    await harness.settle()
    await harness.stop()

    with pytest.raises(PerdureError, match="closed before the run ended"):
        await result
    await harness.open()


async def test_a_program_that_holds_the_file_is_waited_for_and_the_warning_names_it(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    run = await harness.engine.start(adds_two(), id="one")
    await harness.settle()
    real: SqliteStore = harness.store.store  # pyright: ignore[reportAssignmentType]
    real._database._writer.set_busy_timeout(1)
    intruder = apsw.Connection(real._database.path)

    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="Nothing was written"):
        await run.send(more, 1)
    with pytest.raises(StoreLocked):
        await harness.engine.start(adds_two(), id="two")
    intruder.execute("ROLLBACK")
    intruder.close()
    await harness.settle()
    for value in (10, 20):
        await run.send(more, value)

    assert await run.result() == 30
    assert [view.id for view in (await harness.engine.list()).runs] == ["one"]
    assert "a database browser, a script or a backup" in caplog.text
    assert "nothing is lost" in caplog.text
