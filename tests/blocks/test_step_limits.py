"""Time limits of steps: per attempt, over all attempts, and between heartbeats."""

from __future__ import annotations

import asyncio
import threading

from perdure import HeartbeatTimedOut, Retry, StepFailed, StepTimedOut, step, step_info, workflow
from perdure.testing import Harness

ONCE = Retry(attempts=1)
QUICKLY = Retry(attempts=3, delay=1, factor=1, jitter=False)


async def test_an_attempt_that_takes_too_long_is_stopped_and_tried_again(harness: Harness) -> None:
    attempts: list[int] = []

    @step(timeout=30, retry=QUICKLY)
    async def hangs_at_first() -> int:
        attempts.append(step_info().attempt)
        if len(attempts) < 3:
            await asyncio.Event().wait()
        return len(attempts)

    @workflow
    async def waits_for_the_third() -> int:
        return await hangs_at_first()

    run = await harness.engine.start(waits_for_the_third())
    await harness.advance(30 + 1 + 30 + 1)

    assert await run.result() == 3
    assert attempts == [1, 2, 3]


async def test_a_step_that_always_takes_too_long_fails_as_a_timeout_error(harness: Harness) -> None:
    @step(timeout=30, retry=ONCE)
    async def hangs_for_ever() -> None:
        await asyncio.Event().wait()

    @workflow
    async def sees_a_timeout() -> str:
        try:
            await hangs_for_ever()
        except TimeoutError as error:
            return f"{isinstance(error, StepTimedOut)} {isinstance(error, StepFailed)} {error}"
        return ""

    run = await harness.engine.start(sees_a_timeout())
    await harness.advance(30)

    told = await run.result()
    assert told.startswith("True True")
    assert "longer than its timeout of 30 s" in told


async def test_a_thread_that_takes_too_long_is_left_alone_and_what_it_returns_is_ignored(
    harness: Harness,
) -> None:
    release = threading.Event()
    entered: list[int] = []

    @step(timeout=30, retry=QUICKLY)
    def blocks_its_thread() -> str:
        entered.append(step_info().attempt)
        if len(entered) == 1:
            release.wait(20)
            return "too late"
        return "in time"

    @workflow
    async def takes_the_second() -> str:
        return await blocks_its_thread()

    run = await harness.engine.start(takes_the_second())
    await harness.until(lambda: entered)
    await harness.advance(31)
    result = await run.result()
    release.set()

    assert result == "in time"


async def test_a_deadline_ends_all_attempts(harness: Harness) -> None:
    attempts: list[int] = []

    @step(deadline=10, retry=Retry(attempts=100, delay=4, factor=1, jitter=False))
    async def keeps_failing() -> None:
        attempts.append(step_info().attempt)
        raise ValueError("not yet")

    @workflow
    async def has_ten_seconds() -> int:
        try:
            await keeps_failing()
        except StepFailed as error:
            return len(error.attempts)
        return 0

    run = await harness.engine.start(has_ten_seconds())
    await harness.advance(10)

    assert await run.result() == 3
    assert attempts == [1, 2, 3]


async def test_a_deadline_counts_on_while_no_worker_runs_and_the_step_is_not_tried_past_it(
    harness: Harness,
) -> None:
    attempts: list[int] = []

    @step(deadline=60)
    async def hangs_past_its_deadline() -> None:
        attempts.append(step_info().attempt)
        await asyncio.Event().wait()

    @workflow
    async def has_a_minute() -> str:
        try:
            await hangs_past_its_deadline()
        except StepTimedOut as error:
            return str(error)
        return ""

    await harness.engine.start(has_a_minute(), id="one")
    await harness.until(lambda: attempts)
    await harness.kill()
    harness.clock.jump(61)
    await harness.open()

    told = await (await harness.engine.get("one", has_a_minute)).result()
    assert "deadline of 60 s" in told
    assert attempts == [1]


async def test_an_attempt_without_heartbeats_is_stopped_and_one_with_them_goes_on(harness: Harness) -> None:
    beats: list[int] = []
    go_on = asyncio.Event()

    @step(heartbeat=10, retry=ONCE)
    async def beats_on_request() -> None:
        while True:
            step_info().heartbeat(len(beats))
            beats.append(1)
            go_on.clear()
            await go_on.wait()

    @workflow
    async def listens() -> str:
        try:
            await beats_on_request()
        except HeartbeatTimedOut as error:
            return str(error)
        return ""

    run = await harness.engine.start(listens())
    for expected in range(2, 6):
        await harness.advance(9)
        go_on.set()
        await harness.until(lambda expected=expected: len(beats) == expected)
    await harness.advance(9)
    assert (await run.status()).is_open
    await harness.advance(1)

    assert "did not call heartbeat() for 10 s" in await run.result()


async def test_what_a_heartbeat_said_reaches_the_next_attempt(flying_harness: Harness) -> None:
    seen: list[object] = []

    @step(retry=Retry(delay=1))
    async def copies_files() -> None:
        info = step_info()
        seen.append(info.last_details)
        if len(seen) < 3:
            info.heartbeat({"files": 10 * len(seen)})
            raise OSError("the line broke")

    @workflow
    async def copies() -> None:
        await copies_files()

    await flying_harness.engine.run(copies())

    assert seen == [None, {"files": 10}, {"files": 20}]


async def test_what_a_heartbeat_said_survives_a_crash(harness: Harness) -> None:
    seen: list[object] = []
    hold = asyncio.Event()

    @step
    async def copies_more_files() -> None:
        info = step_info()
        seen.append(info.last_details)
        info.heartbeat({"files": 7})
        await hold.wait()

    @workflow
    async def copies_more() -> None:
        await copies_more_files()

    await harness.engine.start(copies_more())
    await harness.until(lambda: seen)
    await harness.settle()
    await harness.crash()
    await harness.until(lambda: len(seen) == 2)

    assert seen == [None, {"files": 7}]


async def test_what_was_said_before_a_failed_attempt_survives_a_crash_too(harness: Harness) -> None:
    seen: list[object] = []

    @step(retry=Retry(delay=60, jitter=False))
    async def copies_then_fails() -> None:
        info = step_info()
        seen.append(info.last_details)
        if len(seen) == 1:
            info.heartbeat("half")
            raise OSError("the line broke")

    @workflow
    async def copies_again() -> None:
        await copies_then_fails()

    await harness.engine.start(copies_again())
    await harness.settle()
    await harness.crash()
    await harness.until(lambda: len(seen) == 2)

    assert seen == [None, "half"]


async def test_a_heartbeat_from_a_thread_counts(harness: Harness) -> None:
    release = threading.Event()

    @step(heartbeat=10, retry=ONCE)
    def beats_from_its_thread() -> str:
        info = step_info()
        release.wait(20)
        info.heartbeat("alive")
        return "done"

    @workflow
    async def listens_to_a_thread() -> str:
        return await beats_from_its_thread()

    run = await harness.engine.start(listens_to_a_thread())
    await harness.advance(9)
    release.set()

    assert await run.result() == "done"
