"""Steps that fail: when they are tried again, when not, and what the workflow gets."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise

import pytest

from perdure import (
    ForeignError,
    NonRetryable,
    Retry,
    RunFailed,
    RunParked,
    StepError,
    StepFailed,
    step,
    step_info,
    workflow,
)
from perdure.testing import Harness
from perdure.testing.clock import START_MS


class OutOfStock(Exception):
    """No more pears."""


class Forbidden(NonRetryable):
    """To ask again would not help."""


async def test_a_failing_step_is_tried_again_after_growing_delays(flying_harness: Harness) -> None:
    tried_at_s: list[float] = []

    @step(retry=Retry(attempts=5, delay=1, factor=3, max_delay=10, jitter=False))
    async def fails_four_times() -> int:
        tried_at_s.append((flying_harness.clock.now_ms() - START_MS) / 1000)
        if len(tried_at_s) < 5:
            raise OutOfStock
        return step_info().attempt

    @workflow
    async def tries_patiently() -> int:
        return await fails_four_times()

    assert await flying_harness.engine.run(tries_patiently()) == 5
    assert tried_at_s == [0, 1, 4, 13, 23]


async def test_delays_are_drawn_between_nothing_and_the_full_delay(flying_harness: Harness) -> None:
    tried_at_ms: list[int] = []

    @step(retry=Retry(attempts=30, delay=1, factor=1))
    async def fails_with_jitter() -> None:
        tried_at_ms.append(flying_harness.clock.now_ms())
        if len(tried_at_ms) < 30:
            raise OutOfStock

    @workflow
    async def tries_with_jitter() -> None:
        await fails_with_jitter()

    await flying_harness.engine.run(tries_with_jitter())

    delays_ms = [after - before for before, after in pairwise(tried_at_ms)]
    assert all(0 <= delay <= 1_000 for delay in delays_ms)
    assert len(set(delays_ms)) > 20


async def test_a_step_that_failed_for_good_is_also_the_last_errors_own_type(flying_harness: Harness) -> None:
    @step(retry=Retry(attempts=3))
    async def is_sold_out() -> None:
        raise OutOfStock(f"try {step_info().attempt}")

    @workflow
    async def orders_pears() -> list[str]:
        try:
            await is_sold_out()
        except OutOfStock as error:
            attempts = error.attempts if isinstance(error, StepFailed) else ()
            return [f"{attempt.number} {attempt.error}" for attempt in attempts]
        return []

    told = await flying_harness.engine.run(orders_pears())

    assert told == ["1 OutOfStock: try 1", "2 OutOfStock: try 2", "3 OutOfStock: try 3"]


@pytest.mark.parametrize("error", [Forbidden("no entry"), KeyError("no such key")])
async def test_an_error_that_is_given_up_on_reaches_the_workflow_at_once_as_itself(
    harness: Harness, error: Exception
) -> None:
    calls: list[int] = []

    @step(retry=Retry(give_up_on=(KeyError,)))
    async def gives_up() -> None:
        calls.append(1)
        raise error

    @workflow
    async def hears_of_it() -> str:
        try:
            await gives_up()
        except (Forbidden, KeyError) as caught:
            return f"{type(caught).__name__} {isinstance(caught, StepFailed)}"
        return ""

    assert await harness.engine.run(hears_of_it()) == f"{type(error).__name__} False"
    assert calls == [1]


async def test_a_workflow_that_lets_a_non_retryable_error_pass_fails(harness: Harness) -> None:
    @step
    async def is_forbidden() -> None:
        raise Forbidden("no entry")

    @workflow
    async def lets_it_pass() -> None:
        await is_forbidden()

    with pytest.raises(RunFailed, match="no entry") as caught:
        await harness.engine.run(lets_it_pass())

    assert not isinstance(caught.value, RunParked)
    assert type(caught.value.__cause__) is Forbidden


async def test_attempts_are_counted_on_after_a_crash(harness: Harness) -> None:
    seen: list[int] = []

    @step(retry=Retry(attempts=3, delay=10, jitter=False))
    async def fails_always() -> None:
        seen.append(step_info().attempt)
        raise OutOfStock(f"try {len(seen)}")

    @workflow
    async def tells_attempts() -> list[str]:
        try:
            await fails_always()
        except StepFailed as error:
            return [f"{attempt.number} {attempt.error}" for attempt in error.attempts]
        return []

    await harness.engine.start(tells_attempts(), id="one")
    await harness.settle()
    await harness.crash()
    await harness.settle()
    await harness.crash()
    run = await harness.engine.get("one", tells_attempts)

    assert await run.result() == ["1 OutOfStock: try 1", "2 OutOfStock: try 2", "3 OutOfStock: try 3"]
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("on_thread", [False, True])
async def test_a_step_that_calls_exit_has_only_failed(harness: Harness, on_thread: bool) -> None:
    def exits() -> None:
        sys.exit("enough")

    async def exits_on_loop() -> None:
        sys.exit("enough")

    leave = step(retry=Retry(attempts=1), name="leave")(exits if on_thread else exits_on_loop)

    @workflow
    async def survives_an_exit() -> str:
        try:
            await leave()
        except StepFailed as error:
            return f"{isinstance(error, SystemExit)} {error.attempts[0].error}"
        return "nothing happened"

    assert await harness.engine.run(survives_an_exit()) in (
        "True SystemExit: enough",
        "False SystemExit: enough",
    )


async def test_a_step_that_raises_a_base_exception_of_its_own_has_only_failed(harness: Harness) -> None:
    class Panic(BaseException):
        pass

    @step(retry=Retry(attempts=1))
    async def panics() -> None:
        raise Panic("help")

    @workflow
    async def keeps_calm() -> str:
        try:
            await panics()
        except StepFailed as error:
            return error.attempts[0].error.rpartition(".")[2]
        return ""

    assert await harness.engine.run(keeps_calm()) == "Panic: help"


async def test_cancelled_error_raised_inside_a_step_is_a_failure_and_no_cancellation(
    harness: Harness,
) -> None:
    @step
    async def raises_cancelled() -> None:
        raise asyncio.CancelledError

    @workflow
    async def is_not_cancelled() -> str:
        try:
            await raises_cancelled()
        except StepError as error:
            return str(error)
        return ""

    assert "cancelled from inside" in await harness.engine.run(is_not_cancelled())


async def test_an_error_crosses_the_journal_with_cause_notes_and_traceback(harness: Harness) -> None:
    @step(retry=Retry(attempts=1))
    async def fails_in_detail() -> None:
        try:
            raise KeyError("pear")
        except KeyError as error:
            shortage = OutOfStock("no pears")
            shortage.add_note("the shelf is empty")
            raise shortage from error

    @workflow
    async def reads_the_detail() -> None:
        try:
            await fails_in_detail()
        except OutOfStock as error:
            raise RuntimeError("the order failed") from error

    run = await harness.engine.start(reads_the_detail(), id="one")
    with pytest.raises(RunFailed):
        await run.result()
    await harness.restart()

    with pytest.raises(RunFailed) as caught:
        await (await harness.engine.get("one")).result()
    error = caught.value.__cause__
    assert type(error) is RuntimeError
    assert isinstance(error.__cause__, OutOfStock)
    assert isinstance(error.__cause__, StepFailed)
    raised = error.__cause__.__cause__
    assert type(raised) is OutOfStock
    assert "the shelf is empty" in raised.__notes__
    assert "raise shortage from error" in "\n".join(raised.__notes__)
    assert isinstance(raised.__cause__, KeyError)


async def test_an_error_of_a_type_that_is_not_known_here_is_still_told_by_name(harness: Harness) -> None:
    @step
    async def fails_strangely() -> None:
        class Strange(NonRetryable):
            pass

        raise Strange("from elsewhere")

    @workflow
    async def meets_a_stranger() -> str:
        try:
            await fails_strangely()
        except ForeignError as error:
            return f"{error.type_name.rpartition('.')[2]}: {error.message}"
        return ""

    assert await harness.engine.run(meets_a_stranger()) == "Strange: from elsewhere"
