"""Bugs that users write, planted one by one: each kind of crash finds one; repaired, the program passes."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from perdure import Retry, Signal, compensate, now, step, step_info, workflow
from perdure.testing import Crashed, CrashFailure, Send, crash_everywhere

payments: list[str] = []
accounts: dict[str, str] = {}
visits: list[str] = []
approval = Signal[str]("approval")


def fresh() -> None:
    payments.clear()
    accounts.clear()
    visits.clear()


def is_paid_once(crashed: Crashed[Any]) -> None:
    assert len(payments) == 1, f"paid {len(payments)} times"


@step
async def pay(order: str) -> str:
    payments.append(order)
    return f"receipt {order}"


@step
async def pay_by_key(order: str) -> str:
    key = step_info().idempotency_key
    if key not in payments:
        payments.append(key)
    return f"receipt {order}"


@step
async def note(text: str) -> None:
    pass


@step(retry=Retry(attempts=1))
async def open_account(name: str) -> str:
    if name in accounts:
        raise ValueError(f"{name} has an account")
    accounts[name] = f"account of {name}"
    return accounts[name]


@step
async def open_account_or_find_it(name: str) -> str:
    return accounts.setdefault(name, f"account of {name}")


# -- the effect is not idempotent ----------------------------------------------------------------


@workflow
async def pays_carelessly(order: str) -> str:
    return await pay(order)


@workflow
async def pays_by_key(order: str) -> str:
    return await pay_by_key(order)


@pytest.mark.parametrize("kind", ["after-effect", "zombie"])
async def test_an_effect_that_is_not_idempotent_is_found(kind: Any) -> None:
    with pytest.raises(CrashFailure, match="paid 2 times"):
        await crash_everywhere(pays_carelessly("17"), setup=fresh, check=is_paid_once, kinds=[kind])


async def test_an_effect_that_is_idempotent_by_its_key_passes() -> None:
    done = await crash_everywhere(pays_by_key("17"), setup=fresh, check=is_paid_once, pairs=True)

    assert done.by_kind["after-effect"] > 1


async def test_the_failure_says_which_crash_it_was_and_how_to_run_it_again() -> None:
    with pytest.raises(CrashFailure) as failure:
        await crash_everywhere(pays_carelessly("17"), setup=fresh, check=is_paid_once)

    assert str(failure.value).splitlines()[0] == "crash_everywhere(…, crash='pay/1:after-effect')"
    with pytest.raises(CrashFailure, match="paid 2 times"):
        await crash_everywhere(
            pays_carelessly("17"), setup=fresh, check=is_paid_once, crash="pay/1:after-effect"
        )
    await crash_everywhere(pays_carelessly("17"), setup=fresh, check=is_paid_once, crash="pay/1:after-record")


# -- two effects of one commit -------------------------------------------------------------------


@workflow
async def opens_two(first: str, second: str) -> list[str]:
    return await asyncio.gather(open_account(first), open_account(second))


@workflow
async def finds_two(first: str, second: str) -> list[str]:
    return await asyncio.gather(open_account_or_find_it(first), open_account_or_find_it(second))


async def test_steps_that_refuse_to_be_done_twice_are_found_by_the_crash_before_their_commit() -> None:
    await crash_everywhere(finds_two("ann", "bob"), setup=fresh)

    with pytest.raises(CrashFailure, match="without a crash it is completed"):
        await crash_everywhere(opens_two("ann", "bob"), setup=fresh, kinds=["before-record"])


# -- what replay does again ----------------------------------------------------------------------


@workflow
async def counts_in_a_global(order: str) -> int:
    visits.append(order)
    await note("one")
    await note("two")
    return len(visits)


@workflow
async def reads_the_clock(order: str) -> None:
    await note("one")
    await note(str(time.time_ns()))


@workflow
async def asks_the_runs_clock(order: str) -> None:
    await note("one")
    await note(now().isoformat())


@pytest.mark.parametrize("kind", ["before-effect", "after-record"])
async def test_state_that_is_kept_in_a_global_is_found(kind: Any) -> None:
    with pytest.raises(CrashFailure, match="without a crash it is completed: 1"):
        await crash_everywhere(counts_in_a_global("17"), setup=fresh, kinds=[kind])


async def test_a_clock_that_is_read_in_a_workflow_is_found() -> None:
    await crash_everywhere(asks_the_runs_clock("17"))

    with pytest.raises(CrashFailure, match="with other arguments"):
        await crash_everywhere(reads_the_clock("17"), kinds=["after-record"])


async def test_a_journal_that_does_not_replay_is_found_without_a_single_crash() -> None:
    with pytest.raises(CrashFailure, match=r"wrong even without a crash: the journal .* replays to"):
        await crash_everywhere(counts_in_a_global("17"), setup=fresh, kinds=[])


@workflow
async def sleeps_and_counts(order: str) -> int:
    visits.append(order)
    await asyncio.sleep(86_400)
    return len(visits)


async def test_a_timer_that_was_due_while_no_worker_was_there_finds_what_a_replay_does_again() -> None:
    with pytest.raises(CrashFailure, match=r"crash='wait/1:due-while-down'"):
        await crash_everywhere(sleeps_and_counts("17"), setup=fresh, kinds=["due-while-down"])


# -- time ----------------------------------------------------------------------------------------


@workflow
async def counts_minutes() -> int:
    until, minutes = now() + timedelta(minutes=5), 0
    while now() < until:
        await note("still waiting")
        await asyncio.sleep(60)
        minutes += 1
    return minutes


async def test_a_count_that_depends_on_how_the_clock_goes_is_found() -> None:
    with pytest.raises(CrashFailure, match="clock-forward"):
        await crash_everywhere(counts_minutes(), kinds=["clock-forward"])


@step
async def needs_two_attempts() -> None:
    if step_info().attempt == 1:
        raise OSError("the line broke")


@workflow
async def says_when() -> str:
    await needs_two_attempts()
    return now().isoformat()


async def test_a_result_that_depends_on_the_time_is_not_compared() -> None:
    done = await crash_everywhere(says_when())

    assert not done.compared


# -- undoing -------------------------------------------------------------------------------------


@step
async def give_back(order: str) -> None:
    payments.remove(order)  # fails where nothing was paid, and where it was given back before


@step(retry=Retry(attempts=2))
async def give_back_if_paid(order: str) -> None:
    if order in payments:
        payments.remove(order)


@step
async def refuse() -> None:
    raise PermissionError("no")


def gives_back(undo: Any, *, name: str) -> Any:
    @workflow(name=name)
    async def buys(order: str) -> None:
        compensate(undo(order))
        await pay_once(order)
        await approval.receive()
        raise PermissionError("no")

    return buys


@step
async def pay_once(order: str) -> None:
    if order not in payments:
        payments.append(order)


def nothing_is_paid(crashed: Crashed[Any]) -> None:
    assert payments == []


async def test_an_undo_that_does_not_bear_to_be_done_twice_is_found() -> None:
    careless, careful = gives_back(give_back, name="careless"), gives_back(give_back_if_paid, name="careful")
    events = [Send(approval, "ann")]

    await crash_everywhere(careful("17"), events=events, setup=fresh, check=nothing_is_paid)

    with pytest.raises(CrashFailure, match="give_back/1:after-effect"):
        await crash_everywhere(careless("17"), events=events, setup=fresh, check=nothing_is_paid)
