"""What an open engine does in the background, and undoes when it closes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perdure import DefinitionError, Engine, Signal, Workflow, workflow
from perdure.stores.base import RunQuery
from perdure.testing import Harness

DAY_S = 86_400.0
EVERY = RunQuery(limit=1_000)

release = Signal[None]("release")


@workflow
async def ends_at_once() -> str:
    return "done"


@workflow
async def waits() -> None:
    await release.receive()


async def test_a_run_is_removed_30_days_after_its_end_and_not_before(harness: Harness) -> None:
    for number in range(250):
        await harness.engine.start(ends_at_once(), id=f"old-{number}")
    await harness.engine.start(waits(), id="open")
    await harness.advance(2 * DAY_S)
    await harness.engine.run(ends_at_once(), id="young")
    await harness.advance(27 * DAY_S)
    kept = len((await harness.engine.list(limit=1_000)).runs)

    await harness.advance(2 * DAY_S)
    driver = harness.engine.driver
    await harness.until(lambda: len(driver.store.list_runs(EVERY)) == 52)  # so many at a time
    while len(driver.store.list_runs(EVERY)) > 2:
        await harness.advance(1)

    assert kept == 252
    assert {run.id for run in (await harness.engine.list()).runs} == {"open", "young"}
    assert list(driver.store.check()) == []


WHILE_OPEN_AND_AFTER = """
import asyncio, gc
from perdure import Engine

async def main():
    async with Engine("sqlite:///one.db"), Engine("sqlite:///two.db"):
        print(gc.get_threshold()[0] > before[0])
    print(gc.get_threshold() == before, gc.isenabled())

before = gc.get_threshold()
asyncio.run(main())
"""


def test_the_collector_waits_for_more_while_an_engine_is_open_and_is_restored(tmp_path: Path) -> None:
    # In a process of its own: in this one an engine of another test may have been left to the collector.
    program = [sys.executable, "-c", WHILE_OPEN_AND_AFTER]

    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "True", "True"]


async def test_thresholds_that_the_program_set_are_left_alone(tmp_path: Path) -> None:
    before = gc.get_threshold()
    gc.set_threshold(12_345, 5, 5)
    try:
        async with Engine(f"sqlite:///{tmp_path}/one.db"):
            while_open = gc.get_threshold()
        after = gc.get_threshold()
    finally:
        gc.set_threshold(*before)

    assert while_open == after == (12_345, 5, 5)


async def test_an_engine_that_cannot_open_leaves_the_lease_and_no_thread(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    threads = threading.active_count()

    with pytest.raises(DefinitionError, match="Two workflows are named"):
        async with Engine(url, workflows=[ends_at_once, _rival()]):
            pass

    assert threading.active_count() == threads
    async with Engine(url) as engine:
        assert await engine.run(ends_at_once()) == "done"


def _rival() -> Workflow[[], str]:
    @workflow(name="ends_at_once")
    async def rival() -> str:
        return "the rival"

    return rival
