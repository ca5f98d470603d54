"""Children, ends, parking and ids are on Temporal what they are on a store."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from perdure import (
    Client,
    ConflictError,
    Engine,
    NonRetryable,
    Retry,
    RunCancelled,
    RunClosed,
    RunFailed,
    RunNotFound,
    RunParked,
    RunStatus,
    RunTerminated,
    RunTimedOut,
    Signal,
    State,
    Update,
    UpdateRefused,
    compensate,
    start_child,
    step,
    step_info,
    workflow,
)

word = Signal[str]("word")
stage = State[str]("stage")
change = Update[str, str]("change")

log: list[str] = []
is_down = False


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    global is_down
    log.clear()
    is_down = False


class Broken(NonRetryable):
    pass


@step
async def note(text: str) -> str:
    log.append(text)
    return text


@step(retry=Retry(attempts=2, delay=0.001))
async def ask_service(text: str) -> str:
    log.append(f"{text} {step_info().attempt} {step_info().idempotency_key}")
    if is_down:
        raise ConnectionError("the service is down")
    return f"{text} answered"


# -- children ---------------------------------------------------------------------------------------


@workflow
async def leaf_run(text: str) -> str:
    return await note(text)


@workflow
async def broken_leaf() -> str:
    raise Broken("from below")


@workflow
async def waiting_leaf(text: str) -> str:
    try:
        await word.receive()
    except asyncio.CancelledError:
        await note(f"{text} cleaned up")
        raise
    return text


@workflow
async def tree() -> list[str]:
    first = await leaf_run("a")
    apart = [await start_child(leaf_run(text), id=f"tree-{text}") for text in "bc"]
    try:
        await broken_leaf()
    except Broken as error:
        first = f"{first} {error}"
    return [first, *[f"{child.id} {await child}" for child in apart]]


async def test_children_are_awaited_started_apart_and_fail_with_their_own_errors(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(tree(), id="tree") == ["a from below", "tree-b b", "tree-c c"]
        children = {child.id for child in (await engine.timeline("tree")).children}

    assert children == {"tree/0/0/leaf_run", "tree-b", "tree-c", "tree/0/3/broken_leaf"}


@workflow
async def takes_an_id() -> str:
    try:
        await start_child(leaf_run("mine"), id="somebody's")
    except ConflictError as error:
        return error.run_id
    return "started"


async def test_a_child_does_not_get_the_id_of_another_run(home: str) -> None:
    async with Engine(home) as engine:
        await engine.run(leaf_run("theirs"), id="somebody's")

        assert await engine.run(takes_an_id()) == "somebody's"


@workflow
async def mother() -> None:
    await start_child(waiting_leaf("apart"), id="mother-apart")
    await start_child(waiting_leaf("abandoned"), id="mother-abandoned", on_parent_close="abandon")
    stage.set("started")
    try:
        await waiting_leaf("awaited")
    except asyncio.CancelledError:
        await note("mother cleaned up")
        raise


async def test_a_cancelled_run_has_its_children_cancelled_first(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(mother(), id="mother")
        await until_at(run.watch(stage), "started")
        await wait_for_child(engine, "mother/0/2/waiting_leaf")
        await run.cancel("enough")
        with pytest.raises(RunCancelled):
            await run.result()
        left = await engine.get("mother-abandoned", waiting_leaf)
        await left.send(word, "go on")

        assert await left.result() == "abandoned"
        assert (await engine.info("mother-apart")).status is RunStatus.CANCELLED
    assert sorted(log[:2]) == ["apart cleaned up", "awaited cleaned up"]
    assert log[2:] == ["mother cleaned up"]


@workflow
async def impatient() -> str:
    try:
        async with asyncio.timeout(0.5):
            await waiting_leaf("late")
    except TimeoutError:
        return "gave up"
    return "in time"


async def test_a_child_whose_call_is_cancelled_is_cancelled(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(impatient(), id="impatient") == "gave up"
        child = await engine.get("impatient/0/0/waiting_leaf")
        with pytest.raises(RunCancelled):
            await child.result()

    assert log == ["late cleaned up"]


async def until_at(values, wanted: str) -> None:  # type: ignore[no-untyped-def]
    async for value in values:
        if value == wanted:
            return


async def wait_for_child(engine: Client, id: str) -> None:
    while True:
        with suppress(RunNotFound):
            await engine.info(id)
            return
        await asyncio.sleep(0)


# -- ends -------------------------------------------------------------------------------------------


@workflow
async def stubborn() -> str:
    stage.set("waiting")
    compensate(note("undone"))
    for _ in range(3):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        log.append("swallowed")
    return "never"


async def test_a_cancel_that_is_swallowed_comes_again_until_the_run_ends(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(stubborn())
        await until_at(run.watch(stage), "waiting")
        await run.cancel()
        with suppress(RunCancelled):
            await run.result()

    assert log.count("swallowed") >= 3


@workflow
async def endless() -> str:
    compensate(note("undone"))
    stage.set("waiting")
    try:
        await asyncio.sleep(1_000)
    finally:
        stage.set("stopped")
    return "never"


async def test_a_cancelled_run_cleans_up_and_says_why(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(endless(), id="regretted")
        await until_at(run.watch(stage), "waiting")
        await run.cancel("regretted")
        with pytest.raises(RunCancelled, match=r"Run 'regretted' was cancelled: regretted\."):
            await run.result()

        assert await run.state(stage) == "stopped"
        assert await run.status() is RunStatus.CANCELLED
        await run.cancel("again")  # does nothing to a run that has ended
    assert log == ["undone"]


async def test_a_run_that_takes_too_long_cleans_up_and_has_timed_out(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(endless(), timeout=0.3)
        with pytest.raises(RunTimedOut):
            await run.result()

        assert await run.status() is RunStatus.TIMED_OUT
    assert log == ["undone"]


async def test_a_terminated_run_ends_at_once(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(endless(), id="terminated")
        await until_at(run.watch(stage), "waiting")
        await run.terminate("wrong customer")
        with pytest.raises(RunTerminated, match=r"Run 'terminated' was terminated: wrong customer\."):
            await run.result()

        assert await run.status() is RunStatus.TERMINATED
        with pytest.raises(RunClosed):
            await run.send(word, "too late")
        with pytest.raises(RunClosed):
            await run.update(change, "too late")
    assert log == []


@workflow
async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def test_a_run_that_cancels_itself_is_cancelled(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(raises_cancelled())
        with pytest.raises(RunCancelled):
            await run.result()

        assert await run.status() is RunStatus.CANCELLED


@workflow
async def answers_too_late() -> str:
    async def handle(text: str) -> str:
        stage.set("asked")
        await asyncio.sleep(1_000)
        return text

    change.handle(handle)
    return await word.receive()


async def test_an_update_that_a_run_leaves_unanswered_is_told_that_it_has_ended(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(answers_too_late())
        asking = asyncio.create_task(run.update(change, "?"))
        await until_at(run.watch(stage), "asked")
        await run.send(word, "end")

        assert await run.result() == "end"
        with pytest.raises(RunClosed):
            await asking


# -- parking ----------------------------------------------------------------------------------------


@workflow
async def needs_the_service() -> list[str]:
    async def handle(text: str) -> str:
        return text

    change.handle(handle)
    stage.set("asking")
    before = await note("before")
    answer = await ask_service("lamp")
    return [before, answer, await word.receive()]


async def test_a_run_whose_step_fails_for_good_parks_and_goes_on_when_it_is_resumed(home: str) -> None:
    global is_down
    is_down = True
    async with Engine(home) as engine:
        run = await engine.start(needs_the_service(), id="parks")
        with pytest.raises(
            RunParked, match="Run 'parks' is parked: ConnectionError: the service is down"
        ) as caught:
            await run.result()
        await run.send(word, "sent while it was parked")
        with pytest.raises(UpdateRefused, match="is parked"):
            await run.update(change, "?")
        status = await run.status()
        is_down = False
        await run.resume()

        assert await run.result() == ["before", "lamp answered", "sent while it was parked"]
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert status is RunStatus.PARKED
        assert await run.status() is RunStatus.COMPLETED
    numbers = [entry.split()[1] for entry in log[1:]]
    assert (log[0], numbers) == ("before", ["1", "2", "1"])
    assert len({entry.split()[2] for entry in log[1:]}) == 1


async def test_a_parked_run_can_be_cancelled(home: str) -> None:
    global is_down
    is_down = True
    async with Engine(home) as engine:
        run = await engine.start(needs_the_service())
        with pytest.raises(RunParked):
            await run.result()
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()

    assert len(log) == 3


async def test_resume_does_nothing_to_a_run_that_is_running_and_is_refused_by_one_that_has_ended(
    home: str,
) -> None:
    async with Engine(home) as engine:
        run = await engine.start(needs_the_service())
        await until_at(run.watch(stage), "asking")
        await run.resume()
        await run.send(word, "end")

        assert await run.result() == ["before", "lamp answered", "end"]
        with pytest.raises(RunClosed):
            await run.resume()


# -- ids --------------------------------------------------------------------------------------------


async def test_an_id_is_started_once(home: str) -> None:
    async with Engine(home) as engine:
        runs = await asyncio.gather(*(engine.start(leaf_run("once"), id="once") for _ in range(5)))

        assert {await run.result() for run in runs} == {"once"}
        assert await engine.run(leaf_run("once"), id="once") == "once"
    assert log == ["once"]


async def test_an_id_with_other_input_or_of_another_workflow_is_a_conflict(home: str) -> None:
    async with Engine(home) as engine:
        await engine.run(leaf_run("one"), id="taken")
        with pytest.raises(ConflictError, match="other input"):
            await engine.start(leaf_run("other"), id="taken")
        with pytest.raises(ConflictError, match="belongs to workflow 'leaf_run'"):
            await engine.start(tree(), id="taken")


async def test_an_id_that_is_running_is_refused_or_cancelled_if_that_is_asked_for(home: str) -> None:
    async with Engine(home) as engine:
        first = await engine.start(endless(), id="running")
        with pytest.raises(ConflictError, match="still running"):
            await engine.start(endless(), id="running", on_conflict="raise")
        second = await engine.start(endless(), id="running", on_conflict="cancel")
        with pytest.raises(RunCancelled):
            await first.result()

        assert (await second.info()).generation == 2
        await second.terminate()


async def test_an_id_that_has_ended_is_started_again_as_reuse_says(home: str) -> None:
    async with Engine(home) as engine:
        await engine.run(leaf_run("well"), id="well")
        with suppress(RunFailed):
            await engine.run(broken_leaf(), id="badly")
        await engine.run(leaf_run("well"), id="well", reuse="if_failed")
        again = await engine.start(leaf_run("well again"), id="well", reuse="always")
        mended = await engine.start(leaf_run("mended"), id="badly", reuse="if_failed")

        assert [await again.result(), await mended.result()] == ["well again", "mended"]
        assert [(await run.info()).generation for run in (again, mended)] == [2, 2]
    assert log == ["well", "well again", "mended"]


# -- reading ----------------------------------------------------------------------------------------


async def test_runs_are_listed_by_what_is_asked_for(home: str) -> None:
    async with Engine(home) as engine:
        for number in range(3):
            await engine.run(leaf_run(str(number)), id=f"list-{number}", tags={"odd": str(number % 2)})
        with suppress(RunFailed):
            await engine.run(broken_leaf(), id="list-broken")
        async with Client(home) as client:
            while (counts := await client.counts()) != {"completed": 3, "failed": 1}:
                pass  # Temporal's listing is a moment behind
            failed = await client.list(status=RunStatus.FAILED)
            odd = await client.list(tags={"odd": "1"})
            named = await client.list(workflow=leaf_run, id_prefix="list-")
            first = await client.list(limit=3)
            rest = await client.list(limit=3, before=first.next)

    assert [(run.id, run.error) for run in failed.runs] == [("list-broken", "Broken: from below")]
    assert [(run.id, run.tags) for run in odd.runs] == [("list-1", {"odd": "1"})]
    assert {run.id for run in named.runs} == {"list-0", "list-1", "list-2"}
    assert len({run.id for run in [*first.runs, *rest.runs]}) == 4
    assert counts == {"completed": 3, "failed": 1}


async def test_a_state_is_read_when_no_worker_runs(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(endless(), id="left")
        await until_at(run.watch(stage), "waiting")

    async with Client(home) as client:
        left = await client.get("left")
        assert await left.state(stage) == "waiting"
        assert await left.status() is RunStatus.RUNNING
        with pytest.raises(RunNotFound):
            await client.get("nobody")
        await left.terminate()


@workflow
async def eventful() -> str:
    await note("stepped")
    await ask_service("lamp")
    await asyncio.sleep(0.01)
    await leaf_run("below")
    with suppress(Broken):
        await broken_leaf()
    return await word.receive()


async def test_a_timeline_tells_what_happened(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(eventful(), id="eventful", tags={"a": "b"})
        await run.send(word, "end")
        await run.result()
        timeline = await engine.timeline("eventful")

    told = [(entry.kind, entry.name) for entry in timeline.entries if entry.kind != "signal"]
    assert told == [
        ("step", "note"),
        ("step", "ask_service"),
        ("timer", ""),
        ("child", "leaf_run"),
        ("child failed", "broken_leaf"),
    ]
    assert [entry.value for entry in timeline.entries if entry.kind == "signal"] == [b'"end"']
    assert (timeline.result, timeline.run.tags) == (b'"end"', {"a": "b"})
    assert [child.id for child in timeline.children] == ["eventful/0/2/leaf_run", "eventful/0/3/broken_leaf"]
