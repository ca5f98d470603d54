"""Children: runs that a run awaits, each with a journal of its own."""

from __future__ import annotations

import asyncio

import pytest

from perdure import NonRetryable, Run, RunCancelled, RunFailed, RunStatus, RunTimedOut, Signal, step, workflow
from perdure.testing import Harness

release = Signal[str]("release")
ended: list[str] = []


class Unpaid(NonRetryable):
    """No money, no goods."""


@step
async def notes_end(what: str) -> None:
    ended.append(what)


@pytest.fixture(autouse=True)
def forget_ends() -> None:
    ended.clear()


@workflow
async def child_waits(name: str) -> str:
    try:
        return f"{name} {await release.receive()}"
    finally:
        await notes_end(name)


@workflow
async def child_fails() -> None:
    raise Unpaid("no money")


@workflow
async def awaits_a_child() -> str:
    try:
        return await child_waits("child")
    finally:
        await notes_end("parent")


async def the_child(harness: Harness, workflow_name: str = "child_waits") -> Run[object]:
    page = await harness.engine.list(workflow=workflow_name)
    return await harness.engine.get(page.runs[0].id)


@workflow
async def middle_waits() -> str:
    try:
        return await child_waits("leaf")
    finally:
        await notes_end("middle")


@workflow
async def root_waits() -> str:
    try:
        return await middle_waits()
    finally:
        await notes_end("root")


async def test_a_child_is_a_run_of_its_own_and_its_result_is_the_awaits(harness: Harness) -> None:
    run = await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()

    child = await the_child(harness)
    await child.send(release, "done")

    assert child.id == "parent/0/0/child_waits"
    assert await run.result() == "child done"


async def test_a_child_that_fails_raises_its_own_error_in_the_parent(harness: Harness) -> None:
    @workflow
    async def catches_its_childs_error() -> str:
        try:
            await child_fails()
        except Unpaid as error:
            return f"unpaid: {error}"
        return ""

    assert await harness.engine.run(catches_its_childs_error()) == "unpaid: no money"


async def test_a_parent_crash_starts_no_second_child(harness: Harness) -> None:
    await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert len((await harness.engine.list(workflow=child_waits)).runs) == 1
    await (await the_child(harness)).send(release, "after the crash")
    assert await (await harness.engine.get("parent", awaits_a_child)).result() == "child after the crash"


async def test_a_child_that_ended_before_its_parents_worker_died_is_heard_of(harness: Harness) -> None:
    await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    child = await the_child(harness)
    # The child's end is on disk with the message to its parent; what comes of it is not.
    harness.store.before_commit = lambda batch: (
        harness.store.kill() if batch.taken and batch.records else None
    )
    await child.send(release, "once")
    await harness.until(lambda: harness.engine.driver.committer.error)
    await harness.crash()

    assert await (await harness.engine.get("parent", awaits_a_child)).result() == "child once"
    assert ended.count("child") <= 2


async def test_cancelling_a_parent_cancels_its_children_first(harness: Harness) -> None:
    run = await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    child = await the_child(harness)

    await run.cancel("changed my mind")

    with pytest.raises(RunCancelled):
        await run.result()
    assert (await child.info()).status is RunStatus.CANCELLED
    assert ended == ["child", "parent"]


async def test_cancelling_an_evicted_parent_cancels_its_children_first(
    tmp_path: object, harness: Harness
) -> None:
    await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    await harness.stop()
    small = Harness(harness.url.removeprefix("sqlite:///"), residents_kept=0, clock=harness.clock)
    async with small:
        await small.settle()
        assert not small.engine.driver.residents
        run = await small.engine.get("parent")
        await run.cancel()

        with pytest.raises(RunCancelled):
            await run.result()
    assert ended == ["child", "parent"]
    await harness.open()


async def test_a_cancel_of_the_parent_survives_a_crash_in_the_middle(harness: Harness) -> None:
    await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    run = await harness.engine.get("parent")
    await run.cancel()
    await harness.crash()

    with pytest.raises(RunCancelled):
        await (await harness.engine.get("parent")).result()
    assert (await (await the_child(harness)).info()).status is RunStatus.CANCELLED


async def test_grandchildren_answer_and_are_cancelled_from_the_leaves_up(harness: Harness) -> None:
    first = await harness.engine.start(root_waits(), id="first")
    await harness.settle()
    await (await the_child(harness)).send(release, "well")
    assert await first.result() == "leaf well"
    ended.clear()
    second = await harness.engine.start(root_waits(), id="second")
    await harness.settle()
    await second.cancel()

    with pytest.raises(RunCancelled):
        await second.result()
    assert ended == ["leaf", "middle", "root"]


async def test_a_timeout_around_a_child_cancels_it(harness: Harness) -> None:
    @workflow
    async def waits_ten_seconds() -> str:
        try:
            async with asyncio.timeout(10):
                return await child_waits("child")
        except TimeoutError:
            return "too slow"

    run = await harness.engine.start(waits_ten_seconds())
    await harness.advance(10)

    assert await run.result() == "too slow"
    with pytest.raises(RunCancelled, match="by its parent"):
        await (await the_child(harness)).result()


async def test_a_run_out_of_time_hears_of_it_when_its_children_have_ended(harness: Harness) -> None:
    parent = await harness.engine.start(root_waits(), timeout=30)
    await harness.settle()

    await harness.advance(30)

    with pytest.raises(RunTimedOut):
        await parent.result()
    assert ended == ["leaf", "middle", "root"]


async def test_a_crash_while_children_end_does_not_lose_a_timeout(harness: Harness) -> None:
    await harness.engine.start(root_waits(), id="root", timeout=30)
    await harness.settle()
    harness.store.before_commit = lambda batch: harness.store.kill() if ended else None
    harness.clock.jump(31)
    await harness.until(lambda: harness.engine.driver.committer.error)

    engine = await harness.crash()

    with pytest.raises(RunTimedOut):
        await (await engine.get("root")).result()
    assert ended[-2:] == ["middle", "root"]


async def test_a_timeout_that_fires_while_the_child_is_being_started_cancels_it_too(harness: Harness) -> None:
    @workflow
    async def gives_up_at_once() -> str:
        task = asyncio.create_task(child_waits("child"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return "gave up"

    assert await harness.engine.run(gives_up_at_once()) == "gave up"

    await harness.settle()
    assert (await harness.engine.list(status=RunStatus.RUNNING)).runs == []


async def test_many_children_at_once_all_answer(harness: Harness) -> None:
    @workflow
    async def squares(number: int) -> int:
        return number * number

    @workflow
    async def sums_squares() -> int:
        return sum(await asyncio.gather(*(squares(number) for number in range(50))))

    assert await harness.engine.run(sums_squares()) == sum(number * number for number in range(50))


async def test_terminating_a_parent_cancels_its_children_also_when_it_is_not_in_memory(
    harness: Harness,
) -> None:
    await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()
    harness.engine.driver.evict(harness.engine.driver.residents[1])

    await (await harness.engine.get("parent")).terminate()

    with pytest.raises(RunCancelled):
        await (await the_child(harness)).result()


async def test_a_child_that_was_terminated_fails_its_parent(harness: Harness) -> None:
    run = await harness.engine.start(awaits_a_child(), id="parent")
    await harness.settle()

    await (await the_child(harness)).terminate("by hand")

    with pytest.raises(RunFailed, match="terminated: by hand"):
        await run.result()


async def test_a_run_that_parks_leaves_its_children_alone(harness: Harness) -> None:
    broken = True

    @step
    async def fails_while_broken() -> str:
        if broken:
            raise Broken("not yet")
        return "mended"

    @workflow
    async def waits_for_both() -> list[str]:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(child_waits("child"))
            second = group.create_task(fails_while_broken())
        return [first.result(), second.result()]

    run = await harness.engine.start(waits_for_both(), id="parent")
    await harness.advance(2_000)
    parked = await run.status()
    child = await the_child(harness)
    child_then = await child.status()
    broken = False
    await run.resume()
    await harness.settle()
    await child.send(release, "done")

    assert (parked, child_then) == (RunStatus.PARKED, RunStatus.RUNNING)
    assert await run.result() == ["child done", "mended"]


class Broken(Exception):
    """Not yet mended."""


@workflow
async def ends_without_waiting() -> str:
    child = asyncio.ensure_future(child_waits("child"))
    await asyncio.sleep(0)
    return f"left {'waiting' if not child.done() else 'done'}"


async def test_a_child_asked_for_as_its_parent_ends_is_not_started(harness: Harness) -> None:
    run = await harness.engine.start(ends_without_waiting(), id="parent")

    assert await run.result() == "left waiting"
    assert [run.id for run in (await harness.engine.list()).runs] == ["parent"]
    await harness.crash()
    await harness.settle()
    assert [run.id for run in (await harness.engine.list()).runs] == ["parent"]
