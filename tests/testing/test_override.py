"""Overriding a step: the fake does the work, is recorded like the step, and goes when the block ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from perdure import DefinitionError, Retry, step, step_info, workflow
from perdure.testing import Harness, override


@step(retry=Retry(attempts=3))
async def charge(order: str, cents: int = 100, *, currency: str = "EUR") -> str:
    return "real"


@step
def pack(order: str) -> str:
    return "real"


@step
def label(order: str) -> None:
    raise AssertionError("the real one was called")


@workflow
async def labels(order: str) -> None:
    await label(order)


@step(on="process")
def compute(number: int) -> int:
    return number


@workflow
async def checkout(order: str) -> list[str]:
    return [await charge(order, currency="CHF"), await pack(order)]


async def test_a_fake_does_what_the_step_would_and_is_recorded(harness: Harness) -> None:
    with harness.override(charge, lambda order, cents=100, *, currency="EUR": f"fake {order}") as fake:
        result = await harness.run(checkout("17"), id="17")

    assert result == ["fake 17", "real"]
    assert fake.calls == [{"order": "17", "cents": 100, "currency": "CHF"}]
    assert harness.steps("17")[0].result == "fake 17"


async def test_after_the_block_the_step_is_itself_again(harness: Harness) -> None:
    with pytest.raises(ZeroDivisionError), harness.override(charge, lambda *_, **__: ""):
        1 / 0  # noqa: B018

    assert await harness.run(checkout("17")) == ["real", "real"]


async def test_blocks_can_stand_in_each_other(harness: Harness) -> None:
    with override(pack, lambda order: "outer"):
        with override(pack, lambda order: "inner") as inner:
            first = await harness.run(checkout("17"))
        second = await harness.run(checkout("18"))

    assert (first[1], second[1]) == ("inner", "outer")
    assert inner.calls == [{"order": "17"}]


async def test_a_sync_fake_of_a_sync_step_runs_on_a_thread(harness: Harness) -> None:
    with harness.override(pack, lambda order: threading.current_thread().name):
        result = await harness.run(checkout("17"))

    assert result[1].startswith("perdure-step")


async def test_an_async_fake_of_a_sync_step_runs_on_the_loop(harness: Harness) -> None:
    loop = asyncio.get_running_loop()

    async def fake(order: str) -> str:
        return str(asyncio.get_running_loop() is loop)

    with harness.override(pack, fake):
        assert (await harness.run(checkout("17")))[1] == "True"


async def test_a_fake_that_raises_is_tried_again_as_the_step_is(flying_harness: Harness) -> None:
    def breaks_twice(order: str, cents: int = 100, *, currency: str = "EUR") -> str:
        if step_info().attempt < 3:
            raise OSError("the line broke")
        return f"in attempt {step_info().attempt}"

    with flying_harness.override(charge, breaks_twice):
        assert (await flying_harness.run(checkout("17")))[0] == "in attempt 3"


async def test_a_function_that_does_not_say_what_it_takes_is_taken(harness: Harness) -> None:
    packed: set[str] = set()

    with harness.override(label, packed.add):
        await harness.run(labels("17"))

    assert packed == {"17"}


async def test_a_step_can_be_the_fake_of_another(harness: Harness) -> None:
    @step
    async def other(order: str) -> str:
        return "other"

    with harness.override(pack, other):
        assert (await harness.run(checkout("17")))[1] == "other"


@pytest.mark.parametrize(
    "fake",
    [
        lambda: "",
        lambda order: "",
        lambda order, cents=100: "",
        lambda order, cents=100, *, money="EUR": "",
        lambda order, cents=100, extra=None, *, currency="EUR", needed: "",
    ],
)
def test_a_fake_that_does_not_take_what_the_step_takes_is_refused(fake: Callable[..., Any]) -> None:
    with pytest.raises(DefinitionError, match="The fake of step 'charge' takes"), override(charge, fake):
        pass


def test_a_step_that_runs_in_a_process_is_refused() -> None:
    with pytest.raises(DefinitionError, match="process of its own"), override(compute, lambda number: 1):
        pass
