"""Several workers on one store: each run is in one hand, and no hand's loss loses a run."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from perdure import Client, Engine, Retry, RunParked, Signal, State, Update, step, step_info, workflow
from perdure.runtime.claims import CAPACITY, Claims
from tests.runtime.waiting import until

answer = Signal[str]("answer")
stage = State[str]("stage")
double = Update[int, int]("double")
worked: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def forget() -> None:
    worked.clear()


@step
async def works(what: str) -> str:
    worked[what] += 1
    return what


@workflow
async def waits_for_answer(name: str) -> str:
    await works(f"{name} before")
    stage.set("asked")
    said = await answer.receive()
    await works(f"{name} after")
    return said


@workflow
async def doubles_when_asked() -> str:
    @double.handle
    async def handle(value: int) -> int:
        return 2 * value

    return await answer.receive()


@workflow
async def waits_for_child(name: str) -> str:
    return await waits_for_answer(name)


def names(count: int) -> list[str]:
    return [f"run {number}" for number in range(count)]


def in_hand(engine: Engine) -> set[int]:
    driver = engine._driver
    assert driver is not None
    return set(driver.residents)


def claims_of(engine: Engine) -> Claims:
    assert engine._claims is not None
    return engine._claims


async def test_what_clients_start_is_spread_over_the_workers_and_runs_once(url: str) -> None:
    one, two = Engine(url, workflows=[waits_for_answer]), Engine(url, workflows=[waits_for_answer])
    async with one, two, Client(url) as client:
        for engine in (one, two):
            claims_of(engine).stop()  # till all are there: who looks first has its share of them, and no more
        runs = [await client.start(waits_for_answer(name), id=name) for name in names(40)]
        for engine in (one, two):
            await until(lambda engine=engine: not engine._driver.claiming)
            claims = claims_of(engine)
            claims._capacity = CAPACITY
            claims.look()
            claims.stop()  # it has its share, and no more, however long the other takes to look
            await until(lambda engine=engine: in_hand(engine))
        for engine in (one, two):
            claims = claims_of(engine)
            claims._capacity = CAPACITY
            claims.look()
        await until(lambda: len(in_hand(one)) + len(in_hand(two)) == 40)
        apart = in_hand(one).isdisjoint(in_hand(two))
        fewer = min(len(in_hand(one)), len(in_hand(two)))
        for run in runs:
            await run.send(answer, run.id)

        assert [await run.result() for run in runs] == [run.id for run in runs]
    assert apart
    assert fewer > 0
    assert set(worked.values()) == {1}


async def test_a_run_may_be_asked_about_and_told_through_any_worker(url: str) -> None:
    async with Engine(url) as one, Engine(url) as two:
        run = await one.start(waits_for_answer("it"), id="it")
        await until(lambda: in_hand(one))
        elsewhere = await two.get("it", waits_for_answer)
        result = asyncio.create_task(elsewhere.result())
        published = await anext(elsewhere.watch(stage))
        await elsewhere.send(answer, "from the other")

        assert await result == await run.result() == "from the other"
        assert published == "asked"
        assert not in_hand(two)
    assert worked == {"it before": 1, "it after": 1}


async def test_an_update_through_another_worker_is_answered(url: str) -> None:
    async with Engine(url) as one, Engine(url) as two:
        await one.start(doubles_when_asked(), id="it")
        await until(lambda: in_hand(one))

        assert await (await two.get("it")).update(double, 21) == 42


async def test_the_runs_of_a_worker_that_closes_go_on_at_the_others(url: str) -> None:
    async with Engine(url) as stays:
        async with Engine(url) as closes:
            runs = [await closes.start(waits_for_answer(name), id=name) for name in names(5)]
            await until(lambda: len(worked) == 5)
        for run in runs:
            await stays.send(run.id, answer, run.id)

        results = [await (await stays.get(run.id, waits_for_answer)).result() for run in runs]

    assert results == names(5)
    assert set(worked.values()) == {1}


async def test_a_step_under_way_when_its_worker_drains_is_waited_for_and_the_next_runs_elsewhere(
    url: str,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    ran_in: list[str] = []

    @step
    async def first() -> str:
        begun.set()
        await go_on.wait()
        ran_in.append("first")
        return "first"

    @step
    async def second() -> str:
        ran_in.append("second")
        return "second"

    @workflow
    async def does_both() -> list[str]:
        return [await first(), await second()]

    leaves = Engine(url, workflows=[does_both])
    await leaves.__aenter__()
    await leaves.start(does_both(), id="it")
    await begun.wait()
    draining = asyncio.create_task(leaves.drain(20))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    ran_while_draining = list(ran_in)
    await leaves.__aexit__(None, None, None)
    async with Engine(url, workflows=[does_both]) as heir:
        result = await (await heir.get("it", does_both)).result()

    assert ran_while_draining == ["first"]
    assert result == ["first", "second"]
    assert ran_in == ["first", "second"]


async def test_a_drain_does_not_wait_longer_than_it_was_told(url: str) -> None:
    @step
    async def never_ends() -> None:
        await asyncio.get_running_loop().create_future()

    @workflow
    async def hangs() -> None:
        await never_ends()

    async with Engine(url, workflows=[hangs]) as engine:
        await engine.start(hangs(), id="it")
        await until(lambda: engine._driver is not None and engine._driver._running_steps())

        await engine.drain(0.05)


async def test_a_worker_takes_up_no_more_than_it_has_room_for(url: str) -> None:
    gate = asyncio.Event()
    attempts: list[str] = []

    @step
    async def waits_at_the_gate() -> None:
        attempts.append(step_info().run_id)
        await gate.wait()

    @workflow
    async def is_busy() -> None:
        await waits_at_the_gate()

    async with Client(url) as client, Engine(url, workflows=[is_busy], capacity=3) as engine:
        runs = [await client.start(is_busy(), id=f"run {number}") for number in range(10)]
        await until(lambda: len(attempts) == 3)
        for _ in range(20):
            await asyncio.sleep(0.005)
        at_once = len(in_hand(engine))
        gate.set()
        for run in runs:
            await run.result()

    assert at_once == 3
    assert len(attempts) == 10


async def test_a_child_whose_parent_is_in_other_hands_tells_it_of_its_end(url: str) -> None:
    async with Engine(url) as heir:
        async with Engine(url) as first:
            await first.start(waits_for_child("child"), id="parent")
            await until(lambda: worked["child before"])
        async with Client(url) as client:
            child_id = next(run.id for run in (await client.list()).runs if run.id != "parent")
            await client.send(child_id, answer, "done")

        assert await (await heir.get("parent", waits_for_child)).result() == "done"
    assert worked == {"child before": 1, "child after": 1}


async def test_a_sleeper_whose_worker_has_closed_is_woken_in_time_by_another(url: str) -> None:
    @workflow
    async def sleeps_a_little() -> str:
        await asyncio.sleep(0.3)
        return "woken"

    async with Engine(url, workflows=[sleeps_a_little]) as closes:
        await closes.start(sleeps_a_little(), id="it")
    async with Engine(url, workflows=[sleeps_a_little]) as stays:
        assert await (await stays.get("it", sleeps_a_little)).result() == "woken"


async def test_a_worker_leaves_alone_what_it_does_not_know(url: str) -> None:
    async with Engine(url, workflows=[doubles_when_asked]) as stranger, Client(url) as client:
        run = await client.start(waits_for_answer("it"), id="it")
        await until(lambda: stranger.unknown_workflows)
        async with Engine(url, workflows=[waits_for_answer]) as knows:
            await until(lambda: in_hand(knows))
            await run.send(answer, "known")
            result = await run.result()

    assert result == "known"


async def test_a_parked_run_is_resumed_by_any_worker(url: str) -> None:
    broken = True

    @step(retry=Retry(attempts=1))
    async def is_broken_at_first() -> str:
        if broken:
            raise ValueError("broken")
        return "mended"

    @workflow
    async def needs_mending() -> str:
        return await is_broken_at_first()

    async with Engine(url, workflows=[needs_mending]) as one:
        run = await one.start(needs_mending(), id="it")
        with pytest.raises(RunParked):
            await run.result()
    broken = False
    async with Engine(url, workflows=[needs_mending]) as two:
        again = await two.get("it", needs_mending)
        await again.resume()

        assert await again.result() == "mended"
