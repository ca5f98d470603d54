"""Calls that are awaited by others, or need no await."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from perdure import (
    Child,
    Signal,
    Update,
    compensate,
    continue_as_new,
    start_child,
    step,
    workflow,
)

approval = Signal[str]("approval")
move = Update[str, str]("move")


@dataclass(frozen=True)
class Line:
    item: str
    cents: int = 0

    def total(self, times: int) -> int:
        return self.cents * times


@step
async def charge(order: str) -> str: ...


@step
def refund(order: str) -> None: ...


@workflow
async def child(n: int) -> int:
    return n


async def both(*calls: Awaitable[Any]) -> list[Any]:
    return [await call for call in calls]


def begin(order: str):
    return charge(order)


@asynccontextmanager
async def held(order: str) -> AsyncIterator[str]:
    receipt = await charge(order)
    try:
        yield receipt
    except BaseException:
        await refund(order)
        raise


async def receipts(orders: Sequence[str]) -> AsyncIterator[str]:
    for order in orders:
        yield await charge(order)


async def attempt(call: Callable[[], Awaitable[str]]) -> str:
    return await call()


@workflow
async def gives_calls_to_others(order: str) -> None:
    compensate(refund(order))
    task = asyncio.create_task(charge(order))
    first, second = await asyncio.gather(charge(order), child(3))
    async with asyncio.TaskGroup() as group:
        group.create_task(charge(order))
        kept = group.create_task(charge(order))
    await asyncio.wait_for(charge(order), 3)
    await asyncio.shield(charge(order))
    await both(charge(order), child(1))
    print(await task, first, second, kept.result())


@workflow
async def awaits_later(order: str) -> str:
    call = charge(order)
    other = begin(order)
    await asyncio.sleep(1)
    await other
    return await call


@workflow
async def keeps_calls_in_a_list(orders: list[str]) -> list[str]:
    calls = [charge(order) for order in orders]
    more = []
    for order in orders:
        more.append(charge(order))
    return await asyncio.gather(*calls, *more)


@workflow
async def starts_children() -> int:
    one: Child[int] = await start_child(child(1))
    two = await start_child(child(2), id="two")
    return await one + await two


@workflow
async def goes_on(n: int) -> int:
    if n > 3:
        continue_as_new(goes_on(0))
    return n


@workflow
async def hands_functions_over(order: str) -> str:
    return await attempt(lambda: charge(order)) + await attempt(partial(charge, order))


@workflow
async def holds(order: str) -> str:
    async with held(order) as receipt:
        async for other in receipts([order]):
            print(other)
        return receipt


@workflow
async def answers() -> str:
    seen: list[str] = []

    async def answer(place: str) -> str:
        seen.append(place)
        return await charge(place)

    def refuse(place: str) -> None:
        if place in seen:
            raise ValueError(place)

    move.handle(answer, validate=refuse)
    approval.handle(seen.append)
    return await approval.receive()


@workflow
async def sums(lines: list[Line]) -> int:
    return sum(line.total(2) for line in lines) + max(map(lambda line: line.cents, lines), default=0)


@workflow
async def has_time() -> str:
    try:
        async with asyncio.timeout(60):
            return await approval.receive()
    except TimeoutError:
        return "nobody"


@workflow
async def uses_a_queue(orders: list[str]) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()
    lock = asyncio.Lock()

    async def work() -> None:
        while True:
            order = await queue.get()
            async with lock:
                await charge(order)
            queue.task_done()

    workers = [asyncio.create_task(work()) for _ in range(3)]
    for order in orders:
        queue.put_nowait(order)
    await queue.join()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


@workflow
async def calls_the_bare_workflow() -> int:
    return await child.fn(3)


def either(is_async: bool) -> Callable[[], Any]:
    async def later() -> int:
        return 1

    def at_once() -> int:
        return 1

    if is_async:
        return later
    return at_once


@workflow
async def may_be_either(is_async: bool) -> None:
    either(is_async)()
    call = charge("one")
    print(f"makes {call!r}")
    await call


@dataclass
class Link:
    name: str
    next: "Link"


@step
async def follow(link: Link) -> None: ...


@workflow
async def follows(link: Link) -> None:
    await follow(link)
