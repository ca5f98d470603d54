"""Starting runs: ids, and what becomes of an id that is taken."""

from __future__ import annotations

import asyncio

import pytest

from perdure import (
    ConflictError,
    Engine,
    NotSerialisable,
    OutsideRun,
    PerdureError,
    RunCancelled,
    RunFailed,
    RunStatus,
    Signal,
    start_child,
    step,
    workflow,
)
from perdure.testing import Harness

finish = Signal[str]("finish")
calls: list[str] = []


@workflow
async def waits_to_finish(name: str) -> str:
    calls.append(name)
    if await finish.receive() == "badly":
        raise ValueError(name)
    return f"{name} finished"


@workflow
async def is_another() -> None: ...


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    calls.clear()


async def test_a_run_is_on_disk_when_start_returns(harness: Harness) -> None:
    await harness.engine.start(waits_to_finish("a"), id="one")
    harness.store.kill()
    await harness.crash()

    assert await (await harness.engine.get("one")).status() is RunStatus.RUNNING


async def test_starting_the_same_id_again_gives_the_same_run(harness: Harness) -> None:
    first = await harness.engine.start(waits_to_finish("a"), id="one")
    again = await harness.engine.start(waits_to_finish("a"), id="one")
    await again.send(finish, "well")

    assert await first.result() == await again.result() == "a finished"
    assert calls == ["a"]


async def test_a_thousand_starts_of_one_id_at_once_are_one_run(harness: Harness) -> None:
    runs = await asyncio.gather(*(harness.engine.start(waits_to_finish("a"), id="one") for _ in range(1_000)))
    await runs[0].send(finish, "well")

    assert {await run.result() for run in runs} == {"a finished"}
    assert calls == ["a"]


async def test_without_an_id_each_start_is_a_run_of_its_own(harness: Harness) -> None:
    runs = [await harness.engine.start(waits_to_finish("a")) for _ in range(2)]

    assert runs[0].id != runs[1].id


@pytest.mark.parametrize(
    "call", [lambda: waits_to_finish("b"), is_another], ids=["other input", "other workflow"]
)
async def test_an_id_with_other_input_or_another_workflow_is_a_conflict(
    harness: Harness, call: object
) -> None:
    await harness.engine.start(waits_to_finish("a"), id="one")

    with pytest.raises(ConflictError, match=r"'one'.*reuse='always'"):
        await harness.engine.start(call(), id="one")  # type: ignore[operator]

    assert calls == ["a"]


async def test_on_conflict_raise_refuses_an_id_that_is_running(harness: Harness) -> None:
    await harness.engine.start(waits_to_finish("a"), id="one")

    with pytest.raises(ConflictError, match="still running"):
        await harness.engine.start(waits_to_finish("a"), id="one", on_conflict="raise")


async def test_on_conflict_cancel_ends_the_run_and_starts_anew(harness: Harness) -> None:
    first = await harness.engine.start(waits_to_finish("a"), id="one")
    second = await harness.engine.start(waits_to_finish("b"), id="one", on_conflict="cancel")
    await second.send(finish, "well")

    assert await second.result() == "b finished"
    with pytest.raises(RunCancelled):
        await first.result()


async def test_a_finished_run_is_returned_as_it_is(harness: Harness) -> None:
    run = await harness.engine.start(waits_to_finish("a"), id="one")
    await run.send(finish, "well")
    await run.result()

    again = await harness.engine.start(waits_to_finish("a"), id="one")

    assert await again.result() == "a finished"
    assert calls == ["a"]


@pytest.mark.parametrize(("how", "starts"), [("well", 1), ("badly", 2)])
async def test_reuse_if_failed_starts_anew_unless_it_completed(
    harness: Harness, how: str, starts: int
) -> None:
    run = await harness.engine.start(waits_to_finish("a"), id="one")
    await run.send(finish, how)
    await harness.settle()

    await harness.engine.start(waits_to_finish("a"), id="one", reuse="if_failed")

    assert len(calls) == starts


async def test_reuse_always_starts_the_next_generation_with_any_input(harness: Harness) -> None:
    run = await harness.engine.start(waits_to_finish("a"), id="one")
    await run.send(finish, "well")
    await run.result()

    again = await harness.engine.start(waits_to_finish("b"), id="one", reuse="always")
    await again.send(finish, "well")

    assert await again.result() == "b finished"
    assert (await again.info()).generation == 2


async def test_a_start_whose_argument_cannot_be_stored_writes_nothing(harness: Harness) -> None:
    @workflow
    async def takes_anything(value: object) -> None: ...

    with pytest.raises(NotSerialisable, match="takes_anything"):
        await harness.engine.start(takes_anything(print), id="one")

    assert (await harness.engine.list()).runs == []


@pytest.mark.parametrize("run_id", ["", "x" * 1_001])
async def test_an_id_that_is_empty_or_too_long_is_refused(harness: Harness, run_id: str) -> None:
    with pytest.raises(PerdureError, match="1 to 1000 characters"):
        await harness.engine.start(is_another(), id=run_id)


@pytest.mark.parametrize("text", ["a\0b", "half \ud800", "\udfff"])
async def test_text_that_a_database_cannot_keep_is_refused_before_anything_is_written(
    harness: Harness, text: str
) -> None:
    refused = pytest.raises(PerdureError, match="no text to a database")
    run = await harness.engine.start(waits_to_finish("a"), id="one")

    with refused:
        await harness.engine.start(is_another(), id=text)
    with refused:
        await harness.engine.start(is_another(), id="two", tags={text: "value"})
    with refused:
        await harness.engine.start(is_another(), id="two", tags={"key": text})
    with refused:
        await run.send(finish, "well", id=text)

    assert [view.id for view in (await harness.engine.list()).runs] == ["one"]


@pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
async def test_a_child_whose_id_or_tag_a_database_cannot_keep_is_refused(harness: Harness, text: str) -> None:
    @workflow
    async def names_children_badly() -> list[str]:
        said: list[str] = []
        for options in ({"id": text}, {"tags": {"key": text}}):
            try:
                await start_child(is_another(), **options)  # pyright: ignore[reportArgumentType]
            except PerdureError as error:
                said.append(str(error))
        return said

    said = await harness.engine.run(names_children_badly())

    assert len(said) == 2
    assert all("no text to a database" in line for line in said)


async def test_a_workflow_awaited_outside_a_run_is_refused_with_what_to_do() -> None:
    with pytest.raises(OutsideRun, match=r"engine\.run\(is_another"):
        await is_another()


async def test_a_step_call_is_not_a_run(harness: Harness) -> None:
    @step
    async def only_a_step() -> None: ...

    with pytest.raises(PerdureError, match="not a call of a workflow"):
        await harness.engine.start(only_a_step())  # type: ignore[arg-type]


async def test_an_engine_that_is_not_open_says_so() -> None:
    engine = Engine("sqlite:///never-opened.db")

    with pytest.raises(PerdureError, match=r"not open.*async with"):
        await engine.start(is_another())
    with pytest.raises(PerdureError, match="not open"):
        await engine.serve()


async def test_the_bare_function_needs_no_engine() -> None:
    @workflow
    async def adds_plainly(one: int, other: int) -> int:
        return one + other

    assert await adds_plainly.fn(1, 2) == 3


async def test_a_failed_run_raises_its_error_as_the_cause(harness: Harness) -> None:
    run = await harness.engine.start(waits_to_finish("a"), id="one")
    await run.send(finish, "badly")

    with pytest.raises(RunFailed, match="Run 'one' failed: ValueError: a") as caught:
        await run.result()

    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.run_id == "one"


async def test_a_result_that_cannot_be_stored_fails_the_run(harness: Harness) -> None:
    @workflow
    async def returns_a_function() -> object:
        return print

    with pytest.raises(RunFailed) as caught:
        await harness.engine.run(returns_a_function())

    assert isinstance(caught.value.__cause__, NotSerialisable)
