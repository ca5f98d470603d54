"""Runs that wait leave memory, and come back when time or a message comes for them."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

from perdure import Signal, State, step, workflow
from perdure.core.execution import Execution
from perdure.testing import Harness

poked = Signal[str]("poked")
level = State[int]("level")


@step
async def keeps(text: str) -> str:
    return text


@workflow
async def waits_for_pokes_and_time(name: str) -> list[str]:
    heard = [await keeps(name)]
    level.set(1)
    heard.append(await poked.receive())
    level.set(2)
    await asyncio.sleep(60)
    heard.append(await keeps("end"))
    return heard


async def test_only_so_many_waiting_runs_stay_in_memory_and_all_of_them_finish(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db", residents_kept=2) as harness:
        runs = [await harness.engine.start(waits_for_pokes_and_time(f"{number}")) for number in range(10)]
        await harness.settle()
        in_memory = len(harness.engine.driver.residents)
        for run in runs:
            await run.send(poked, "poke")
        await harness.settle()
        in_memory_asleep = len(harness.engine.driver.residents)
        await harness.advance(60)

        assert (in_memory, in_memory_asleep) == (2, 2)
        assert [await run.result() for run in runs] == [[f"{number}", "poke", "end"] for number in range(10)]
        assert [await run.state(level) for run in runs] == [2] * 10


async def test_clean_up_code_of_an_evicted_run_has_no_effect(tmp_path: Path) -> None:
    cleaned: list[str] = []

    @step
    async def cleans(text: str) -> None:
        cleaned.append(text)

    @workflow
    async def cleans_up_at_its_end() -> str:
        try:
            return await poked.receive()
        finally:
            await cleans("once")

    async with Harness(tmp_path / "runs.db", residents_kept=0) as harness:
        run = await harness.engine.start(cleans_up_at_its_end())
        await harness.settle()
        cleaned_when_evicted = list(cleaned)
        await run.send(poked, "poke")

        assert await run.result() == "poke"
    assert cleaned_when_evicted == []
    assert cleaned == ["once"]


async def test_a_run_that_is_found_on_disk_before_its_start_is_told_runs_once(harness: Harness) -> None:
    told = threading.Event()
    kept: list[str] = []

    @step
    async def keeps_once(text: str) -> str:
        kept.append(text)
        return text

    @workflow
    async def is_found_early() -> str:
        return await keeps_once("it")

    harness.store.after_commit = lambda batch: told.wait(20) if batch.starts else None
    starting = asyncio.create_task(harness.engine.start(is_found_early(), id="one"))
    harness.engine.driver.registry.add(is_found_early)
    await harness.until(lambda: harness.store.run_by_id("one"))
    harness.engine.driver.want(1)
    told.set()

    assert await (await starting).result() == "it"
    assert kept == ["it"]


async def test_a_signal_to_a_run_whose_end_is_on_its_way_to_disk_does_not_run_it_twice(
    harness: Harness,
) -> None:
    @workflow
    async def ends_on_a_poke() -> str:
        await keeps("before")
        return await poked.receive()

    run = await harness.engine.start(ends_on_a_poke())
    await harness.settle()
    harness.store.before_commit = lambda batch: harness.store.hold_up_commits() if batch.ends else None
    await run.send(poked, "first")
    await harness.until(lambda: harness.store.held_up)
    replies = asyncio.create_task(run.send(poked, "late"))
    harness.engine.driver.want(1)
    loaded = list(harness.engine.driver.residents)
    harness.store.before_commit = lambda batch: None
    harness.store.release_commits()

    assert await run.result() == "first"
    assert loaded == []
    await asyncio.wait([replies])
    assert "has ended" in str(replies.exception())


def executions_alive() -> list[Execution]:
    return [thing for thing in gc.get_objects() if type(thing) is Execution]


async def test_an_evicted_and_an_ended_run_leave_no_circle_for_the_collector(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db", residents_kept=0) as harness:
        gc.collect()
        before = executions_alive()  # of other tests: held here, none of them goes meanwhile
        gc.disable()
        try:
            run = await harness.engine.start(waits_for_pokes_and_time("one"))
            begun = len(executions_alive())
            # The writer's thread may hold what it has just written for a moment; a circle would stay.
            await harness.until(lambda: len(executions_alive()) == len(before))
            await run.send(poked, "poke")
            await harness.advance(60)

            assert await run.result() == ["one", "poke", "end"]
            await harness.until(lambda: len(executions_alive()) == len(before))
            assert begun == len(before) + 1
        finally:
            gc.enable()
