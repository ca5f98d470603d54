"""Steps that may be late, in `explore`: bugs that show only when a time limit passes while a step runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import DefinitionError, Retry, RunFailed, StepFailed, compensate, step, step_info, workflow
from perdure.errors import HeartbeatTimedOut, StepTimedOut
from perdure.testing import Explored, Harness, ScheduleFailed, explore


@step(timeout=30, retry=Retry(attempts=3))
async def charge(cents: int) -> str:
    raise AssertionError("is overridden")


@step(deadline=20)
async def charge_by_then(cents: int) -> str:
    raise AssertionError("is overridden")


@step(heartbeat=5, retry=Retry(attempts=1))
async def copy_tape() -> str:
    raise AssertionError("is overridden")


@step
async def refund(cents: int) -> None:
    raise AssertionError("is overridden")


class Bank:
    """A bank that books whatever it is asked for."""

    def __init__(self) -> None:
        self.booked: list[int] = []
        self.keys: set[str] = set()

    def charge(self, cents: int) -> str:
        self.booked.append(cents)
        return f"attempt {step_info().attempt}"

    def charge_once(self, cents: int) -> str:
        if step_info().idempotency_key not in self.keys:
            self.keys.add(step_info().idempotency_key)
            self.booked.append(cents)
        return f"attempt {step_info().attempt}"

    def refund(self, cents: int) -> None:
        self.booked = []


def of_bank(bank: Bank) -> dict[Any, Callable[..., Any]]:
    return {
        charge: bank.charge,
        charge_by_then: bank.charge,
        refund: bank.refund,
        copy_tape: lambda: "all of it",
    }


def of_careful_bank(bank: Bank) -> dict[Any, Callable[..., Any]]:
    return {**of_bank(bank), charge: bank.charge_once}


def is_paid_once(explored: Explored[str, Bank]) -> bool:
    return explored.world.booked == [4200]


@workflow
async def pays() -> str:
    return await charge(4200)


async def test_a_step_that_is_late_and_acts_twice_is_found() -> None:
    await explore(pays(), setup=Bank, overrides=of_bank, check=is_paid_once)

    with pytest.raises(ScheduleFailed) as caught:
        await explore(pays(), setup=Bank, overrides=of_bank, check=is_paid_once, may_be_late=[charge])

    assert caught.value.schedule == "charge late, charge acted"
    assert caught.value.explored.world.booked == [4200, 4200]
    assert caught.value.explored.result == "attempt 2"


async def test_a_step_that_acts_once_for_its_key_may_be_late() -> None:
    found = await explore(
        pays(), setup=Bank, overrides=of_careful_bank, check=is_paid_once, may_be_late=[charge]
    )

    assert found.complete
    # On time; late once, having acted or not; and late for good, with either of these before.
    assert found.schedules == 1 + 2 + 4


@workflow
async def takes_late_for_never() -> str:
    try:
        await charge(4200)
    except StepFailed:
        return "not paid"
    return "paid"


@workflow
async def refunds_what_may_have_been_paid() -> str:
    try:
        await charge(4200)
    except StepFailed:
        await refund(4200)
        return "not paid"
    return "paid"


def says_what_is_booked(explored: Explored[str, Bank]) -> bool:
    return bool(explored.world.booked) == (explored.result == "paid")


async def test_a_workflow_that_takes_a_late_step_for_one_that_did_nothing_is_found() -> None:
    with pytest.raises(ScheduleFailed) as caught:
        await explore(
            takes_late_for_never(), setup=Bank, overrides=of_careful_bank, check=says_what_is_booked,
            may_be_late=[charge],
        )  # fmt: skip

    assert "charge late again" in caught.value.schedule
    assert caught.value.explored.result == "not paid"
    found = await explore(
        refunds_what_may_have_been_paid(), setup=Bank, overrides=of_careful_bank, check=says_what_is_booked,
        may_be_late=[charge],
    )  # fmt: skip
    assert found.complete


@workflow
async def pays_or_undoes() -> str:
    compensate(refund(4200))
    return await charge(4200)


async def test_a_run_may_end_with_the_error_of_a_late_step_and_is_checked_all_the_same() -> None:
    ends: list[type[BaseException]] = []

    def look(explored: Explored[str, Bank]) -> None:
        if explored.error is not None:
            ends.append(type(explored.error))
            assert isinstance(explored.error, StepTimedOut)
            assert explored.world.booked == []

    await explore(pays_or_undoes(), setup=Bank, overrides=of_careful_bank, check=look, may_be_late=[charge])

    assert len(ends) == 4


async def test_a_deadline_leaves_no_other_attempt() -> None:
    seen: list[tuple[str, ...]] = []

    @workflow
    async def pays_by_then() -> str:
        try:
            return await charge_by_then(4200)
        except StepTimedOut as late:
            return str(late)

    await explore(
        pays_by_then(), setup=Bank, overrides=of_bank, may_be_late=[charge_by_then],
        check=lambda explored: seen.append((*explored.schedule, explored.result)),
    )  # fmt: skip

    assert len(seen) == 3
    assert seen[1][:2] == ("charge_by_then late", "charge_by_then did not act")
    assert "ran past the deadline of 20 s over all attempts" in seen[1][2]


async def test_a_step_that_is_silent_for_too_long_is_late() -> None:
    seen: set[str] = set()

    @workflow
    async def copies() -> str:
        try:
            return await copy_tape()
        except HeartbeatTimedOut:
            return "it fell silent"

    await explore(
        copies(), setup=Bank, overrides=of_bank, may_be_late=[copy_tape],
        check=lambda explored: seen.add(explored.result),
    )  # fmt: skip

    assert seen == {"all of it", "it fell silent"}


@pytest.mark.parametrize(("patience_s", "may_be_late"), [(20, False), (40, True)])
async def test_a_limit_does_not_pass_before_a_timer_that_is_due_earlier(
    patience_s: float, may_be_late: bool
) -> None:
    names: set[str] = set()

    @workflow
    async def waits_so_long() -> str:
        try:
            async with asyncio.timeout(patience_s):
                return await charge(4200)
        except TimeoutError:
            return "too late"

    await explore(
        waits_so_long(), setup=Bank, overrides=of_bank, may_be_late=[charge],
        check=lambda explored: names.update(explored.schedule),
    )  # fmt: skip

    assert ("charge late" in names) == may_be_late


async def test_an_engine_fails_a_late_step_in_the_same_words() -> None:
    said: list[str] = []
    bank = Bank()

    async def hang(cents: int) -> str:
        return await asyncio.get_running_loop().create_future()

    async with Harness() as harness:
        with harness.override(charge, hang), harness.override(refund, bank.refund):
            run = await harness.start(pays_or_undoes(), id="run")
            await harness.settle()
            await harness.advance(minutes=10)
            with pytest.raises(RunFailed) as caught:
                await run.result()

    await explore(
        pays_or_undoes(), setup=Bank, overrides=of_careful_bank, may_be_late=[charge],
        check=lambda explored: said.append(str(explored.error)),
    )  # fmt: skip
    failure = str(caught.value.__cause__)
    assert failure.startswith("Attempt 3 of step 'charge' of run 'run' took longer")
    assert said.count(failure) == 4


async def test_a_step_without_limits_is_never_late() -> None:
    with pytest.raises(DefinitionError, match="'refund' has no time limit"):
        await explore(pays(), may_be_late=[refund])
