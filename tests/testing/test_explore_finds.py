"""Mistakes that only a rare order shows: each is found in few schedules, and shown as one would write it.

For each there is the program put right, in which every order is tried and nothing is found.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from perdure import (
    Signal,
    Update,
    Workflow,
    compensate,
    continue_as_new,
    step,
    workflow,
)
from perdure.testing.events import Ask, Cancel, Send
from perdure.testing.explore import Explored, ScheduleFailed, explore


async def find(call: Any, **options: Any) -> tuple[str, int]:
    """The shortest schedule in which something is wrong, and in which schedule it was found."""
    with pytest.raises(ScheduleFailed) as caught:
        await explore(call, **options)
    failed = caught.value
    with pytest.raises(ScheduleFailed):  # what it says, reproduces it
        await explore(call, schedule=failed.schedule, **options)
    found = re.search(r"Found in schedule ([\d,]+)", str(failed))
    assert found is not None
    return failed.schedule, int(found[1].replace(",", ""))


async def prove(call: Any, **options: Any) -> int:
    """How many schedules there are, when in none of them anything is wrong."""
    found = await explore(call, schedules=20_000, **options)
    assert found.complete
    return found.schedules


# -- two branches change one variable ------------------------------------------------------------


@step
async def read_price(item: str) -> int:
    return {"tea": 3, "cup": 5}[item]


@workflow
async def sums_carelessly() -> int:
    cents = 0

    async def add(item: str) -> None:
        nonlocal cents
        cents = cents + await read_price(item)  # reads `cents` before it waits

    await asyncio.gather(add("tea"), add("cup"))
    return cents


@workflow
async def sums_with_care() -> int:
    cents = 0

    async def add(item: str) -> None:
        nonlocal cents
        price = await read_price(item)
        cents += price

    await asyncio.gather(add("tea"), add("cup"))
    return cents


def is_eight(explored: Explored[int, None]) -> bool:
    return explored.result == 8


async def test_a_lost_update_between_two_branches_is_found_in_the_first_schedule() -> None:
    assert await find(sums_carelessly(), check=is_eight) == ("", 1)
    assert await prove(sums_with_care(), check=is_eight) == 2


# -- two branches change one thing in the world --------------------------------------------------


class Account:
    """Money that two branches take from and add to."""

    def __init__(self) -> None:
        self.cents = 0
        self.was_below = False


@step
async def read_balance() -> int:
    raise NotImplementedError


@step
async def write_balance(cents: int) -> None:
    raise NotImplementedError


def account_steps(account: Account) -> dict[Any, Any]:
    return {
        read_balance: lambda: account.cents,
        write_balance: lambda cents: vars(account).update(cents=cents),
    }


async def change(cents: int, *, after: int) -> None:
    for _ in range(after):
        await read_balance()
    await write_balance(await read_balance() + cents)


@workflow
async def changes_twice() -> None:
    # In the default order the second has begun to read only when the first has written.
    await asyncio.gather(change(10, after=0), change(1, after=3))


@workflow
async def changes_twice_locked() -> None:
    lock = asyncio.Lock()

    async def change_alone(cents: int, *, after: int) -> None:
        async with lock:
            await change(cents, after=after)

    await asyncio.gather(change_alone(10, after=0), change_alone(1, after=3))


def is_eleven(explored: Explored[None, Account]) -> None:
    assert explored.world.cents == 11


ACCOUNT: dict[str, Any] = {"setup": Account, "overrides": account_steps, "check": is_eleven}


async def test_a_race_of_two_branches_in_the_world_is_found_within_thirty_schedules() -> None:
    schedule, found_in = await find(changes_twice(), **ACCOUNT)

    assert found_in <= 30
    assert len(schedule.split(", ")) <= 5
    assert await prove(changes_twice_locked(), **ACCOUNT) == 1


# -- a signal that comes before anybody waits ----------------------------------------------------

approval = Signal[str]("approval")


@step
async def prepare(order: str) -> None:
    """Does nothing."""


@workflow
async def looks_once(order: str) -> str:
    """Sets an event in a handler that is registered too early to see what it needs."""
    is_open = False
    approved: list[str] = []
    is_approved = asyncio.Event()

    def hear(who: str) -> None:
        if is_open:  # one that came before is thrown away
            approved.append(who)
            is_approved.set()

    approval.handle(hear)
    await prepare(order)
    is_open = True
    await is_approved.wait()
    return approved[0]


@workflow
async def waits_for_it(order: str) -> str:
    await prepare(order)
    return await approval.receive()


async def test_a_signal_before_the_wait_is_found_within_two_schedules() -> None:
    events = [Send(approval, "ann")]

    assert await find(looks_once("17"), events=events) == ("send approval", 2)
    assert await prove(waits_for_it("17"), events=events) == 2


# -- an answer and a timeout at the same time ----------------------------------------------------


class Till:
    """What was charged and given back."""

    def __init__(self) -> None:
        self.charged = 0

    def charge(self) -> None:
        self.charged += 1

    def refund(self) -> None:
        self.charged -= 1 if self.charged else 0


@step
async def charge() -> None:
    raise NotImplementedError


@step
async def refund() -> None:
    raise NotImplementedError


def till_steps(till: Till) -> dict[Any, Any]:
    return {charge: till.charge, refund: till.refund}


@workflow
async def charges_in_time() -> str:
    try:
        async with asyncio.timeout(30):
            await charge()
    except TimeoutError:
        return "too late"  # as if it had not been charged
    return "charged"


@workflow
async def charges_in_time_or_gives_back() -> str:
    try:
        async with asyncio.timeout(30):
            await charge()
    except TimeoutError:
        await refund()
        return "too late"
    return "charged"


def is_honest(explored: Explored[str, Till]) -> None:
    assert explored.world.charged == (explored.result == "charged")


TILL: dict[str, Any] = {"setup": Till, "overrides": till_steps, "check": is_honest}


async def test_a_timeout_that_comes_when_the_step_has_acted_is_found_within_three_schedules() -> None:
    assert await find(charges_in_time(), **TILL) == ("timer 30s, charge acted", 3)
    assert await prove(charges_in_time_or_gives_back(), **TILL) == 3


# -- a cancel between reserve and confirm --------------------------------------------------------


class Stock:
    """What is reserved, released and sold."""

    def __init__(self) -> None:
        self.reserved = 0
        self.sold = 0

    def reserve(self) -> None:
        self.reserved += 1

    def release(self) -> None:
        self.reserved = 0

    def confirm(self) -> None:
        self.reserved, self.sold = 0, 1


@step
async def reserve() -> None:
    raise NotImplementedError


@step
async def release() -> None:
    raise NotImplementedError


@step
async def confirm() -> None:
    raise NotImplementedError


def stock_steps(stock: Stock) -> dict[Any, Any]:
    return {reserve: stock.reserve, release: stock.release, confirm: stock.confirm}


@workflow
async def sells() -> None:
    await reserve()
    try:
        await approval.receive()
    except Exception:  # CancelledError is none
        await release()
        raise
    await confirm()


@workflow
async def sells_with_undo() -> None:
    compensate(release())
    await reserve()
    await approval.receive()
    await confirm()


def holds_nothing_back(explored: Explored[None, Stock]) -> None:
    if explored.world.reserved:
        raise AssertionError("reserved and never released")


STOCK: dict[str, Any] = {
    "setup": Stock,
    "overrides": stock_steps,
    "check": holds_nothing_back,
    "events": [Send(approval, "ann"), Cancel()],
}


async def test_a_cancel_between_reserve_and_confirm_is_found_within_ten_schedules() -> None:
    schedule, found_in = await find(sells(), **STOCK)

    assert schedule in ("reserve done, cancel", "cancel, reserve acted")
    assert found_in <= 10
    assert await prove(sells_with_undo(), **STOCK) > 10


# -- an update while the run continues as new ----------------------------------------------------

add = Update[int, int]("add")


@step
async def rest() -> None:
    """Does nothing."""


def counts(*, settles: bool) -> Workflow[[int, int], int]:
    """A counter that goes on as new after each update, until it has counted to three."""

    @workflow(name=f"count, settles={settles}")
    async def count(start: int, generation: int) -> int:
        value = start
        under_way = 0
        heard = asyncio.Event()

        async def handle(number: int) -> int:
            nonlocal value, under_way
            under_way += 1
            heard.set()
            await rest()
            value += number
            under_way -= 1
            return value

        add.handle(handle)
        await heard.wait()
        if settles:
            while under_way:  # noqa: ASYNC110 (as short as can be)
                await asyncio.sleep(1)
        else:
            await rest()  # enough for the handler to be done, it seems
        if value < 3:
            continue_as_new(count(value, generation + 1))
        return value

    return count


def counts_to_three(explored: Explored[int, None]) -> None:
    assert explored.result == 3
    assert not [answer.error for answer in explored.answers if answer.error is not None]


async def test_an_update_lost_when_the_run_continues_as_new_is_found_within_five_schedules() -> None:
    events = [[Ask(add, 1), Ask(add, 2)]]

    schedule, found_in = await find(counts(settles=False)(0, 1), events=events, check=counts_to_three)

    assert schedule in ("ask add, rest 2 done", "ask add, rest done, rest 2 done")
    assert found_in <= 5


# -- a wake-up that is lost ----------------------------------------------------------------------

item = Signal[int]("item")


def takes_two(*, waits_well: bool) -> Workflow[[], list[int]]:
    """Two takers and a condition, in which each must look again after it was woken."""

    @workflow(name=f"takes two, {waits_well}")
    async def take_two() -> list[int]:
        box: list[int] = []
        changed = asyncio.Condition()

        async def put(value: int) -> None:
            await rest()
            async with changed:
                box.append(value)
                changed.notify()

        async def take() -> int:
            if waits_well:
                async with changed:
                    await changed.wait_for(lambda: box)
            elif not box:
                await rest()  # the condition is looked at, and then waited for: not in one piece
                async with changed:
                    await changed.wait()
            return box.pop()

        values = await asyncio.gather(take(), put(1))
        return [value for value in values if value is not None]

    return take_two


async def test_a_lost_wake_up_is_found_within_two_schedules() -> None:
    assert await find(takes_two(waits_well=False)()) == ("rest 2 done", 2)
    assert await prove(takes_two(waits_well=True)()) == 1
