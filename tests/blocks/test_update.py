"""Updates: requests that a run answers, judged before they are recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import (
    Client,
    Retry,
    RunClosed,
    RunFailed,
    Signal,
    StepFailed,
    Update,
    UpdateRefused,
    step,
    workflow,
)
from perdure.core.records import Kind
from perdure.testing import Harness

move = Update[str, str]("move")
leave = Signal[str]("leave")


class Unreachable(Exception):
    """Nobody can move there."""


@step(retry=Retry(attempts=1))
async def drive(to: str) -> str:
    if to == "the moon":
        raise Unreachable(to)
    return f"at {to}"


def refuse_mars(to: str) -> None:
    if to == "mars":
        raise ValueError("too far")


@workflow
async def lives_somewhere() -> str:
    where = "home"

    async def handle(to: str) -> str:
        nonlocal where
        where = await drive(to)
        return where

    move.handle(handle, validate=refuse_mars)
    await leave.receive()
    return where


async def test_an_update_is_answered_by_its_handler(harness: Harness) -> None:
    run = await harness.engine.start(lives_somewhere())

    answer = await run.update(move, "the sea")
    await run.send(leave, "now")

    assert answer == "at the sea"
    assert await run.result() == "at the sea"


async def test_what_the_validator_refuses_leaves_no_record(harness: Harness) -> None:
    run = await harness.engine.start(lives_somewhere())

    with pytest.raises(UpdateRefused, match="too far"):
        await run.update(move, "mars")

    assert [entry for entry in harness.store.records(1) if entry.kind == Kind.UPDATE] == []


async def test_a_handler_that_fails_tells_the_sender_and_the_run_goes_on(harness: Harness) -> None:
    run = await harness.engine.start(lives_somewhere())

    with pytest.raises(Unreachable) as caught:
        await run.update(move, "the moon")

    assert isinstance(caught.value, StepFailed)
    assert await run.update(move, "the sea") == "at the sea"


async def test_a_run_without_a_handler_refuses(harness: Harness) -> None:
    @workflow
    async def has_no_handler() -> None:
        await leave.receive()

    run = await harness.engine.start(has_no_handler())

    with pytest.raises(UpdateRefused, match="no handler for update 'move'"):
        await run.update(move, "the sea")


async def test_a_run_that_has_ended_takes_no_update(harness: Harness) -> None:
    run = await harness.engine.start(lives_somewhere(), id="one")
    await run.send(leave, "now")
    await run.result()

    with pytest.raises(RunClosed, match="'one'"):
        await run.update(move, "the sea")


async def test_a_handler_that_is_no_async_function_is_refused_where_it_is_given(harness: Harness) -> None:
    def answers_plainly(to: str) -> str:
        return to

    @workflow
    async def has_a_plain_handler() -> None:
        move.handle(answers_plainly)  # type: ignore[arg-type]

    run = await harness.engine.start(has_a_plain_handler())

    with pytest.raises(RunFailed, match=r"answers_plainly.*`async def`"):
        await run.result()


async def test_a_parked_run_refuses_until_it_is_resumed(harness: Harness) -> None:
    @workflow
    async def parks_at_once() -> None:
        move.handle(drive_there)
        await drive("the moon")

    async def drive_there(to: str) -> str:
        return await drive(to)

    run = await harness.engine.start(parks_at_once())
    await harness.settle()

    with pytest.raises(UpdateRefused, match="parked"):
        await run.update(move, "the sea")


async def test_a_run_that_ends_before_it_has_answered_says_so(harness: Harness) -> None:
    @workflow
    async def ends_meanwhile() -> None:
        async def never(to: str) -> str:
            return (await asyncio.Event().wait() and to) or to

        move.handle(never)
        await leave.receive()

    run = await harness.engine.start(ends_meanwhile())
    asked = asyncio.create_task(run.update(move, "the sea"))
    await harness.settle()
    await run.send(leave, "now")

    with pytest.raises(RunClosed, match="before it answered"):
        await asked


async def test_an_update_from_a_client_of_the_file_is_answered(harness: Harness) -> None:
    await harness.engine.start(lives_somewhere(), id="one")

    async with Client(harness.url) as client:
        run = await client.get("one", lives_somewhere)
        answer = await run.update(move, "the sea")
        with pytest.raises(UpdateRefused):
            await run.update(move, "mars")

    assert answer == "at the sea"


async def test_an_answer_that_a_crash_lost_is_given_after_the_restart(
    harness: Harness, tmp_path: Path
) -> None:
    started = asyncio.Event()
    hold = asyncio.Event()

    @step
    async def drives_slowly(to: str) -> str:
        started.set()
        await hold.wait()
        return f"slowly to {to}"

    @workflow
    async def moves_slowly() -> None:
        async def handle(to: str) -> str:
            return await drives_slowly(to)

        move.handle(handle)
        await leave.receive()

    await harness.engine.start(moves_slowly(), id="one")
    async with Client(harness.url) as client:
        asked = asyncio.create_task(client.update("one", move, "the sea"))
        await harness.until(started.is_set)
        hold.set()
        # The result of the step is written, and the answer is not.
        harness.store.before_commit = lambda batch: harness.store.kill() if batch.replies else None
        await harness.until(lambda: harness.engine.driver.committer.error)
        await harness.crash()

        assert await asked == "slowly to the sea"


async def test_updates_of_an_evicted_run_are_answered(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db", residents_kept=0) as harness:
        run = await harness.engine.start(lives_somewhere())
        await harness.settle()
        evicted = not harness.engine.driver.residents

        answer = await run.update(move, "the sea")

    assert evicted
    assert answer == "at the sea"


async def test_an_update_recorded_beside_the_record_that_ends_the_run_is_refused(harness: Harness) -> None:
    run = await harness.engine.start(lives_somewhere(), id="one")
    harness.store.hold_up_commits()
    leaving = asyncio.create_task(run.send(leave, "now"))
    asking = asyncio.create_task(run.update(move, "the sea"))  # both are recorded in the commit after theirs
    await harness.until(lambda: harness.store.held_up)

    harness.store.release_commits()

    with pytest.raises(RunClosed, match="'one'"):
        await asking
    await leaving


async def test_who_waits_for_an_update_hears_that_the_run_was_terminated(harness: Harness) -> None:
    gate = asyncio.Event()

    @step
    async def waits_for_the_gate() -> None:
        await gate.wait()

    @workflow
    async def never_answers() -> None:
        async def handle(to: str) -> str:
            await waits_for_the_gate()
            return to

        move.handle(handle)
        await leave.receive()

    run = await harness.engine.start(never_answers(), id="one")
    asking = asyncio.create_task(run.update(move, "the sea"))
    await harness.until(lambda: harness.engine.running_steps)

    await run.terminate()

    with pytest.raises(RunClosed, match="'one'"):
        await asking
