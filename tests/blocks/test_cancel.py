"""Stopping runs: cancel, which lets them clean up, terminate, which does not, and their own timeouts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from perdure import Client, RunCancelled, RunStatus, RunTerminated, RunTimedOut, step, workflow
from perdure.testing import Harness

cleaned: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    cleaned.clear()


@step
async def clean_up(what: str) -> None:
    cleaned.append(what)


@workflow
async def sleeps_and_cleans_up() -> None:
    try:
        await asyncio.sleep(1_000)
    finally:
        await clean_up("a")
        await clean_up("b")


@workflow(timeout=30)
async def has_half_a_minute() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await clean_up("late")


async def test_a_cancelled_run_cleans_up_and_ends_as_cancelled_with_the_reason(harness: Harness) -> None:
    run = await harness.engine.start(sleeps_and_cleans_up(), id="one")

    await run.cancel("the customer left")

    with pytest.raises(RunCancelled, match="'one' was cancelled: the customer left"):
        await run.result()
    assert cleaned == ["a", "b"]
    assert await run.status() is RunStatus.CANCELLED


async def test_a_cancel_is_durable_and_clean_up_goes_on_after_a_crash(harness: Harness) -> None:
    run = await harness.engine.start(sleeps_and_cleans_up(), id="one")
    harness.store.before_commit = lambda batch: harness.store.kill() if cleaned == ["a", "b"] else None
    await run.cancel("enough")
    await harness.until(lambda: harness.engine.driver.committer.error)
    await harness.crash()

    with pytest.raises(RunCancelled, match="enough"):
        await (await harness.engine.get("one")).result()
    assert cleaned == ["a", "b", "b"]


async def test_a_run_is_cancelled_while_no_worker_runs(harness: Harness) -> None:
    await harness.engine.start(sleeps_and_cleans_up(), id="one")
    await harness.settle()
    await harness.stop()
    async with Client(harness.url) as client:
        await client.cancel("one", "meanwhile")
    await harness.open()

    with pytest.raises(RunCancelled, match="meanwhile"):
        await (await harness.engine.get("one")).result()
    assert cleaned == ["a", "b"]


async def test_an_evicted_run_is_cancelled(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db", residents_kept=0) as harness:
        run = await harness.engine.start(sleeps_and_cleans_up())
        await harness.settle()
        assert not harness.engine.driver.residents

        await run.cancel()

        with pytest.raises(RunCancelled):
            await run.result()
    assert cleaned == ["a", "b"]


async def test_a_run_that_swallows_its_cancellation_meets_it_again(harness: Harness) -> None:
    @workflow
    async def is_stubborn() -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                await clean_up("swallowed")
        return "survived"

    run = await harness.engine.start(is_stubborn())
    await run.cancel()
    await harness.settle()

    assert await run.status() is not RunStatus.RUNNING


async def test_cancelling_a_run_that_has_ended_changes_nothing(harness: Harness) -> None:
    @workflow
    async def is_done_already() -> str:
        return "done"

    run = await harness.engine.start(is_done_already())
    await run.result()

    await run.cancel()
    await run.terminate()
    await harness.settle()

    assert await run.result() == "done"


async def test_cancelling_twice_is_once(harness: Harness) -> None:
    run = await harness.engine.start(sleeps_and_cleans_up())

    await asyncio.gather(run.cancel("first"), run.cancel("second"))

    with pytest.raises(RunCancelled, match="first"):
        await run.result()
    assert cleaned == ["a", "b"]


async def test_a_terminated_run_ends_at_once_without_clean_up(harness: Harness) -> None:
    run = await harness.engine.start(sleeps_and_cleans_up(), id="one")
    await harness.settle()

    await run.terminate("it has gone mad")

    with pytest.raises(RunTerminated, match="'one' was terminated: it has gone mad"):
        await run.result()
    await harness.crash()
    await harness.advance(2_000)
    assert cleaned == []
    assert (await harness.engine.info("one")).status is RunStatus.TERMINATED


async def test_terminating_stops_the_step_under_way(harness: Harness) -> None:
    stopped: list[str] = []

    @step
    async def works_and_works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("stopped")

    @workflow
    async def works_for_ever() -> None:
        await works_and_works()

    run = await harness.engine.start(works_for_ever())
    await harness.settle()
    await run.terminate()
    await harness.settle()

    assert stopped == ["stopped"]


async def test_a_run_that_takes_too_long_cleans_up_and_ends_as_timed_out(harness: Harness) -> None:
    run = await harness.engine.start(has_half_a_minute(), id="one")
    await harness.advance(29)
    before = await run.status()
    await harness.advance(1)

    with pytest.raises(RunTimedOut, match="'one' took longer than its timeout"):
        await run.result()
    assert before is RunStatus.RUNNING
    assert cleaned == ["late"]


async def test_start_may_give_another_timeout(harness: Harness) -> None:
    run = await harness.engine.start(has_half_a_minute(), timeout=timedelta(hours=1))
    await harness.advance(3_599)
    before = await run.status()
    await harness.advance(1)

    assert (before, await run.status()) == (RunStatus.RUNNING, RunStatus.TIMED_OUT)


async def test_a_timeout_counts_on_while_no_worker_runs(harness: Harness) -> None:
    await harness.engine.start(has_half_a_minute(), id="one")
    await harness.settle()
    await harness.kill()
    harness.clock.jump(100)
    await harness.open()

    with pytest.raises(RunTimedOut):
        await (await harness.engine.get("one")).result()
    assert cleaned == ["late"]


async def test_clean_up_after_a_timeout_may_take_its_time(harness: Harness) -> None:
    @workflow
    async def cleans_up_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(100)
            await clean_up("slowly")

    run = await harness.engine.start(cleans_up_slowly(), timeout=10)
    await harness.advance(111)

    with pytest.raises(RunTimedOut):
        await run.result()
    assert cleaned == ["slowly"]
