"""What no store can keep is refused to who gives it, and harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Engine, PerdureError, Signal, State, Update, workflow

LONG = "\U00010400" * 900
"""Fewer than a thousand characters, and more bytes than an index of PostgreSQL takes."""


@workflow
async def answers(what: str) -> str:
    return what


@workflow
async def sleeps() -> None:
    await asyncio.sleep(3_600)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda engine: engine.start(answers("x"), id=LONG),
            "at most 1300 bytes in UTF-8, and this has 3600",
        ),
        (lambda engine: engine.start(answers("x"), tags={"of": LONG}), "at most 1300 bytes"),
        (lambda engine: engine.start(answers("x"), timeout=1e17), "a thousand years at most"),
        (lambda engine: engine.cancel("it", "a\0b"), "A reason is .* no text to a database"),
        (lambda engine: engine.terminate("it", "a\ud800b"), "A reason is .* no text to a database"),
    ],
    ids=["id", "tag", "timeout", "cancel", "terminate"],
)
async def test_it_is_refused_and_the_engine_goes_on(
    url: str, call: Callable[[Engine], Awaitable[Any]], says: str
) -> None:
    async with Engine(url) as engine, asyncio.timeout(20):
        run = await engine.start(sleeps(), id="it")
        with pytest.raises(PerdureError, match=says):
            await call(engine)

        assert await engine.run(answers("well")) == "well"
        assert (await run.info()).status.value == "running"


@pytest.mark.parametrize("declare", [Signal[int], State[int], Update[int, int]])
def test_a_name_is_text_as_any_store_can_keep_it(declare: Callable[[str], object]) -> None:
    with pytest.raises(PerdureError, match=r"name is .* no text to a database"):
        declare("a\0b")
