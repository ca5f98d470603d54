"""Small programs whose orders are known, and what notes the orders that are tried."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import (
    RunStatus,
    Signal,
    State,
    Update,
    now,
    patched,
    random,
    step,
    workflow,
)
from perdure.testing.explore import Explored

word = Signal[int]("word")
total = State[int]("total")
add = Update[int, int]("add")


@step
async def work(number: int) -> int:
    return number


@workflow
async def all_at_once(steps: int) -> int:
    return sum(await asyncio.gather(*(work(number) for number in range(steps))))


async def chain(steps: int) -> int:
    return sum([await work(number) for number in range(steps)])


@workflow
async def chains(lengths: list[int]) -> int:
    return sum(await asyncio.gather(*(chain(length) for length in lengths)))


@workflow
async def take_words(count: int) -> list[int]:
    return [await word.receive() for _ in range(count)]


class Schedules:
    """Collects what a check sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []
        self.results: list[Any] = []
        self.statuses: list[RunStatus] = []

    def __call__(self, explored: Explored[Any, Any]) -> None:
        self.seen.append(explored.schedule)
        self.statuses.append(explored.status)
        self.results.append(explored.result if explored.status is RunStatus.COMPLETED else explored.error)


@workflow
async def two_in_a_row() -> None:
    await work(1)
    await work(2)


@workflow
async def double(number: int) -> int:
    return 2 * await work(number)


@workflow
async def everything() -> float:
    async def answer(number: int) -> int:
        return await work(number)

    add.handle(answer)
    done, _ = await asyncio.wait([asyncio.ensure_future(work(n)) for n in range(3)])
    total.set(len(done))
    doubled = await double(4)
    try:
        async with asyncio.timeout(60):
            received = await word.receive()
    except TimeoutError:
        received = 0
    if patched("more"):
        await asyncio.sleep(random().random())
    return received + doubled + now().timestamp()
