"""`start_child`: children that live beside their parent's own code."""

from __future__ import annotations

import asyncio

import pytest

from perdure import (
    Child,
    ConflictError,
    RunCancelled,
    RunStatus,
    RunTimedOut,
    Signal,
    start_child,
    workflow,
)
from perdure.testing import Harness

tell = Signal[str]("tell")


@workflow
async def listens_once(name: str) -> str:
    return f"{name} heard {await tell.receive()}"


@workflow
async def ends_quickly() -> str:
    return "quick"


async def test_a_started_child_is_on_disk_and_is_awaited_later(harness: Harness) -> None:
    @workflow
    async def starts_and_awaits() -> str:
        child: Child[str] = await start_child(listens_once("child"), id="child-1")
        await asyncio.sleep(10)
        return f"{child.id}: {await child}"

    run = await harness.engine.start(starts_and_awaits())
    await harness.settle()
    await harness.engine.send("child-1", tell, "hello")
    await harness.advance(10)

    assert await run.result() == "child-1: child heard hello"


async def test_a_child_that_ended_before_its_parent_asks_is_heard_of_also_after_a_restart(
    harness: Harness,
) -> None:
    @workflow
    async def asks_late() -> list[str]:
        child = await start_child(ends_quickly())
        await asyncio.sleep(10)
        return [await child, await child]

    await harness.engine.start(asks_late(), id="one")
    await harness.settle()
    await harness.restart()
    await harness.advance(10)

    assert await (await harness.engine.get("one", asks_late)).result() == ["quick", "quick"]


async def test_a_child_is_cancelled_when_its_parent_ends(harness: Harness) -> None:
    @workflow
    async def ends_first() -> str:
        return (await start_child(listens_once("child"), id="left-behind")).id

    await harness.engine.run(ends_first())

    with pytest.raises(RunCancelled):
        await (await harness.engine.get("left-behind")).result()


async def test_an_abandoned_child_goes_on_when_its_parent_ends(harness: Harness) -> None:
    @workflow
    async def abandons() -> str:
        return (await start_child(listens_once("child"), id="abandoned", on_parent_close="abandon")).id

    await harness.engine.run(abandons())
    await harness.settle()
    child = await harness.engine.get("abandoned", listens_once)
    await child.send(tell, "hello")

    assert await child.result() == "child heard hello"


async def test_an_abandoned_child_is_not_cancelled_with_its_parent(harness: Harness) -> None:
    @workflow
    async def abandons_and_waits() -> None:
        await start_child(listens_once("child"), id="abandoned", on_parent_close="abandon")
        await asyncio.sleep(1_000)

    run = await harness.engine.start(abandons_and_waits())
    await harness.settle()
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run.result()

    assert await (await harness.engine.get("abandoned")).status() is RunStatus.RUNNING


async def test_an_id_that_belongs_to_another_run_is_a_conflict_in_the_parent(harness: Harness) -> None:
    await harness.engine.start(listens_once("other"), id="taken")

    @workflow
    async def wants_a_taken_id() -> str:
        try:
            await start_child(listens_once("child"), id="taken")
        except ConflictError as error:
            return str(error)
        return ""

    assert "'taken'" in await harness.engine.run(wants_a_taken_id())


async def test_a_child_has_its_own_timeout_and_tags(harness: Harness) -> None:
    @workflow
    async def gives_ten_seconds() -> str:
        child = await start_child(listens_once("child"), timeout=10, tags={"part": "7"})
        try:
            return await child
        except RunTimedOut as error:
            return str(error)

    run = await harness.engine.start(gives_ten_seconds())
    await harness.settle()
    tagged = await harness.engine.list(tags={"part": "7"})
    await harness.advance(10)
    view = await harness.engine.info(tagged.runs[0].id)

    assert view.status is RunStatus.TIMED_OUT
    assert "took longer than its timeout" in await run.result()


async def test_whoever_stops_waiting_for_a_started_child_leaves_it_alone(harness: Harness) -> None:
    @workflow
    async def waits_in_rounds() -> str:
        child = await start_child(listens_once("child"), id="patient")
        for _ in range(3):
            try:
                async with asyncio.timeout(10):
                    return await child
            except TimeoutError:
                pass
        return "never"

    run = await harness.engine.start(waits_in_rounds())
    await harness.advance(25)
    await harness.engine.send("patient", tell, "hello")

    assert await run.result() == "child heard hello"


async def test_a_failed_started_child_raises_its_error_where_it_is_awaited(harness: Harness) -> None:
    @workflow
    async def denies() -> None:
        raise ValueError("denied")

    @workflow
    async def asks_and_is_denied() -> str:
        child = await start_child(denies())
        try:
            await child
        except ValueError as error:
            return str(error)
        return ""

    assert await harness.engine.run(asks_and_is_denied()) == "denied"


async def test_a_failed_child_that_nobody_awaits_does_no_harm(harness: Harness) -> None:
    @workflow
    async def fails_unseen() -> None:
        raise ValueError("unseen")

    @workflow
    async def does_not_look() -> str:
        await start_child(fails_unseen())
        await asyncio.sleep(10)
        return "fine"

    run = await harness.engine.start(does_not_look())
    await harness.advance(10)

    assert await run.result() == "fine"
