"""The workflows that the benchmarks run: as little as can be, so that what is measured is the engine."""

from __future__ import annotations

import asyncio

from perdure import step, workflow


@step
async def nothing(number: int) -> int:
    """Does nothing."""
    return number


@workflow
async def one_by_one(steps: int) -> int:
    """So many steps, one after the other."""
    total = 0
    for number in range(steps):
        total += await nothing(number)
    return total


@workflow
async def all_at_once(steps: int) -> int:
    """So many steps under one gather."""
    return sum(await asyncio.gather(*(nothing(number) for number in range(steps))))


@workflow
async def long_sleep(seconds: float) -> None:
    """Sleeps for a long time."""
    await asyncio.sleep(seconds)


def url_of(path: object) -> str:
    """The store's URL for a file's full path."""
    return f"sqlite:///{path}"
