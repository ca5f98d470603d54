"""Calls that are made and not awaited, and cancellations that are swallowed."""

import asyncio
from contextlib import suppress

from perdure import Signal, start_child, step, workflow

approval = Signal[str]("approval")


@step
async def charge(order: str) -> str: ...


@step
async def undo(order: str) -> None: ...


async def settle(order: str) -> None:
    await charge(order)


def begin(order: str):
    return charge(order)


@workflow
async def child(n: int) -> int:
    return n


@workflow
async def forgets_a_step(order: str) -> None:
    charge(order)  # expect: not-awaited


@workflow
async def forgets_a_child() -> None:
    child(3)  # expect: not-awaited


@workflow
async def forgets_a_helper(order: str) -> None:
    settle(order)  # expect: not-awaited


@workflow
async def forgets_what_a_helper_began(order: str) -> None:
    begin(order)  # expect: not-awaited


@workflow
async def forgets_to_sleep() -> None:
    asyncio.sleep(86_400)  # expect: not-awaited


@workflow
async def forgets_to_receive() -> None:
    approval.receive()  # expect: not-awaited


@workflow
async def forgets_to_start() -> None:
    start_child(child(3))  # expect: not-awaited


@workflow
async def keeps_the_call(order: str) -> None:
    receipt = charge(order)  # expect: not-awaited
    await undo(order)


@workflow
async def asks_the_call(order: str) -> None:
    if charge(order):  # expect: not-awaited
        await undo(order)


@workflow
async def writes_the_call(order: str) -> None:
    await undo(f"receipt {charge(order)}")  # expect: not-awaited


@workflow
async def returns_the_call(order: str) -> str:
    return charge(order)  # expect: not-awaited


@workflow
async def catches_all(order: str) -> None:
    try:
        await charge(order)
    except:  # expect: swallowed-cancel
        await undo(order)


@workflow
async def catches_the_base(order: str) -> str:
    try:
        return await charge(order)
    except BaseException as error:  # expect: swallowed-cancel
        return str(error)


@workflow
async def catches_the_cancel(order: str) -> None:
    try:
        await charge(order)
    except (ValueError, asyncio.CancelledError):  # expect: swallowed-cancel
        await undo(order)


@workflow
async def suppresses_the_cancel(order: str) -> None:
    with suppress(asyncio.CancelledError):  # expect: swallowed-cancel
        await charge(order)


@workflow
async def returns_in_the_end(order: str) -> str:
    try:
        await charge(order)
    finally:
        return "done"  # expect: swallowed-cancel


async def try_hard(order: str) -> None:
    while True:
        try:
            await charge(order)
        except BaseException:  # expect: swallowed-cancel via tries_hard > try_hard
            continue
        return


@workflow
async def tries_hard(order: str) -> None:
    await try_hard(order)
