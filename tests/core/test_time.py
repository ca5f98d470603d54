"""Time in a run: deadlines in order, whole milliseconds, never back."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import step

from .harness import CREATED_AT_MS, Kind, Status, Trial, crash_everywhere, live

START = CREATED_AT_MS / 1000


@step
def same(value: Any) -> Any:
    return value


def now() -> float:
    return round(asyncio.get_running_loop().time() - START, 3)


def test_timers_fire_in_the_order_of_their_deadlines_with_code_between() -> None:
    async def body() -> list[Any]:
        seen: list[Any] = []

        async def sleeper(delay: float) -> None:
            await asyncio.sleep(delay)
            seen.append(delay)
            await asyncio.sleep(0)
            seen.append(-delay)

        await asyncio.gather(*(sleeper(delay) for delay in (3, 1, 2)))
        return seen

    trial = Trial().begin(body)
    trial.tick(late_ms=60_000)

    assert trial.result == [1, -1, 2, -2, 3, -3]
    assert [record.kind for record in trial.journal] == [Kind.TICK]


def test_a_worker_that_was_down_past_several_deadlines_wakes_once_and_later() -> None:
    async def body() -> list[float]:
        seen = []
        for _ in range(3):
            await asyncio.sleep(10)
            seen.append(now())
        return seen

    trial = Trial().begin(body)
    trial.tick(late_ms=90_000)
    trial.finish()

    assert trial.result == [100, 110, 120]
    crash_everywhere(body, trial)


def test_a_timeout_that_did_not_fire_leaves_nothing() -> None:
    async def body() -> None:
        async with asyncio.timeout(86_400):
            await same(1)
        await asyncio.wait_for(same(2), 86_400)
        await same(3)

    trial = Trial().begin(body)
    trial.answer(next(iter(trial.open)))
    trial.answer(next(iter(trial.open)))

    assert trial.execution.next_deadline_ms() is None
    assert {record.kind for record in trial.journal} == {Kind.STEP}


def test_the_loop_does_not_keep_ten_thousand_timeouts_that_did_not_fire() -> None:
    async def body() -> None:
        for turn in range(2000):
            async with asyncio.timeout(86_400):
                await same(turn)

    trial = Trial().begin(body)
    for turn in range(1990):
        trial.answer(f"0/{turn}/same")

    assert len(trial.execution.loop._timers) < 200


def test_a_timer_and_a_result_in_one_record_fire_the_timer_first() -> None:
    async def body() -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                return await same("in time")
        return "too late"

    trial = Trial().begin(body)
    trial.now_ms += 1_000
    trial.answer("0/0/same")

    assert trial.result == "too late"
    crash_everywhere(body, trial)


@pytest.mark.parametrize("delay", [-1, -0.0, -math.inf, -1e300])
def test_a_delay_that_is_over_fires_at_once(delay: float) -> None:
    async def body() -> float:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(delay, event.set)
        await event.wait()
        await asyncio.sleep(delay)
        return now()

    assert live(body).result == 0


@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e15])
def test_a_sleep_beyond_the_calendar_is_for_ever(delay: float) -> None:
    async def body() -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(delay)
        await asyncio.sleep(delay)

    trial = live(body)

    assert trial.status is Status.RUNNING
    assert trial.now_ms == CREATED_AT_MS + 5_000
    assert trial.execution.next_deadline_ms() is None


def test_a_delay_that_is_no_number_is_an_error() -> None:
    async def body() -> None:
        await asyncio.sleep(math.nan)

    assert isinstance(live(body).error, ValueError)


def test_code_that_polls_with_the_tiniest_sleeps_lets_go_of_the_thread() -> None:
    async def body() -> Any:
        task = asyncio.create_task(same("done"))
        while not task.done():  # noqa: ASYNC110 (it is what is tested)
            await asyncio.sleep(1e-9)
        return await task

    trial = Trial().begin(body)
    for _ in range(3):
        trial.tick()
    trial.answer("0.1/0/same")
    trial.tick()

    assert trial.result == "done"


def test_the_loops_time_does_not_go_back() -> None:
    async def body() -> list[float]:
        seen = [now()]
        await same(1)
        seen.append(now())
        await same(2)
        return [*seen, now()]

    trial = Trial().begin(body)
    trial.now_ms = CREATED_AT_MS + 5_000
    trial.answer("0/0/same")
    trial.now_ms = CREATED_AT_MS + 1_000
    trial.answer("0/1/same")

    assert trial.result == [0, 5, 5]


@given(
    delays=st.lists(st.floats(1e-9, 1e10, allow_nan=False), min_size=1, max_size=4),
    late_ms=st.integers(0, 3),
)
def test_a_tick_at_the_next_deadline_always_fires_it(delays: list[float], late_ms: int) -> None:
    async def body() -> list[float]:
        late = []
        for delay in delays:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(delay)
            late.append(asyncio.get_running_loop().time() - before - delay)
        return late

    trial = Trial().begin(body)
    for _ in delays:
        trial.tick(late_ms=late_ms)

    assert trial.status is Status.COMPLETED
    # Never more than a microsecond early (or what a float can hold), and never a whole millisecond late.
    assert all(-2e-5 < late < 0.001 + late_ms / 1000 + 2e-5 for late in trial.result)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 1.1, 2.2]), min_size=2, max_size=6))
def test_sums_of_floats_do_not_cost_a_millisecond(delays: list[float]) -> None:
    async def body() -> None:
        deadline = asyncio.get_running_loop().time()
        for delay in delays:
            deadline += delay
        async with asyncio.timeout_at(deadline):
            await asyncio.sleep(math.inf)

    trial = Trial().begin(body)

    assert trial.execution.next_deadline_ms() == CREATED_AT_MS + round(sum(delays) * 1000)
