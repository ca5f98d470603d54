"""What a workflow uses in place of clocks, chance and its own version."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from perdure import OutsideRun, RunFacts, Signal, now, patched, random, run_info, step, uuid, workflow
from perdure.testing import Harness
from perdure.testing.clock import START_MS

proceed = Signal[str]("proceed")


@step
async def note(text: str) -> str:
    return text


async def test_now_is_the_time_of_the_runs_last_event(harness: Harness) -> None:
    @workflow
    async def reads_the_time() -> list[datetime]:
        times = [now()]
        await asyncio.sleep(60)
        return [*times, now()]

    run = await harness.engine.start(reads_the_time(), id="one")
    await harness.crash()
    await harness.advance(60)

    times = await (await harness.engine.get("one", reads_the_time)).result()
    start = datetime.fromtimestamp(START_MS / 1000, tz=UTC)
    assert [(at - start).total_seconds() for at in times] == [0, 60]
    assert run.id == "one"


async def test_chance_is_the_same_in_a_replay_and_another_in_each_run_and_task(harness: Harness) -> None:
    seen: list[tuple[str, list[str]]] = []

    @workflow
    async def rolls_dice() -> None:
        async def roll() -> list[str]:
            return [str(random().random()), str(uuid())]

        drawn = [*await roll(), *await asyncio.create_task(roll())]
        seen.append((run_info().id, drawn))
        await asyncio.sleep(60)

    await harness.engine.start(rolls_dice(), id="one")
    await harness.engine.start(rolls_dice(), id="two")
    await harness.settle()
    await harness.crash()
    await harness.advance(60)

    first = dict(seen[:2])
    assert all(first[run] == drawn for run, drawn in seen[2:])
    assert len(seen) >= 4
    assert len({*first["one"], *first["two"]}) == 8


async def test_a_run_knows_who_it_is(harness: Harness) -> None:
    @workflow
    async def tells_who_it_is() -> list[str]:
        facts: RunFacts = run_info()
        return [facts.id, facts.workflow, str(facts.generation)]

    assert await harness.engine.run(tells_who_it_is(), id="me") == ["me", "tells_who_it_is", "1"]


async def test_patched_code_runs_in_new_runs_and_in_their_replays_only(harness: Harness) -> None:
    new_code = False

    @workflow
    async def changes_over_time() -> str:
        text = await note("old")
        if new_code and patched("greet"):
            text = await note("new")
        await proceed.receive()
        return text

    await harness.engine.start(changes_over_time(), id="before")
    await harness.settle()
    await harness.stop()
    new_code = True
    await harness.open()
    await harness.engine.start(changes_over_time(), id="after")
    await harness.settle()
    await harness.crash()

    results: list[str] = []
    for run_id in ("before", "after"):
        run = await harness.engine.get(run_id, changes_over_time)
        await run.send(proceed, "go")
        results.append(await run.result())
    assert results == ["old", "new"]


@pytest.mark.parametrize("ask", [now, random, uuid, run_info, lambda: patched("x")])
async def test_outside_a_run_there_is_no_such_thing(ask: object) -> None:
    with pytest.raises(OutsideRun):
        ask()  # type: ignore[operator]


async def test_a_task_that_failed_and_that_nobody_awaited_is_told_of_once(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def forgets_a_task() -> str:
        async def fails() -> None:
            raise ValueError("nobody hears me")

        task = asyncio.create_task(fails())
        await asyncio.sleep(1)
        return "done" if task.done() else "not yet"

    await harness.engine.start(forgets_a_task(), id="one")
    await harness.settle()
    await harness.restart()

    await harness.advance(1)

    assert await (await harness.engine.get("one")).result() == "done"
    told = [record.getMessage() for record in caplog.records]
    assert told == ["A task of run 'one' failed, and nobody awaited it."]
    assert "nobody hears me" in caplog.text
