"""Signals, states, updates, children and what a workflow finds in place of clocks."""

from __future__ import annotations

import random as standard_random
from datetime import datetime
from typing import NoReturn, assert_type
from uuid import UUID

from perdure import (
    Child,
    RunFacts,
    Signal,
    State,
    Update,
    compensate,
    continue_as_new,
    now,
    patched,
    random,
    run_info,
    start_child,
    step,
    uuid,
    workflow,
)

approval = Signal[str]("approval")
numbers = Signal[tuple[int, ...]]("numbers")
status = State[str | None]("status")
resize = Update[int, list[str]]("resize")

Signal(7)  # error: reportArgumentType


@step
async def charge(cents: int) -> str:
    return str(cents)


@step
def refund(receipt: str) -> None: ...


async def on_resize(width: int) -> list[str]:
    return ["x"] * width


async def on_resize_wrongly(width: str) -> list[str]:
    return [width]


async def on_resize_returning_wrongly(width: int) -> str:
    return str(width)


def on_resize_plainly(width: int) -> list[str]:
    return ["x"] * width


def check_width(width: int) -> None: ...


def on_approval(who: str) -> None: ...


async def on_approval_later(who: str) -> None: ...


def on_number(number: int) -> None: ...


@workflow
async def messages() -> None:
    assert_type(await approval.receive(), str)
    assert_type(await numbers.receive(), tuple[int, ...])
    async for who in approval:
        assert_type(who, str)
    approval.handle(on_approval)
    approval.handle(on_approval_later)
    status.set("charging")
    status.set(None)
    resize.handle(on_resize)
    resize.handle(on_resize, validate=check_width)

    approval.handle(on_number)  # error: reportArgumentType
    status.set(7)  # error: reportArgumentType
    resize.handle(on_resize_wrongly)  # error: reportArgumentType
    resize.handle(on_resize_returning_wrongly)  # error: reportArgumentType
    resize.handle(on_resize_plainly)  # error: reportArgumentType
    resize.handle(on_resize, validate=on_approval)  # error: reportArgumentType


@workflow
async def child(cents: int) -> str:
    return await charge(cents)


@workflow
async def parent(cents: int) -> str:
    started = await start_child(child(cents), id="child-1", on_parent_close="abandon")
    assert_type(started, Child[str])
    assert_type(started.id, str)
    assert_type(await started, str)
    assert_type(await child(cents), str)

    await start_child(child("17"))  # error: reportArgumentType
    await start_child(charge(17))  # error: reportArgumentType
    await start_child(child(17), on_parent_close="keep")  # error: reportArgumentType
    return await started


@workflow
async def ends_and_goes_on(cents: int) -> str:
    compensate(refund("receipt"))
    compensate(child(cents))
    assert_type(now(), datetime)
    assert_type(uuid(), UUID)
    assert_type(random(), standard_random.Random)
    assert_type(patched("fraud check"), bool)
    assert_type(run_info(), RunFacts)

    compensate(refund)  # error: reportArgumentType
    compensate(refund(7))  # error: reportArgumentType
    if cents > 100:
        # What stands after it is never reached, so this function needs no other return.
        continue_as_new(ends_and_goes_on(cents - 1))
    elif cents > 50:
        continue_as_new(ends_and_goes_on("17"))  # error: reportArgumentType
    elif cents > 10:
        continue_as_new(charge(5))  # error: reportArgumentType
    else:
        return "done"


def gives_up() -> NoReturn:
    continue_as_new(parent(7))
