"""Which workflow a stored run belongs to: known, unknown, or claimed by two."""

from __future__ import annotations

import gc

import pytest

from perdure import Client, DefinitionError, RunStatus, Signal, Workflow, WorkflowNotRegistered, workflow
from perdure.runtime.registry import Registry
from perdure.testing import Harness

hint = Signal[str]("hint")


def define_late(name: str) -> Workflow[[], str]:
    @workflow(name=name)
    async def defined_late() -> str:
        return await hint.receive()

    return defined_late


def define_rival(name: str) -> Workflow[[], str]:
    @workflow(name=name)
    async def rival() -> str:
        return "the rival ran"

    return rival


async def test_a_run_of_a_workflow_that_is_not_defined_here_waits_until_it_is(harness: Harness) -> None:
    late = define_late("late-1")
    await harness.engine.start(late(), id="one")
    await harness.settle()
    await harness.stop()
    del late
    await harness.open()
    gc.collect()  # the engine that ran it is gone, and with it the definition
    await harness.engine.send("one", hint, "hello")
    await harness.until(lambda: harness.engine.unknown_workflows)
    unknown = harness.engine.unknown_workflows
    waiting = await harness.engine.info("one")
    with pytest.raises(WorkflowNotRegistered, match="waits for workflow 'late-1'"):
        await (await harness.engine.get("one")).result()

    late = define_late("late-1")

    assert await (await harness.engine.get("one", late)).result() == "hello"
    assert unknown == {"late-1"}
    assert waiting.status is RunStatus.RUNNING
    assert harness.engine.unknown_workflows == frozenset()


async def test_a_client_starts_a_run_that_waits_for_a_worker_who_knows_it(harness: Harness) -> None:
    await harness.stop()  # it would take the run up while its workflow is still there
    late = define_late("late-2")
    async with Client(harness.url) as client:
        await client.start(late(), id="one")
    del late
    await harness.open()
    await harness.until(lambda: harness.engine.unknown_workflows == {"late-2"})

    late = define_late("late-2")
    await harness.engine.send("one", hint, "hello")

    assert await (await harness.engine.get("one", late)).result() == "hello"


async def test_two_workflows_of_one_name_are_refused_when_a_stored_run_could_belong_to_either(
    harness: Harness,
) -> None:
    late = define_late("late-3")
    await harness.start(late(), id="one")
    await harness.stop()
    rival = define_rival("late-3")
    elsewhere = Harness(harness.url.removeprefix("sqlite:///"), clock=harness.clock)
    async with elsewhere:
        await elsewhere.send("one", hint, "hello")
        await elsewhere.until(lambda: elsewhere.engine.unknown_workflows)

        with pytest.raises(DefinitionError, match=r"(?s)Two workflows are named 'late-3'.*name="):
            elsewhere.engine.driver.registry.find(rival.name)
        elsewhere.workflows = [late]
        await elsewhere.restart()
        assert await (await elsewhere.get("one", late)).result() == "hello"


async def test_a_harness_knows_which_of_two_workflows_of_one_name_it_has_run(harness: Harness) -> None:
    late, rival = define_late("late-5"), define_rival("late-5")
    run = await harness.start(late(), id="one")

    await harness.crash()
    await run.send(hint, "hello")

    assert await run.result() == "hello"
    assert rival.name == late.name


async def test_an_engine_runs_only_the_workflows_that_it_was_given(harness: Harness) -> None:
    late, rival = define_late("late-4"), define_rival("late-4")
    await harness.stop()
    harness.workflows = [rival]
    await harness.open()
    async with Client(harness.url) as client:
        run = await client.start(late(), id="one")

        assert await run.result() == "the rival ran"


async def test_an_ambiguous_name_costs_one_collection_and_not_one_for_each_look() -> None:
    late, rival = define_late("late-6"), define_rival("late-6")
    collected: list[str] = []
    gc.callbacks.append(watch := lambda phase, _: collected.append(phase))  # pyright: ignore[reportUnknownLambdaType]
    registry = Registry()
    try:
        for _ in range(100):
            assert "late-6" not in registry.names()
    finally:
        gc.callbacks.remove(watch)

    assert collected.count("start") < 10
    del rival
    gc.collect()
    assert late.name in registry.names()
