"""A worker on Temporal: killed, stopped, and started by the command line; and where its steps run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import current_thread

import pytest

from perdure import Client, Engine, HeartbeatTimedOut, Retry, RunParked, Signal, step, step_info, workflow
from tests.temporal.conftest import replay_all
from tests.temporal.program import elsewhere, three

go = Signal[None]("go")
told: asyncio.Queue[str]
"""What steps say to the test."""
enough: asyncio.Event
"""That a step need not hold on any longer."""
mended: asyncio.Event
"""That what was down is up."""


@pytest.fixture(autouse=True)
async def empty_queue() -> None:
    global told, enough, mended
    told, enough, mended = asyncio.Queue(), asyncio.Event(), asyncio.Event()


@asynccontextmanager
async def spawned_worker(url: str, checkout: Path) -> AsyncGenerator[Process, None]:
    """`perdure worker` in a process of its own; it is ended with the block."""
    paths = os.pathsep.join([str(checkout), *sys.path])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", "worker", "--store", url, "tests.temporal.program"),
        stderr=PIPE,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_worker_that_is_killed_in_a_step_is_replaced_and_the_step_has_the_same_key(
    temporal_url: str, checkout: Path, tmp_path: Path
) -> None:
    async with Client(temporal_url) as client:
        run = await client.start(three(str(tmp_path)))
        async with spawned_worker(temporal_url, checkout) as worker:
            killed = await worker.wait()
        async with spawned_worker(temporal_url, checkout):
            result = await run.result()

    notes = [(tmp_path / f"{number}.txt").read_text().splitlines() for number in (1, 2, 3)]
    assert killed == -signal.SIGKILL
    assert result == ["1 by attempt 1", "2 by attempt 1", "3 by attempt 1"]
    assert [len(lines) for lines in notes] == [1, 2, 1]
    assert len({*notes[1]}) == 1
    assert await replay_all(temporal_url, [three]) == 1


@pytest.mark.slow
async def test_a_step_that_kills_its_worker_again_and_again_parks_its_run(
    temporal_url: str, checkout: Path, tmp_path: Path
) -> None:
    async with Client(temporal_url) as client:
        run = await client.start(three(str(tmp_path), 100))
        for _ in range(5):
            async with spawned_worker(temporal_url, checkout) as worker:
                await worker.wait()
        async with spawned_worker(temporal_url, checkout):
            with pytest.raises(RunParked, match="The worker died 5 times"):
                await run.result()


async def test_the_command_serves_until_it_is_told_to_stop(
    temporal_url: str, checkout: Path, tmp_path: Path
) -> None:
    async with Client(temporal_url) as client, spawned_worker(temporal_url, checkout) as worker:
        assert len(await client.run(three(str(tmp_path), 0))) == 3
        worker.send_signal(signal.SIGTERM)
        _, said = await worker.communicate()

    assert worker.returncode == 0
    assert b"2 workflows (elsewhere, three)." in said
    assert b"Stopped. 0 runs not ended" in said


@step(retry=Retry(attempts=1))
async def holds_on() -> str:
    info = step_info()
    mark = f"{info.attempt} {info.idempotency_key}"
    told.put_nowait(mark)
    await enough.wait()
    return mark


@workflow
async def interrupted() -> str:
    return await holds_on()


async def test_a_step_that_was_under_way_when_its_worker_stopped_runs_again_and_that_does_not_count(
    temporal_url: str,
) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(interrupted())
        first = await told.get()
    for _ in range(6):  # more often than it may kill its worker
        async with Engine(temporal_url):
            assert await told.get() == first
    enough.set()

    async with Engine(temporal_url) as engine:
        again = await engine.get(run.id, interrupted)
        assert await again.result() == first


@step
async def takes_its_time(seconds: float) -> int:
    told.put_nowait("begun")
    await asyncio.sleep(seconds)
    return told.qsize()


@workflow
async def patient(seconds: float) -> int:
    return await takes_its_time(seconds)


async def test_a_step_that_takes_longer_than_a_worker_may_be_silent_is_left_alone(temporal_url: str) -> None:
    quickly = temporal_url.replace("lost_after=2", "lost_after=1")

    async with Engine(quickly) as engine:
        assert await engine.run(patient(1.7)) == 1


@step
async def clings() -> str:
    told.put_nowait("begun")
    if told.qsize() > 1:
        return "let go"
    try:
        await asyncio.Event().wait()
    finally:
        await enough.wait()
    return "never"


@step(retry=Retry(attempts=1))
async def fails_once() -> str:
    if not mended.is_set():
        raise OSError("down")
    return "mended"


@workflow
async def parks_beside_another() -> list[str]:
    return await asyncio.gather(clings(), fails_once())


async def test_a_resumed_run_does_not_wait_for_steps_that_were_told_to_stop(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(parks_beside_another())
        with pytest.raises(RunParked):
            await run.result()
        mended.set()
        await run.resume()

        assert await run.result() == ["let go", "mended"]
        enough.set()


@step(retry=Retry(attempts=3, delay=0.001))
async def counts() -> list[object]:
    info = step_info()
    if info.attempt < 3:
        info.heartbeat({"reached": info.attempt})
        raise OSError("down")
    return [info.last_details, info.attempt, info.workflow, info.step]


@workflow
async def picks_up() -> list[object]:
    return await counts()


async def test_what_a_heartbeat_says_reaches_the_next_attempt(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        assert await engine.run(picks_up()) == [{"reached": 2}, 3, "picks_up", "counts"]


@step(retry=Retry(attempts=1), heartbeat=0.2)
async def falls_silent() -> None:
    step_info().heartbeat()
    await asyncio.Event().wait()


@workflow
async def notices() -> str:
    try:
        await falls_silent()
    except HeartbeatTimedOut as error:
        return str(error).partition(" of run")[0]
    return "not noticed"


async def test_a_step_that_does_not_beat_as_often_as_it_said_has_failed(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        assert await engine.run(notices()) == "Attempt 1 of step 'falls_silent'"


@step
def on_a_thread() -> str:
    return current_thread().name


@step
async def on_the_loop() -> str:
    return current_thread().name


@workflow
async def places() -> list[str]:
    return [await on_a_thread(), await on_the_loop()]


async def test_plain_steps_run_on_threads_and_async_ones_on_the_engines_loop(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        assert await engine.run(places()) == ["perdure-step-1", current_thread().name]


async def test_a_step_may_have_a_process_of_its_own(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        total, process, key = await engine.run(elsewhere())

    assert (total, key) == (3, "0/0/reckon")
    assert process != os.getpid()


@step(worker="gpu")
async def renders() -> str:
    told.put_nowait("rendered")
    return step_info().key


@workflow
async def needs_a_gpu() -> str:
    told.put_nowait("asks")
    return await renders()


async def test_a_step_that_asks_for_a_worker_waits_in_the_queue_of_its_tag(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(needs_a_gpu())
        before = [await told.get(), told.qsize()]
        async with Engine(temporal_url, tags=["gpu"]):
            result = await run.result()

    assert before == ["asks", 0]
    assert result == "0/0/renders"
    assert told.get_nowait() == "rendered"
    assert await replay_all(temporal_url, [needs_a_gpu]) == 1


@step
async def cancelled_one() -> None:
    told.put_nowait("begun")
    try:
        await asyncio.Event().wait()
    finally:
        told.put_nowait("stopped")


@workflow
async def drops_a_step() -> None:
    task = asyncio.create_task(cancelled_one())
    await go.receive()
    task.cancel()
    await go.receive()


async def test_a_step_whose_call_is_cancelled_is_stopped(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(drops_a_step())
        first = await told.get()
        await run.send(go, None)
        second = await told.get()
        await run.send(go, None)
        await run.result()

    assert [first, second] == ["begun", "stopped"]
