"""Steps that ask for a worker with a tag: they run there, wherever their run is, and are recorded once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Client,
    Engine,
    NonRetryable,
    Retry,
    RunCancelled,
    RunParked,
    Signal,
    StepFailed,
    step,
    step_info,
    workflow,
)
from tests.runtime.waiting import until

ran: Counter[str] = Counter()
keys: list[str] = []
begun, go_on = asyncio.Event(), asyncio.Event()
was_cancelled: list[str] = []
answer = Signal[str]("answer")


@pytest.fixture(autouse=True)
def forget() -> None:
    global begun, go_on
    begun, go_on = asyncio.Event(), asyncio.Event()
    for gone in (ran, keys, was_cancelled):
        gone.clear()


def jobs_at(engine: Engine) -> int:
    driver = engine._driver
    assert driver is not None
    return len(driver.jobs)


@step(worker="gpu")
async def render(frame: int) -> str:
    ran["render"] += 1
    info = step_info()
    keys.append(info.idempotency_key)
    return f"{frame} of {info.run_id} ({info.workflow}, attempt {info.attempt})"


@step(worker="gpu")
def render_large(frame: int) -> str:
    ran["render_large"] += 1
    return str(frame) * 600_000


@step(worker="gpu", on="process")
def render_apart(frame: int) -> int:
    return os.getpid()


@step(worker="gpu", retry=Retry(attempts=3, delay=0.01))
async def render_badly(frame: int) -> str:
    info = step_info()
    keys.append(info.idempotency_key)
    if info.attempt < 3:
        info.heartbeat({"attempt": info.attempt})
        raise RuntimeError(f"attempt {info.attempt}")
    return f"{info.attempt}, after {info.last_details}"


class BadFrame(NonRetryable):
    """A frame that cannot be rendered."""


@step(worker="gpu")
async def refuse(frame: int) -> str:
    raise BadFrame(f"frame {frame}")


@step(worker="gpu")
async def render_slowly(frame: int) -> str:
    ran["slow"] += 1
    keys.append(step_info().idempotency_key)
    begun.set()
    try:
        await go_on.wait()
    except asyncio.CancelledError:
        was_cancelled.append("slow")
        raise
    return "slowly"


@step(worker="gpu", timeout=0.05, retry=Retry(attempts=1))
async def render_too_slowly(frame: int) -> str:
    await asyncio.sleep(30)
    return "never"


@workflow
async def film(frame: int) -> str:
    return await render(frame)


@workflow
async def large_film(frame: int) -> int:
    return len(await render_large(frame))


@workflow
async def film_apart(frame: int) -> int:
    return await render_apart(frame)


@workflow
async def bad_film(frame: int) -> str:
    return await render_badly(frame)


@workflow
async def refused_film(frame: int) -> str:
    try:
        return await refuse(frame)
    except BadFrame as error:
        return f"refused: {error}"


@workflow
async def slow_film(frame: int) -> str:
    return await render_slowly(frame)


@workflow
async def late_film(frame: int) -> str:
    try:
        return await render_too_slowly(frame)
    except StepFailed as error:
        return f"{len(error.attempts)}: {error}"


@workflow
async def impatient_film(frame: int) -> str:
    rendering = asyncio.ensure_future(render_slowly(frame))
    await answer.receive()
    rendering.cancel()
    return await answer.receive()


@workflow
async def long_film(frames: int) -> int:
    return len(set(await asyncio.gather(*(render(frame) for frame in range(frames)))))


# -- where a step runs -----------------------------------------------------------------------------


async def test_a_step_runs_at_the_worker_with_its_tag_and_is_recorded_in_its_run(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        run = await plain.start(film(7), id="film")

        assert await run.result() == "7 of film (film, attempt 1)"
    assert ran["render"] == 1
    assert len(set(keys)) == 1


async def test_a_step_whose_tag_its_own_worker_has_is_not_queued(url: str) -> None:
    async with Engine(url, tags=["gpu"]) as engine:
        batches: list[Any] = []
        assert engine._driver is not None
        store: Any = engine._driver.store
        commit = store.commit
        store.commit = lambda lease, batch: batches.append(batch.jobs) or commit(lease, batch)

        assert await engine.run(film(7), id="film") == "7 of film (film, attempt 1)"
    assert batches
    assert not any(batches)


async def test_without_such_a_worker_the_run_waits_and_says_for_what(url: str) -> None:
    async with Engine(url) as plain:
        run = await plain.start(film(7), id="film")
        await until(lambda: plain._store is not None and plain._store.waiting_jobs())

        (waits,) = (await plain.timeline("film")).under_way
        health = await plain.health()
        async with Engine(url, tags=["gpu"]):
            await run.result()

    assert (waits.name, waits.tag, waits.worker) == ("render", "gpu", None)
    assert health.unserved == {"gpu": 1}
    assert health.wrongs == []


async def test_a_run_that_only_waits_for_such_a_step_may_leave_memory(url: str) -> None:
    async with Engine(url, residents_kept=1) as plain:
        runs = [await plain.start(film(frame), id=f"film {frame}") for frame in range(5)]
        await until(lambda: plain._driver is not None and len(plain._driver.residents) <= 1)
        async with Engine(url, workflows=[], tags=["gpu"]):
            results = [await run.result() for run in runs]

    assert results == [f"{frame} of film {frame} (film, attempt 1)" for frame in range(5)]
    assert ran["render"] == 5


async def test_a_large_result_and_a_step_in_a_process_of_its_own_come_back(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        length = await plain.run(large_film(7))
        process = await plain.run(film_apart(7))

    assert length == 600_000
    assert process != os.getpid()


async def test_many_jobs_are_shared_by_the_workers_and_each_is_run_once(url: str) -> None:
    one, two = (Engine(url, workflows=[], tags=["gpu"], capacity=5) for _ in range(2))
    async with Engine(url) as plain, one, two:
        assert await plain.run(long_film(60)) == 60
    assert ran["render"] == 60
    assert len(set(keys)) == 60


# -- attempts --------------------------------------------------------------------------------------


async def test_attempts_are_retried_there_and_know_what_was_said_before(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        run = await plain.start(bad_film(1), id="film")

        assert await run.result() == "3, after {'attempt': 2}"
        entries = (await plain.timeline("film")).entries
    assert len(set(keys)) == 1
    assert [(each.kind, each.attempt) for each in entries] == [
        ("attempt failed", 1), ("attempt failed", 2), ("step", 3),
    ]  # fmt: skip


async def test_a_failure_comes_back_as_what_it_is(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        assert await plain.run(refused_film(3)) == "refused: frame 3"


async def test_a_timeout_holds_there(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        assert "took longer than its timeout of 0.05 s" in await plain.run(late_film(3))


async def test_a_step_that_parks_its_run_is_asked_for_anew_when_that_is_resumed(url: str) -> None:
    faults = [RuntimeError("once")]

    @step(worker="gpu", retry=Retry(attempts=1))
    async def fails_once() -> str:
        if faults:
            raise faults.pop()
        return "well"

    @workflow
    async def parks() -> str:
        return await fails_once()

    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        run = await plain.start(parks(), id="it")
        with pytest.raises(RunParked, match="once"):
            await run.result()

        await run.resume()

        assert await run.result() == "well"


async def test_code_that_calls_with_other_arguments_gets_what_comes_of_those(url: str) -> None:
    frames = [1]

    @workflow
    async def changes() -> str:
        return await render(frames[0])

    async with Engine(url, workflows=[], tags=["gpu"]):
        async with Engine(url, workflows=[changes]) as old:
            await old.start(changes(), id="it")
        await until(lambda: ran["render"] == 1)  # and what it came to waits
        frames[0] = 2
        async with Engine(url, workflows=[changes]) as new:
            result = await (await new.get("it", changes)).result()

    assert result.startswith("2 of it")
    assert ran["render"] == 2


# -- workers that go -------------------------------------------------------------------------------


async def test_a_step_whose_worker_drains_goes_to_another_with_the_same_key(url: str) -> None:
    async with Engine(url) as plain:
        async with Engine(url, workflows=[], tags=["gpu"]) as first:
            run = await plain.start(slow_film(1), id="film")
            await begun.wait()
            at_first = jobs_at(first)
            await first.drain(0.01)
        go_on.set()
        async with Engine(url, workflows=[], tags=["gpu"]):
            result = await run.result()

    assert at_first == 1
    assert result == "slowly"
    assert ran["slow"] == 2
    assert len(set(keys)) == 1


async def test_the_next_worker_goes_on_counting_attempts(url: str) -> None:
    @step(worker="gpu", retry=Retry(delay=3600, jitter=False))
    async def fails_at_first() -> str:
        info = step_info()
        if info.attempt == 1:
            info.heartbeat("half")
            raise RuntimeError("once")
        return f"{info.attempt}, after {info.last_details}"

    @workflow
    async def tried_twice() -> str:
        return await fails_at_first()

    async with Engine(url) as plain:
        async with Engine(url, workflows=[], tags=["gpu"]):
            run = await plain.start(tried_twice(), id="it")
            await until(lambda: plain._store is not None and len(plain._store.attempts(1)) == 1)
            await until(lambda: plain._store is not None and plain._store.attempts(1)[0].failure)
        async with Engine(url, workflows=[], tags=["gpu"]):
            result = await run.result()

    assert result == "2, after half"


async def test_a_drain_waits_for_a_step_that_it_runs_for_another(url: str) -> None:
    async with Engine(url) as plain:
        async with Engine(url, workflows=[], tags=["gpu"]) as first:
            run = await plain.start(slow_film(1), id="film")
            await begun.wait()
            asyncio.get_running_loop().call_later(0.05, go_on.set)
            await first.drain(10)

        assert await run.result() == "slowly"
    assert ran["slow"] == 1


async def test_the_outcome_waits_for_a_run_whose_worker_has_gone(url: str) -> None:
    async with Engine(url, workflows=[], tags=["gpu"]) as tagged:
        async with Engine(url) as plain:
            await plain.start(slow_film(1), id="film")
            await begun.wait()
        go_on.set()
        await until(lambda: not jobs_at(tagged))
        async with Engine(url) as plain:
            result = await (await plain.get("film", slow_film)).result()

    assert result == "slowly"
    assert ran["slow"] == 1


async def test_a_run_that_changes_hands_does_not_queue_its_step_twice(url: str) -> None:
    async with Engine(url, workflows=[], tags=["gpu"]):
        async with Engine(url) as plain:
            await plain.start(slow_film(1), id="film")
            await begun.wait()
        async with Engine(url, tags=["gpu"]) as plain:  # which could run it itself
            run = await plain.get("film", slow_film)
            await run.send(answer, "only to bring it into memory")
            await until(lambda: plain._driver is not None and plain._driver.residents)
            go_on.set()
            result = await run.result()

    assert result == "slowly"
    assert ran["slow"] == 1


async def test_a_worker_that_lost_its_lease_sends_nothing_and_another_runs_the_step(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]) as zombie:
        run = await plain.start(slow_film(1), id="film")
        await begun.wait()
        assert zombie._store is not None
        assert zombie._driver is not None
        zombie._store.release(zombie._driver.lease)  # as if another had found it over
        async with Engine(url, workflows=[], tags=["gpu"]):
            await until(lambda: ran["slow"] == 2)
            go_on.set()
            result = await run.result()
        records = plain._store.records(1) if plain._store is not None else []

    assert result == "slowly"
    assert len(records) == 1
    assert len(set(keys)) == 1


# -- runs that go ----------------------------------------------------------------------------------


async def test_a_cancelled_run_stops_its_step_at_the_other_worker(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]) as tagged:
        run = await plain.start(slow_film(1), id="film")
        await begun.wait()
        await run.cancel("enough")

        with pytest.raises(RunCancelled):
            await run.result()
        await until(lambda: was_cancelled)
        await until(lambda: not jobs_at(tagged))
        left = plain._store.jobs(1) if plain._store is not None else None
    assert left == []


async def test_a_terminated_run_that_is_in_no_memory_stops_its_step_too(url: str) -> None:
    async with Engine(url, workflows=[], tags=["gpu"]) as tagged:
        async with Engine(url) as plain:
            await plain.start(slow_film(1), id="film")
            await begun.wait()
        async with Client(url) as client:
            await client.terminate("film", "enough")
            async with Engine(url):
                await until(lambda: was_cancelled)
        await until(lambda: not jobs_at(tagged))
        left = tagged._store.jobs(1) if tagged._store is not None else None
    assert left == []


async def test_a_step_that_nobody_waits_for_any_more_is_stopped(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"]):
        run = await plain.start(impatient_film(1), id="film")
        await begun.wait()
        await run.send(answer, "enough")
        await until(lambda: was_cancelled)
        await run.send(answer, "no picture")

        assert await run.result() == "no picture"


# -- how much a worker takes, and what it costs ----------------------------------------------------


async def test_a_worker_takes_no_more_than_its_capacity(url: str) -> None:
    async with Engine(url) as plain, Engine(url, workflows=[], tags=["gpu"], capacity=1) as tagged:
        runs = [await plain.start(slow_film(number), id=f"film {number}") for number in range(3)]
        await begun.wait()
        await until(lambda: plain._store is not None and plain._store.waiting_jobs() == {"gpu": 2})
        assert tagged._lookout is not None
        tagged._lookout._look()
        await until(lambda: tagged._driver is not None and not tagged._driver.claiming_jobs)
        most = jobs_at(tagged)
        go_on.set()
        for run in runs:
            await run.result()

    assert most == 1
    assert ran["slow"] == 3


async def test_a_worker_without_a_tag_never_looks_for_jobs(url: str) -> None:
    asked: list[str] = []
    async with Engine(url) as plain:
        assert plain._driver is not None
        store: Any = plain._driver.store
        store.claim_jobs = lambda *_, **__: asked.append("claim")
        store.held_jobs = lambda *_: asked.append("held")
        await plain.start(film(7), id="film")
        await until(lambda: plain._store is not None and plain._store.waiting_jobs())
        assert plain._jobs is not None
        assert plain._lookout is not None
        plain._lookout._look()
        await asyncio.sleep(0)
        await plain._driver.committer.wait_between(lambda _: None)

    assert asked == []
