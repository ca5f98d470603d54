"""Steps and workflows: what a definition takes, and what awaiting a call of it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from perdure import Retry, Step, StepCall, Workflow, WorkflowCall, step, step_info, workflow


@dataclass
class Order:
    id: str
    cents: int


@step
async def charge(order: Order) -> str:
    return order.id


@step
def reserve(order: Order, *, count: int = 1) -> int:
    return order.cents * count


@step(
    retry=Retry(attempts=5, give_up_on=(ValueError,)), timeout=30, deadline=timedelta(hours=1), heartbeat=1.5
)
async def refund(receipt: str) -> None: ...


@step(on="process", name="count pears")
def count(words: list[str]) -> dict[str, int]:
    return {word: len(word) for word in words}


@workflow
async def ship(order: Order, address: str = "") -> bool:
    return bool(address)


@workflow(name="checkout-2", timeout=timedelta(days=1))
async def checkout(order: Order) -> str:
    assert_type(charge(order), StepCall[str])
    assert_type(await charge(order), str)
    assert_type(await charge(order=order), str)
    assert_type(await reserve(order, count=2), int)
    assert_type(await refund("receipt"), None)
    assert_type(await count(["pear"]), dict[str, int])
    assert_type(ship(order), WorkflowCall[bool])
    assert_type(await ship(order, "here"), bool)

    await charge("17")  # error: reportArgumentType
    await charge()  # error: reportCallIssue
    await charge(order, order)  # error: reportCallIssue
    await reserve(order, 2)  # error: reportCallIssue
    await reserve(order, size=2)  # error: reportCallIssue
    await ship(order, 7)  # error: reportArgumentType
    charge(order)  # what is never awaited stops the run; the checker knows only Python's own coroutines
    receipt: int = await charge(order)  # error: reportAssignmentType
    return str(receipt)


a_step: Step[..., str] = charge
a_workflow: Workflow[..., str] = checkout
by_position: Callable[[list[str]], StepCall[dict[str, int]]] = count
wrong_result: Step[..., int] = charge  # error: reportAssignmentType
wrong_arguments: Callable[[str], StepCall[str]] = charge  # error: reportAssignmentType
assert_type(charge.name, str)


@workflow
async def together(order: Order) -> int:
    both = await asyncio.gather(charge(order), reserve(order))
    assert_type(both, tuple[str, int])
    many = await asyncio.gather(*(charge(order) for _ in range(3)))
    assert_type(many, list[str])
    or_errors = await asyncio.gather(charge(order), ship(order), return_exceptions=True)
    assert_type(or_errors, tuple[str | BaseException, bool | BaseException])

    task = asyncio.create_task(charge(order))
    assert_type(task, asyncio.Task[str])
    assert_type(await task, str)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(reserve(order))
        second = group.create_task(ship(order))
    assert_type(first.result(), int)
    assert_type(second.result(), bool)
    assert_type(await asyncio.wait_for(charge(order), 3), str)
    async with asyncio.timeout(86_400):
        assert_type(await asyncio.shield(charge(order)), str)
    for done in asyncio.as_completed([charge(order), charge(order)]):
        assert_type(await done, str)

    wrong: asyncio.Task[int] = asyncio.create_task(charge(order))  # error: reportAssignmentType
    del wrong
    return first.result()


@workflow  # error: reportArgumentType
def plain(order: Order) -> str:
    return order.id


@workflow()  # error: reportArgumentType
def plain_with_options(order: Order) -> str:
    return order.id


@step(retry=5)  # error: reportArgumentType
async def wrong_retry() -> None: ...


@step(retry=Retry(attempts="five"))  # error: reportArgumentType
async def wrong_attempts() -> None: ...


@step(timeout="30 s")  # error: reportArgumentType
async def wrong_timeout() -> None: ...


@step(on="thread")  # error: reportArgumentType
async def wrong_place() -> None: ...


@step(attempts=3)  # error: reportCallIssue, reportUntypedFunctionDecorator
async def wrong_option() -> None: ...


@workflow(retry=Retry())  # error: reportCallIssue, reportUntypedFunctionDecorator
async def a_workflow_is_not_retried() -> None: ...


@step
def knows_itself() -> str:
    info = step_info()
    assert_type(info.attempt, int)
    assert_type(info.idempotency_key, str)
    info.heartbeat({"done": 1})
    info.heartbeat(1, 2)  # error: reportCallIssue
    return info.run_id
