"""What runs are in the middle of when new code comes: calls without an answer, messages that wait."""

from __future__ import annotations

import asyncio

import pytest

from perdure.testing import Harness
from tests.journals.conftest import OLD, Perdure, Version, begin, check


def test_a_step_that_was_begun_and_would_not_be_asked_for_again_is_told(
    perdure: Perdure, version: Version
) -> None:
    old = """
    @step(retry=Retry(attempts=5, delay=3600))
    async def stumble(order: str) -> str:
        raise ConnectionError("the bank does not answer")

    @workflow
    async def fulfil(order: str) -> str:
        await ship(order)
        return await stumble(order)
    """
    begin(version(old), "a")
    version(old.replace("return await stumble", "return await charge"))

    (group,) = check(perdure)["groups"]

    assert group["verdict"] == "diverges"
    assert (
        "Step 'stumble' at '0/1/stumble' was begun and has no answer yet, but the code now asks for 'charge'"
        in (group["parting"]["what"])
    )


def test_a_step_that_was_given_up_is_not_missed(perdure: Perdure, version: Version) -> None:
    old = """
    @step(retry=Retry(attempts=5, delay=3600))
    async def stumble(order: str) -> str:
        raise ConnectionError("the bank does not answer")

    @workflow
    async def fulfil(order: str) -> str:
        try:
            async with asyncio.timeout(60):
                await stumble(order)
        except TimeoutError:
            return await paid.receive()
    """
    module = version(old)

    async def work() -> None:
        async with Harness("perdure.db", workflows=[module.fulfil]) as t:
            await t.start(module.fulfil("a"), id="a")
            await t.settle()
            await t.advance(120)

    asyncio.run(work())
    version(old)

    assert check(perdure)["compatible"] == 1


RENDERED = """
@step(worker="gpu")
async def render(order: str) -> str:
    return "a picture"

@workflow
async def fulfil(order: str) -> str:
    await ship(order)
    picture = await render(order)
    return await charge(picture)
"""


@pytest.mark.parametrize(("result", "fits"), [("str", 1), ("int", 0)])
def test_what_a_step_at_another_worker_came_to_is_handed_to_new_code(
    perdure: Perdure, version: Version, result: str, fits: int
) -> None:
    module = version(RENDERED)

    async def work() -> None:
        async with Harness("perdure.db", workflows=[module.fulfil], tags=()) as asks:
            await asks.start(module.fulfil("a"), id="a")
            await asks.settle()
        async with Harness("perdure.db", workflows=[], tags=["gpu"]) as renders:
            await renders.until(lambda: renders.store.messages_for(1))

    asyncio.run(work())
    version(RENDERED, before="render(order: str) -> str", after=f"render(order: str) -> {result}")

    assert check(perdure)["compatible"] == fits


CHILDREN = """
@workflow
async def small(order: str) -> str:
    return await paid.receive()

@workflow
async def parent(order: str) -> str:
    await ship(order)
    return await small(order)
"""


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "return await small(order)",
            "return await charge(order)",
            "but the code now asks for 'charge' there",
        ),
        (
            "return await small(order)",
            "return await small('x')",
            "the code now calls it with other arguments",
        ),
        ("return await small(order)", "return await paid.receive()", "but the code does not ask for it"),
    ],
    ids=["another call", "other arguments", "no call"],
)
def test_a_child_that_runs_and_would_not_be_heard_is_told(
    perdure: Perdure, version: Version, before: str, after: str, says: str
) -> None:
    begin(version(CHILDREN), "a", "b")
    version(CHILDREN, before=before, after=after)

    found = check(perdure)

    (group,) = found["groups"]
    assert group["parting"]["change"] == "stranded"
    assert "Child 'small' at '0/1/small' was started and has no answer yet" in group["parting"]["what"]
    assert says in group["parting"]["what"]
    assert (group["runs"], found["compatible"], found["runs"]) == (2, 4, 6)


def test_children_that_are_still_asked_for_or_were_given_up_are_not_missed(
    perdure: Perdure, version: Version
) -> None:
    code = """
    @workflow
    async def small(order: str) -> str:
        while True:
            await paid.receive()

    @workflow
    async def waits(order: str) -> str:
        return await small(order)

    @workflow
    async def gives_up(order: str) -> str:
        task = asyncio.create_task(small(order))
        await ship(order)
        task.cancel()
        return await paid.receive()
    """
    begin(version(code), "a", "b")

    found = check(perdure)

    assert found["groups"] == []


def test_what_waits_to_be_taken_by_a_parked_run_is_tried_too(perdure: Perdure, version: Version) -> None:
    begin(version(OLD), "a")
    wrong = version(OLD, before="    receipt", after="    await notify(order)\n    receipt")

    async def park() -> None:
        async with Harness("perdure.db", workflows=[wrong.fulfil]) as t:
            await t.send("a", wrong.paid, "ann")
            await t.settle()

    asyncio.run(park())
    version(OLD, before='Signal[str]("paid")', after='Signal[int]("paid")')

    (group,) = check(perdure)["groups"]

    assert group["parting"]["change"] == "fails"
    assert "NotDecodable: signal 'paid': Expected `int`, got `str`" in group["parting"]["what"]
