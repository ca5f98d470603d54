"""Time: sleepers wake in order, also after the clock has jumped and while no worker ran."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import step, workflow
from perdure.core.records import NewRun
from perdure.runtime.reads import Reads
from perdure.runtime.timers import Timers
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from perdure.testing import Harness, ManualClock
from perdure.testing.clock import START_MS

woken: list[int] = []
gate = asyncio.Event()


@pytest.fixture(autouse=True)
def forget() -> None:
    woken.clear()


@workflow
async def sleeps(seconds: int) -> int:
    await asyncio.sleep(seconds)
    woken.append(seconds)
    return seconds


@step
async def passes_the_gate() -> None:
    await gate.wait()


@workflow
async def waits_at_the_gate(seconds: int = 10) -> str:
    await asyncio.gather(passes_the_gate(), asyncio.sleep(seconds))
    return "passed"


async def test_a_thousand_sleepers_wake_in_order_though_few_fit_in_memory(tmp_path: Path) -> None:
    # Each number below 1,000 once, in no order.
    seconds = [number * 379 % 1_000 + 1 for number in range(1_000)]
    async with Harness(tmp_path / "runs.db", residents_kept=10) as harness:
        runs = await asyncio.gather(*(harness.engine.start(sleeps(each)) for each in seconds))
        await harness.settle()
        in_memory = len(harness.engine.driver.residents)
        await harness.advance(1_001)
        results = await asyncio.gather(*(run.result() for run in runs))

    assert in_memory == 10
    assert results == seconds
    assert woken == sorted(seconds)


async def test_sleepers_on_disk_are_read_page_by_page_in_the_order_of_their_time(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("worker", now_ms=START_MS, ttl_ms=10_000)
    starts = [NewRun(f"run-{number}", "sleeps", b"{}", bytes(16), START_MS, "3.11") for number in range(50)]
    store.commit(lease, Batch(starts=starts))
    # In threes at the same time: a page ends in the middle of some.
    wakes = [(START_MS + 1_000 * (number * 7 % 50 // 3 + 1), 0, number + 1) for number in range(50)]
    store.commit(lease, Batch(wakes=wakes))
    called: list[tuple[int, int]] = []
    timers = Timers(clock, Reads(store), lease, lambda number, at_ms: called.append((at_ms, number)), page=7)

    timers.start()
    for _ in range(18):
        await clock.advance(1)
    timers.stop()
    store.close()

    assert called == sorted((at_ms, number) for at_ms, _, number in wakes)


async def test_timers_that_came_due_while_no_worker_ran_fire_at_once_in_order(harness: Harness) -> None:
    for seconds in (300, 100, 200):
        await harness.engine.start(sleeps(seconds), id=f"run-{seconds}")
    await harness.settle()
    await harness.kill()
    harness.clock.jump(1_000)
    await harness.open()

    assert await (await harness.engine.get("run-300", sleeps)).result() == 300
    assert woken == [100, 200, 300]


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
async def test_a_run_started_after_a_jump_of_the_clock_sleeps_as_long_as_it_asked(
    harness: Harness, jump_s: int
) -> None:
    harness.clock.jump(jump_s)

    run = await harness.engine.start(sleeps(60))
    await harness.advance(59)
    before = list(woken)
    await harness.advance(1)

    assert await run.result() == 60
    assert before == []


async def test_a_jump_ahead_wakes_who_sleeps_past_it(harness: Harness) -> None:
    run = await harness.engine.start(sleeps(3_000))
    await harness.settle()

    harness.clock.jump(3_600)

    assert await run.result() == 3_000


async def test_a_jump_back_never_lets_a_runs_time_go_back(harness: Harness) -> None:
    times: list[float] = []

    @workflow
    async def watches_its_time() -> None:
        for _ in range(3):
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(10)

    run = await harness.engine.start(watches_its_time())
    await harness.advance(10)
    harness.clock.jump(-3_600)
    await harness.advance(3_630)
    await run.result()

    assert times == sorted(times)
    assert len(times) == 3


async def test_a_month_passes_at_once_when_time_flies(flying_harness: Harness) -> None:
    @workflow
    async def bills_monthly() -> int:
        for _ in range(12):
            await asyncio.sleep(30 * 86_400)
        return 12

    assert await flying_harness.engine.run(bills_monthly()) == 12
    assert flying_harness.clock.now_ms() - START_MS >= 12 * 30 * 86_400_000


async def test_a_timer_that_is_due_while_suspects_are_brought_back_hides_none_of_them(
    harness: Harness,
) -> None:
    gate.clear()
    for number in range(4):
        await harness.start(waits_at_the_gate(100_000), id=f"suspect {number}")
    for seconds in (0, 10):
        await harness.settle()
        if seconds:
            await harness.start(waits_at_the_gate(seconds), id="due")
            await harness.until(lambda: harness.engine.running_steps == 5)
        await harness.kill()
        harness.clock.jump(seconds)
        await harness.open()
    gate.set()

    await harness.advance(100_000)

    for number in range(4):
        assert await (await harness.get(f"suspect {number}", waits_at_the_gate)).result() == "passed"
