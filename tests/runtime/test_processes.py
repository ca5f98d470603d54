"""Steps in processes of their own: what crosses over, who dies, and what that means for others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Engine,
    NotSerialisable,
    StepError,
    StepFailed,
    StepProcessDied,
    StepTimedOut,
    step,
    workflow,
)
from perdure.runtime.processes import Processes
from perdure.testing import Harness

from . import processes as steps
from .processes import Gate, Listener, has_ended


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[None]:
    """Fails a test that hangs."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(
        30, lambda: [task.cancel("nothing came for 30 s") for task in asyncio.all_tasks(loop)]
    )
    yield
    timer.cancel()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(f"sqlite:///{tmp_path}/runs.db") as engine:
        yield engine


@pytest.fixture
async def pair() -> AsyncIterator[Processes]:
    """A pool of two."""
    pool = Processes(2)
    yield pool
    await pool.stop()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@step(on="process")
def defined_in_a_test_module(text: str) -> str:
    return text.upper()


def attempt(pool: Processes, call: Any, listener: Listener | None = None) -> asyncio.Task[Any]:
    """One attempt, under way."""
    definition = call.definition
    data = definition.arguments.encode(call.args, call.kwargs)
    info = (listener or Listener(definition.name)).info()
    return asyncio.get_running_loop().create_task(pool.run(definition, data, info))


async def first_word(listener: Listener) -> bytes:
    """What an attempt says first. It takes a process's time to come."""
    while not listener.said:
        turned = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, turned.set_result, None)
        await turned
    return listener.said[0] or b""


async def test_a_step_runs_in_another_process_and_its_values_keep_their_types(engine: Engine) -> None:
    @workflow
    async def inverts(picture: steps.Picture) -> steps.Picture:
        return await steps.invert(picture)

    inverted = await engine.run(inverts(steps.Picture("bird", b"\x00\xf0")))

    assert isinstance(inverted, steps.Picture)
    assert inverted.pixels == b"\xff\x0f"
    assert inverted.name != f"bird by {os.getpid()}"


async def test_a_step_that_a_test_module_defines_is_found(engine: Engine) -> None:
    @workflow
    async def calls_it() -> str:
        return await defined_in_a_test_module("loud")

    assert await engine.run(calls_it()) == "LOUD"


async def test_an_error_comes_back_as_itself(engine: Engine) -> None:
    @workflow
    async def catches_it() -> str:
        try:
            await steps.look_at("bird")
        except steps.Blurred as error:
            return f"{error.name} {error.radius} {isinstance(error, StepFailed)}"
        return ""

    assert await engine.run(catches_it()) == "bird 7 True"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "ended by itself with exit code 3"),
        ("signal", "was ended by SIGKILL"),
        ("crash", "was ended by SIGSEGV"),
        ("memory", "ran out of memory"),
    ],
)
async def test_a_process_that_dies_fails_its_attempt_and_says_how(
    engine: Engine, how: str, said: str
) -> None:
    @workflow
    async def outlives_it(how: str) -> str:
        try:
            await steps.die(how)
        except StepProcessDied as error:
            return str(error)
        return ""

    told = await engine.run(outlives_it(how), id="run-1")

    assert said in told
    assert "attempt 1 of step 'die' of run 'run-1'" in told


@pytest.mark.parametrize("how", ["leave", "interrupt"])
async def test_a_step_that_raises_what_ends_programs_fails_and_ends_nothing(engine: Engine, how: str) -> None:
    @workflow
    async def outlives_an_exit(how: str) -> str:
        try:
            await steps.die(how)
        except StepFailed as error:
            return str(error)
        return ""

    told = await engine.run(outlives_an_exit(how))

    assert {"leave": "SystemExit", "interrupt": "KeyboardInterrupt"}[how] in told


async def test_a_result_that_is_no_json_is_refused_by_name(engine: Engine) -> None:
    @workflow
    async def is_told() -> str:
        try:
            await steps.return_what_is_no_json()
        except NotSerialisable as error:
            return error.path
        return ""

    assert await engine.run(is_told()) == "result of return_what_is_no_json()"


async def test_the_step_knows_itself_as_on_a_thread(engine: Engine) -> None:
    @workflow
    async def asks_twice(fail_first: bool) -> dict[str, Any]:
        return await steps.tell_about_itself(fail_first)

    at_once = await engine.run(asks_twice(False), id="run-1")
    later = await engine.run(asks_twice(True), id="run-2")

    assert (at_once["run"], at_once["attempt"], at_once["last"]) == ("run-1", 1, None)
    assert (later["run"], later["attempt"], later["last"]) == ("run-2", 2, {"done": 17})
    assert len(at_once["key"]) == 32
    assert at_once["key"] != later["key"]


async def test_a_process_that_dies_takes_no_other_attempt_with_it(pair: Processes, gate: Gate) -> None:
    listener = Listener()
    held = attempt(pair, steps.wait_for(gate.path), listener)
    await first_word(listener)

    with pytest.raises(StepProcessDied):
        await attempt(pair, steps.die("signal"))
    gate.open()

    assert await held == 1


async def test_a_dead_process_is_replaced_and_a_living_one_used_again(pair: Processes) -> None:
    first = await attempt(pair, steps.process_id())
    again = await attempt(pair, steps.process_id())
    with pytest.raises(StepProcessDied):
        await attempt(pair, steps.die("exit"))
    after = await attempt(pair, steps.process_id())

    assert first == again
    assert after != first


async def test_a_process_that_died_while_it_was_idle_fails_no_attempt(pair: Processes) -> None:
    idle = await attempt(pair, steps.process_id())
    os.kill(idle, signal.SIGKILL)
    assert has_ended(idle)

    assert await attempt(pair, steps.process_id()) != idle


async def test_there_are_no_more_processes_than_places(gate: Gate) -> None:
    pool = Processes(1)
    held, waiting = Listener(), Listener()
    begun: list[str] = []
    first = attempt(pool, steps.wait_for(gate.path), held)
    await first_word(held)
    call = steps.process_id()
    second = asyncio.get_running_loop().create_task(
        pool.run(call.definition, b"[]", waiting.info(), lambda: begun.append("second"))
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(second), 0.05)
    begun_early = list(begun)

    gate.open()

    assert await first == 1
    assert str(await second).encode() == held.said[0]
    assert (begun_early, begun) == ([], ["second"])
    await pool.stop()


async def test_a_cancelled_attempt_kills_its_process(pair: Processes, gate: Gate) -> None:
    listener = Listener()
    held = attempt(pair, steps.wait_for(gate.path), listener)
    process = int(await first_word(listener))

    held.cancel()

    with pytest.raises(asyncio.CancelledError):
        await held
    assert has_ended(process)


async def test_an_attempt_out_of_time_kills_its_process(tmp_path: Path, gate: Gate) -> None:
    @workflow
    async def runs_out_of_time(gate: str) -> str:
        try:
            await steps.wait_for_thirty_seconds(gate)
        except StepTimedOut as error:
            return str(error)
        return ""

    async with Harness(tmp_path / "runs.db") as harness:
        run = await harness.engine.start(runs_out_of_time(gate.path))
        await harness.until(lambda: harness.store.attempts(1))
        process = int(harness.store.attempts(1)[0].details or b"0")
        await harness.advance(31)
        told = await run.result()

    assert "longer than its timeout of 30 s" in told
    assert has_ended(process)


async def test_stopping_the_pool_ends_the_busy_and_the_idle(gate: Gate) -> None:
    pool = Processes(2)
    listener = Listener()
    held = attempt(pool, steps.wait_for(gate.path), listener)
    busy = int(await first_word(listener))
    idle = await attempt(pool, steps.process_id())

    await pool.stop()

    assert has_ended(busy, within_s=0)
    assert has_ended(idle, within_s=0)
    with pytest.raises(StepProcessDied):
        await held


async def test_an_interrupt_that_is_raised_in_a_process_does_not_stop_the_worker(pair: Processes) -> None:
    with pytest.raises(StepError, match="KeyboardInterrupt was raised in attempt 1"):
        await attempt(pair, steps.die("interrupt"))
