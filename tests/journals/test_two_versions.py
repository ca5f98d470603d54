"""A deploy that does not fit leaves its runs parked; code that fits takes them up again by itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from perdure import JournalMismatch, Retry, RunParked, RunStatus, Signal, Workflow, step, workflow
from perdure.stores.base import Batch
from perdure.testing import Harness
from tests.faces.conftest import Perdure, Spawn, next_line
from tests.journals.conftest import Version

paid = Signal[str]("paid")
shipped: list[str] = []
broken = True


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    global broken
    broken = True
    shipped.clear()


@step
async def check(order: str) -> str:
    return f"{order} checked"


@step
async def ship(order: str) -> str:
    shipped.append(order)
    return f"{order} shipped"


@step(retry=Retry(attempts=1))
async def pack(order: str) -> str:
    if broken:
        raise OSError("out of boxes")
    return f"{order} packed"


@workflow(name="fulfil")
async def old_code(order: str) -> list[str]:
    done = await ship(order)
    return [done, await paid.receive()]


@workflow(name="fulfil")
async def new_code(order: str) -> list[str]:
    await check(order)
    done = await ship(order)
    return [done, await paid.receive()]


@workflow(name="fulfil")
async def code_of_another_input(order: str, cents: int) -> list[str]:
    return [order, await paid.receive()]


@workflow(name="fulfil")
async def code_that_forgets_an_await(order: str) -> list[str]:
    done = await ship(order)
    ship("again")  # type: ignore[unused-coroutine]
    return [done, await paid.receive()]


@workflow
async def waits(order: str) -> str:
    return await paid.receive()


@workflow
async def packs(order: str) -> str:
    return await pack(order)


def open_with(path: Path, *workflows: Workflow[Any, Any]) -> Harness:
    return Harness(path, workflows=[*workflows, waits, packs])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize("wrong", [new_code, code_of_another_input, code_that_forgets_an_await], ids=repr)
async def test_a_run_that_new_code_parked_goes_on_by_itself_with_code_that_fits(
    path: Path, wrong: Workflow[Any, Any]
) -> None:
    async with open_with(path, old_code) as harness:
        await harness.engine.start(old_code("17"), id="17")
        await harness.settle()
    async with open_with(path, wrong) as harness:
        other = await harness.engine.start(waits("18"), id="18")
        run = await harness.engine.get("17", wrong)
        await run.send(paid, "ann")
        await other.send(paid, "bob")
        assert await other.result() == "bob"
        with pytest.raises(RunParked):
            await run.result()

    async with open_with(path, old_code) as harness:
        run = await harness.engine.get("17", old_code)

        assert await run.result() == ["17 shipped", "ann"]
    assert shipped == ["17"]


async def test_a_run_that_still_does_not_fit_stays_parked_and_nothing_is_written(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_with(path, old_code) as harness:
        run = await harness.engine.start(old_code("17"), id="17")
        await run.send(paid, "ann")
        await harness.engine.start(old_code("19"), id="19")
        await harness.settle()
    async with open_with(path, new_code) as harness:
        run = await harness.engine.get("19", new_code)
        await run.send(paid, "ann")
        with pytest.raises(RunParked) as before:
            await run.result()
    written: list[Batch] = []
    caplog.clear()

    async with open_with(path, new_code) as harness:
        harness.store.before_commit = written.append
        run = await harness.engine.get("19", new_code)
        await harness.settle()

        with pytest.raises(RunParked) as after:
            await run.result()
    assert not any(batch.ends or batch.records or batch.taken for batch in written)
    assert isinstance(after.value.__cause__, JournalMismatch)
    assert str(after.value) == str(before.value)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "0 go on with this code; 1 still do not fit it" in told[0]


async def test_a_run_that_is_parked_for_a_step_that_failed_stays_with_the_person(path: Path) -> None:
    global broken
    async with open_with(path) as harness:
        await harness.engine.start(packs("17"), id="17")
        await harness.settle()
    broken = False

    async with open_with(path) as harness:
        run = await harness.engine.get("17", packs)
        await harness.settle()
        stayed = await run.status()
        await run.resume()

        assert await run.result() == "17 packed"
    assert stayed is RunStatus.PARKED


async def test_a_run_that_goes_on_again_survives_a_crash_at_once(path: Path) -> None:
    async with open_with(path, old_code) as harness:
        await harness.engine.start(old_code("17"), id="17")
        await harness.settle()
    async with open_with(path, new_code) as harness:
        await (await harness.engine.get("17", new_code)).send(paid, "ann")
        await harness.settle()

    async with open_with(path, old_code) as harness:
        await harness.crash()
        run = await harness.engine.get("17", old_code)

        assert await run.result() == ["17 shipped", "ann"]
    assert shipped == ["17"]


async def test_many_parked_runs_are_tried_beside_other_work(path: Path) -> None:
    async with open_with(path, old_code) as harness:
        for number in range(450):
            await harness.engine.start(old_code(str(number)), id=str(number))
        await harness.settle()
    async with open_with(path, new_code) as harness:
        for number in range(450):
            await (await harness.engine.get(str(number), new_code)).send(paid, "ann")
        await harness.settle()
        parked = (await harness.engine.counts())["parked"]

    async with open_with(path, old_code) as harness:
        await harness.settle()

        assert (await harness.engine.counts()) == {"completed": 450}
    assert parked == 450
    assert len(shipped) == 450


OLD = """
@workflow
async def fulfil(order: str) -> str:
    done = await ship(order)
    return done + await paid.receive()

@workflow
async def asks(order: str) -> str:
    return await paid.receive()
"""


def test_workers_of_two_versions_over_one_file(perdure: Perdure, version: Version, spawn: Spawn) -> None:
    """As on a command line: a worker, a bad deploy, the old code again."""
    version(OLD)
    for target, id in (("app:fulfil", "17"), ("app:asks", "18")):
        perdure("start", target, "--input", '"tea"', "--id", id)
    with spawn("worker", "app", "--json") as worker:
        next_line(worker, "{")
        shown = ""
        while "ship → " not in shown:
            shown = perdure("show", "17").out
    version(OLD.replace("    done", "    await notify(order)\n    done"))
    checked = perdure("deploy-check", "app")
    with spawn("worker", "app", "--json") as worker:
        next_line(worker, "{")
        for id in ("17", "18"):
            perdure("send", id, "paid", '" paid"')
        # The bad deploy parks one and serves the other.
        other = perdure("run", "app:asks", "--input", '"tea"', "--id", "18")
        next_line(worker, "", of="stderr")
        while "parked" not in shown:
            shown = perdure("list", "--status", "parked", "--json").out
    version(OLD)
    mended = perdure("deploy-check", "app")

    with spawn("worker", "app", "--json") as worker:
        next_line(worker, "{")
        answer = perdure("run", "app:fulfil", "--input", '"tea"', "--id", "17")

    assert checked.code == 1
    assert "fulfil: 1 run needs patched()" in checked.out
    assert other.json == " paid"
    assert "1 parked run would go on with this code" in mended.err
    assert (answer.code, answer.json) == (0, "tea shipped paid")
