"""continue_as_new: one id, one journal after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from perdure import Client, RunCancelled, RunStatus, Signal, Update, continue_as_new, run_info, step, workflow
from perdure.testing import Harness

T = TypeVar("T")

poke = Signal[int]("poke")
which = Update[int, str]("which")


@step
async def add(one: int, other: int) -> int:
    return one + other


@workflow
async def counts_to_three(count: int) -> str:
    count = await add(count, 1)
    if count < 3:
        continue_as_new(counts_to_three(count))
    return f"{count} in generation {run_info().generation}"


@workflow
async def sums_pokes(total: int, rounds: int) -> int:
    total += await poke.receive()
    if rounds > 1:
        continue_as_new(sums_pokes(total, rounds - 1))
    return total


async def test_the_result_is_that_of_the_last_generation(harness: Harness) -> None:
    assert await harness.engine.run(counts_to_three(0), id="one") == "3 in generation 3"


async def test_tags_are_kept(harness: Harness) -> None:
    run = await harness.engine.start(counts_to_three(0), id="one", tags={"shop": "pears"})
    await run.result()

    (view,) = (await harness.engine.list(tags={"shop": "pears"})).runs

    assert (view.generation, view.status) == (3, RunStatus.COMPLETED)


async def test_each_generation_receives_its_signals(harness: Harness) -> None:
    run = await harness.engine.start(sums_pokes(0, 3), id="one")

    for value in (1, 10, 100):
        await harness.settle()
        await harness.engine.send("one", poke, value)

    assert await run.result() == 111


async def test_a_handle_of_an_older_generation_reaches_the_run(harness: Harness) -> None:
    first = await harness.engine.start(sums_pokes(0, 2), id="one")
    await first.send(poke, 1)
    await harness.settle()

    await first.send(poke, 10)

    assert await first.result() == 11


async def test_a_generation_that_was_to_begin_begins_after_a_crash(harness: Harness) -> None:
    await harness.engine.start(sums_pokes(0, 2), id="one")
    await harness.settle()
    await harness.engine.send("one", poke, 1)
    await harness.settle()
    await harness.crash()
    await harness.engine.send("one", poke, 10)

    assert await (await harness.engine.get("one", sums_pokes)).result() == 11


async def test_a_signal_that_came_while_the_run_continued_as_new_reaches_the_next_generation(
    harness: Harness,
) -> None:
    run = await harness.engine.start(sums_pokes(0, 2), id="one")
    await harness.settle()
    harness.store.before_commit = lambda batch: harness.store.hold_up_commits() if batch.ends else None
    await run.send(poke, 1)
    await harness.until(lambda: harness.store.held_up)
    async with Client(harness.url) as client:
        await client.send("one", poke, 10)  # to the generation that is about to end
    sent_here = asyncio.create_task(run.send(poke, 100))
    harness.store.before_commit = lambda batch: None
    harness.store.release_commits()

    assert await run.result() in (11, 101)
    await asyncio.wait([sent_here])


async def test_a_cancel_reaches_the_generation_that_runs(harness: Harness) -> None:
    run = await harness.engine.start(sums_pokes(0, 3), id="one")
    await run.send(poke, 1)
    await harness.settle()

    await run.cancel()

    with pytest.raises(RunCancelled):
        await run.result()


async def test_a_child_that_continues_as_new_answers_its_parent_once(harness: Harness) -> None:
    @workflow
    async def has_a_counting_child() -> str:
        return await counts_to_three(0)

    assert await harness.engine.run(has_a_counting_child()) == "3 in generation 3"


async def test_a_child_that_continued_as_new_is_cancelled_with_its_call(harness: Harness) -> None:
    @workflow
    async def waits_for_pokes() -> str:
        try:
            async with asyncio.timeout(10):
                return str(await sums_pokes(0, 2))
        except TimeoutError:
            return f"gave up {await poke.receive()}"

    run = await harness.engine.start(waits_for_pokes(), id="parent")
    await harness.settle()
    child = (await harness.engine.list(workflow=sums_pokes)).runs[0].id
    await harness.engine.send(child, poke, 1)
    await harness.advance(10)

    assert (await harness.engine.info(child)).generation == 2
    assert (await harness.engine.info(child)).status is RunStatus.CANCELLED
    await run.send(poke, 7)
    assert await run.result() == "gave up 7"


@workflow
async def receives_late(rounds: int) -> list[int]:
    """Continues as new after ten seconds, whatever has been sent meanwhile."""
    if rounds:
        await asyncio.sleep(10)
        continue_as_new(receives_late(rounds - 1))
    return [await poke.receive() for _ in range(4)]


async def test_signals_that_nobody_received_go_to_the_next_generation_in_their_order(
    harness: Harness,
) -> None:
    run = await harness.engine.start(receives_late(2), id="one")

    await run.send(poke, 1)
    await run.send(poke, 2)
    await harness.advance(10)
    await run.send(poke, 3)
    await harness.advance(10)
    await run.send(poke, 4)

    assert await run.result() == [1, 2, 3, 4]


async def test_a_signal_with_an_id_is_taken_once_over_all_generations(harness: Harness) -> None:
    run = await harness.engine.start(receives_late(2), id="one")

    for value in (1, 2, 3):
        await run.send(poke, value, id=f"poke {value}")
        await harness.advance(10)
        await run.send(poke, value, id=f"poke {value}")
    await run.send(poke, 4)

    assert await run.result() == [1, 2, 3, 4]


async def test_signals_go_on_over_a_crash_as_the_run_continues(harness: Harness) -> None:
    run = await harness.engine.start(receives_late(1), id="one")
    for value in (1, 2, 3, 4):
        await run.send(poke, value)
    await harness.settle()
    harness.store.after_commit = lambda batch: harness.store.kill() if batch.ends else None
    harness.clock.jump(10)
    await harness.until(lambda: harness.engine.driver.committer.error)

    await harness.crash()

    assert await (await harness.engine.get("one", receives_late)).result() == [1, 2, 3, 4]


async def beside_the_last_step(
    harness: Harness, gate: asyncio.Event, sending: Awaitable[T]
) -> asyncio.Task[T]:
    """Record what is sent in the very commit of the step that ends the run."""
    await harness.until(lambda: harness.engine.running_steps)
    harness.store.hold_up_commits()
    sent = asyncio.ensure_future(sending)
    await harness.until(lambda: harness.store.held_up)
    gate.set()
    await harness.until(lambda: harness.engine.driver.committer.batch.records)
    harness.store.release_commits()
    return sent


async def test_a_signal_recorded_beside_the_last_step_goes_to_the_next_generation(harness: Harness) -> None:
    gate = asyncio.Event()

    @step
    async def waits_for_the_gate() -> None:
        await gate.wait()

    @workflow
    async def passes_the_gate(passed: bool) -> int:
        if not passed:
            await waits_for_the_gate()
            continue_as_new(passes_the_gate(True))
        return await poke.receive()

    run = await harness.engine.start(passes_the_gate(False), id="one")

    await (await beside_the_last_step(harness, gate, run.send(poke, 7)))

    assert await run.result() == 7
    assert [entry.kind for entry in (await harness.engine.timeline("one", generation=1)).entries].count(
        "signal"
    )


async def test_an_update_recorded_beside_the_last_step_goes_to_the_next_generation(harness: Harness) -> None:
    gate = asyncio.Event()

    @step
    async def waits_for_the_gate() -> None:
        await gate.wait()

    @workflow
    async def answers(passed: bool) -> None:
        generation = run_info().generation

        async def says_which(number: int) -> str:
            return f"{number} in generation {generation}"

        which.handle(says_which)
        if not passed:
            await waits_for_the_gate()
            continue_as_new(answers(True))
        await poke.receive()

    run = await harness.engine.start(answers(False), id="one")

    answer = await beside_the_last_step(harness, gate, run.update(which, 7))

    assert await answer == "7 in generation 2"
