"""How an engine ends: with steps under way, with an error in its body, when it is interrupted."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perdure import Client, Engine, PerdureError, StoreError, step, workflow
from perdure.testing import Harness
from tests.runtime.test_glance import driver_of
from tests.runtime.waiting import until

begun: list[str] = []
cleaned: list[str] = []
hold = asyncio.Event()


@pytest.fixture(autouse=True)
def forget() -> None:
    global hold
    begun.clear()
    cleaned.clear()
    hold = asyncio.Event()


@step
async def takes_long(what: str) -> str:
    begun.append(what)
    try:
        await hold.wait()
    finally:
        cleaned.append(what)
    return what


@step
async def follows(what: str) -> str:
    begun.append(what)
    return what


@workflow
async def works_long() -> list[str]:
    return [await takes_long("long"), await follows("after")]


async def test_steps_under_way_are_stopped_and_run_again_in_the_next_engine(harness: Harness) -> None:
    await harness.engine.start(works_long(), id="one")
    await harness.until(lambda: begun)
    await harness.stop()
    cleaned_at_close = list(cleaned)
    hold.set()
    await harness.open()

    assert await (await harness.engine.get("one", works_long)).result() == ["long", "after"]
    assert cleaned_at_close == ["long"]
    assert begun == ["long", "long", "after"]


async def test_a_step_that_ends_well_in_spite_of_being_stopped_is_recorded_and_nothing_new_begins(
    harness: Harness,
) -> None:
    @step
    async def ends_well_anyway() -> str:
        begun.append("stubborn")
        with suppress(asyncio.CancelledError):
            await hold.wait()
        return "well"

    @workflow
    async def is_stubborn_at_the_end() -> list[str]:
        return [await ends_well_anyway(), await follows("after")]

    await harness.engine.start(is_stubborn_at_the_end(), id="one")
    await harness.until(lambda: begun)
    await harness.stop()
    begun_at_close = list(begun)
    await harness.open()

    assert await (await harness.engine.get("one", is_stubborn_at_the_end)).result() == ["well", "after"]
    assert begun_at_close == ["stubborn"]
    assert begun == ["stubborn", "after"]


async def test_who_waits_for_a_result_is_told_when_the_engine_closes(harness: Harness) -> None:
    run = await harness.engine.start(works_long())
    waiting = asyncio.create_task(run.result())
    await harness.settle()
    await harness.stop()

    with pytest.raises(StoreError, match="goes on when an engine opens the store"):
        await waiting
    await harness.open()


async def test_who_was_looking_for_an_end_when_the_engine_closed_is_told_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_read, may_be_told = threading.Event(), threading.Event()
    async with Client(postgres_url) as client, Engine(postgres_url, workflows=[]) as engine:
        run = await client.start(works_long(), id="it")  # which this engine does not run
        store = driver_of(engine).store
        find = store.run_by_number

        def find_late(number: int) -> Any:
            is_read.set()
            may_be_told.wait(20)
            return find(number)

        monkeypatch.setattr(store, "run_by_number", find_late)
        waiting = asyncio.create_task((await engine.get(run.id)).result())
        await until(is_read.is_set)
    may_be_told.set()

    with pytest.raises(StoreError, match="has stopped"):
        await waiting
    del waiting
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_handle_of_a_closed_engine_says_so(harness: Harness) -> None:
    run = await harness.engine.start(works_long())
    await harness.stop()

    with pytest.raises(PerdureError, match="not open"):
        await run.status()
    await harness.open()


@pytest.mark.parametrize("error", [ValueError("in the body"), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_an_error_in_the_body_closes_the_engine_and_passes(
    tmp_path: Path, error: BaseException
) -> None:
    url = f"sqlite:///{tmp_path}/body.db"

    async def opens_and_fails() -> None:
        async with Engine(url) as engine:
            await engine.start(works_long(), id="one")
            raise error

    with pytest.raises(type(error)) as caught:
        await opens_and_fails()

    assert caught.value is error
    hold.set()
    async with Engine(url) as engine:
        assert await (await engine.get("one", works_long)).result() == ["long", "after"]


async def test_an_engine_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/again.db")
    hold.set()

    results: list[list[str]] = []
    for name in ("a", "b"):
        async with engine:
            results.append(await engine.run(works_long(), id=name))

    assert results == [["long", "after"], ["long", "after"]]


def test_a_program_that_is_interrupted_leaves_runs_that_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/interrupted.db"

    async def is_interrupted() -> None:
        global hold
        hold = asyncio.Event()
        async with Engine(url) as engine:
            await engine.start(works_long(), id="one")
            raise KeyboardInterrupt

    async def goes_on() -> list[str]:
        global hold
        hold = asyncio.Event()
        hold.set()
        async with Engine(url) as engine:
            return await (await engine.get("one", works_long)).result()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(is_interrupted())

    assert asyncio.run(goes_on()) == ["long", "after"]
