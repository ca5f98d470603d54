"""Steps: they run, their result is recorded once, and what they get is theirs alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from perdure import (
    BoundaryError,
    NotSerialisable,
    OutsideRun,
    RunFailed,
    RunParked,
    RunStatus,
    StepInfo,
    step,
    step_info,
    workflow,
)
from perdure.core.records import Kind
from perdure.testing import Harness


async def test_an_async_step_runs_on_the_engines_loop_and_a_plain_one_on_a_thread(harness: Harness) -> None:
    @step
    async def on_loop() -> str:
        return threading.current_thread().name

    @step
    def on_thread() -> str:
        return threading.current_thread().name

    @workflow
    async def places() -> list[str]:
        return [await on_loop(), await on_thread()]

    loop, thread = await harness.engine.run(places())

    assert loop == threading.current_thread().name
    assert thread.startswith("perdure-step")


async def test_a_recorded_step_is_not_run_again(harness: Harness) -> None:
    calls: list[str] = []

    @step
    async def charge_once(order: str) -> str:
        calls.append(order)
        return f"receipt of {order}"

    @workflow
    async def pays_and_waits() -> str:
        receipt = await charge_once("17")
        await asyncio.sleep(60)
        return receipt

    await harness.engine.start(pays_and_waits(), id="order-17")
    await harness.settle()
    await harness.crash()
    await harness.restart()
    await harness.advance(60)

    run = await harness.engine.get("order-17", pays_and_waits)
    assert await run.result() == "receipt of 17"
    assert calls == ["17"]


async def test_an_interrupted_step_runs_again_with_the_same_key_and_attempt(harness: Harness) -> None:
    seen: list[tuple[str, int]] = []
    hold = asyncio.Event()

    @step
    async def interrupted() -> str:
        info = step_info()
        seen.append((info.idempotency_key, info.attempt))
        await hold.wait()
        return "done"

    @workflow
    async def is_interrupted() -> str:
        return await interrupted()

    await harness.engine.start(is_interrupted(), id="one")
    await harness.until(lambda: len(seen) == 1)
    await harness.crash()
    await harness.until(lambda: len(seen) == 2)
    hold.set()

    assert await (await harness.engine.get("one", is_interrupted)).result() == "done"
    assert seen[0] == seen[1]
    assert seen[0][1] == 1
    assert len(seen[0][0]) == 32


async def test_two_calls_and_two_runs_have_different_idempotency_keys(harness: Harness) -> None:
    @step
    async def tell_key() -> str:
        return step_info().idempotency_key

    @workflow
    async def asks_for_two_keys() -> list[str]:
        return [await tell_key(), await tell_key()]

    first = await harness.engine.run(asks_for_two_keys())
    second = await harness.engine.run(asks_for_two_keys())

    assert len({*first, *second}) == 4


async def test_a_step_knows_who_asked_for_it(harness: Harness) -> None:
    known: list[StepInfo] = []

    @step(name="ask-around")
    def look_around() -> None:
        known.append(step_info())

    @workflow(name="the-asker")
    async def asks_around() -> None:
        await look_around()

    await harness.engine.run(asks_around(), id="run-1")

    (info,) = known
    assert (info.run_id, info.workflow, info.step, info.key, info.attempt, info.last_details) == (
        "run-1", "the-asker", "ask-around", "0/0/ask-around", 1, None,
    )  # fmt: skip


async def test_a_step_called_outside_a_run_is_just_called() -> None:
    @step
    async def doubles(number: int) -> int:
        return 2 * number

    @step
    def halves(number: int) -> float:
        return number / 2

    @step
    def wants_info() -> tuple[str, int, int]:
        info = step_info()
        info.heartbeat("half")
        return info.run_id, info.attempt, len(info.idempotency_key)

    assert await doubles(21) == 42
    assert await halves(42) == 21
    assert await wants_info() == ("", 1, 32)
    with pytest.raises(OutsideRun):
        step_info()


async def test_the_workflow_does_not_see_what_a_step_does_to_its_arguments(harness: Harness) -> None:
    @step
    async def empties(items: list[int]) -> int:
        items.clear()
        return len(items)

    @workflow
    async def lends_its_list() -> list[int]:
        items = [1, 2, 3]
        await empties(items)
        return items

    assert await harness.engine.run(lends_its_list()) == [1, 2, 3]


async def test_each_attempt_gets_the_arguments_as_they_were_given(flying_harness: Harness) -> None:
    lengths: list[int] = []

    @step
    async def eats(items: list[int]) -> None:
        lengths.append(len(items))
        items.clear()
        if len(lengths) < 3:
            raise ValueError("again")

    @workflow
    async def feeds() -> None:
        await eats([1, 2, 3])

    await flying_harness.engine.run(feeds())

    assert lengths == [3, 3, 3]


async def test_what_the_workflow_does_to_a_result_does_not_reach_the_step(harness: Harness) -> None:
    kept: list[list[int]] = []

    @step
    async def gives_its_list() -> list[int]:
        kept.append([1])
        return kept[0]

    @workflow
    async def appends() -> list[int]:
        items = await gives_its_list()
        items.append(2)
        return items

    assert await harness.engine.run(appends()) == [1, 2]
    assert kept == [[1]]


async def test_an_argument_that_cannot_be_stored_is_refused_by_its_path_and_nothing_is_written(
    harness: Harness,
) -> None:
    @step
    async def takes_all(items: list[Any]) -> None: ...

    @workflow
    async def passes_a_function() -> str:
        try:
            await takes_all([1, {"callback": print}])
        except NotSerialisable as error:
            return error.path
        return "not refused"

    run = await harness.engine.start(passes_a_function(), id="one")

    assert await run.result() == "takes_all(items)[1]['callback']"
    assert harness.store.records(1) == []


async def test_a_result_that_cannot_be_stored_fails_the_step_at_once(harness: Harness) -> None:
    calls: list[int] = []

    @step
    async def gives_a_function() -> Any:
        calls.append(1)
        return {"callback": print}

    @workflow
    async def gets_a_function() -> None:
        await gives_a_function()

    with pytest.raises(RunFailed) as caught:
        await harness.engine.run(gets_a_function())

    assert isinstance(caught.value.__cause__, NotSerialisable)
    assert caught.value.__cause__.path == "result of gives_a_function()['callback']"
    assert calls == [1]


async def test_a_result_that_does_not_fit_the_hint_fails_the_step_at_once(harness: Harness) -> None:
    calls: list[int] = []

    @step
    async def promises_a_number() -> int:
        calls.append(1)
        return "not a number"  # type: ignore[return-value]

    @workflow
    async def trusts_it() -> int:
        return await promises_a_number()

    with pytest.raises(RunFailed, match="promises_a_number"):
        await harness.engine.run(trusts_it())

    assert calls == [1]


async def test_a_step_is_stopped_when_the_workflow_stops_waiting_for_it(harness: Harness) -> None:
    ended: list[str] = []

    @step
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stopped")

    @workflow
    async def waits_a_minute() -> str:
        try:
            async with asyncio.timeout(60):
                await hangs()
        except TimeoutError:
            return "gave up"
        return "waited"

    run = await harness.engine.start(waits_a_minute())
    await harness.advance(60)

    assert await run.result() == "gave up"
    assert ended == ["stopped"]


async def test_steps_of_leftover_tasks_are_stopped_when_the_run_ends(harness: Harness) -> None:
    ended: list[str] = []

    @step
    async def goes_on_and_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stopped")

    @step
    async def is_quick() -> str:
        return "quick"

    @workflow
    async def leaves_a_task_behind() -> str:
        task = asyncio.create_task(goes_on_and_on())
        await is_quick()
        return await is_quick() if not task.done() else "too late"

    assert await harness.engine.run(leaves_a_task_behind()) == "quick"

    await harness.settle()
    assert ended == ["stopped"]


async def test_a_step_that_nobody_awaits_parks_the_run_before_anything_is_done(harness: Harness) -> None:
    done: list[str] = []

    @step
    async def does(what: str) -> None:
        done.append(what)

    @workflow
    async def forgets_to_await() -> None:
        task = asyncio.create_task(does("first"))
        does("second")  # type: ignore[unused-coroutine]
        await task

    run = await harness.engine.start(forgets_to_await())
    await harness.settle()

    view = await run.info()
    assert view.status is RunStatus.PARKED
    assert "does('second') and never awaited it" in str(view.error)
    assert done == []


async def test_concurrent_steps_share_commits_and_keep_their_order_in_a_replay(harness: Harness) -> None:
    @step
    async def slow_first(number: int) -> int:
        for _ in range(5 - number):
            await asyncio.sleep(0)
        return number

    @workflow
    async def fans_out() -> list[int]:
        order: list[int] = []

        async def one(number: int) -> None:
            order.append(await slow_first(number))

        await asyncio.gather(*(one(number) for number in range(5)))
        await asyncio.sleep(10)
        return order

    await harness.engine.start(fans_out(), id="one")
    await harness.settle()
    recorded = [int(entry.payload or b"") for entry in harness.store.records(1) if entry.kind == Kind.STEP]
    await harness.crash()
    await harness.advance(10)

    assert await (await harness.engine.get("one", fans_out)).result() == recorded
    assert sorted(recorded) == [0, 1, 2, 3, 4]


async def test_io_in_a_workflow_is_refused_and_parks_the_run(harness: Harness) -> None:
    @workflow
    async def opens_a_socket() -> None:
        await asyncio.open_connection("localhost", 1)

    run = await harness.engine.start(opens_a_socket())
    await harness.settle()

    with pytest.raises(RunParked) as caught:
        await run.result()
    assert isinstance(caught.value.__cause__, BoundaryError)
    assert "@step" in str(caught.value.__cause__)


async def test_a_step_that_workflow_code_calls_in_a_thread_is_refused(harness: Harness) -> None:
    called: list[str] = []

    @step
    async def does_something() -> None:
        called.append("really")

    async def await_it() -> None:
        await does_something()

    @workflow
    async def starts_a_thread() -> None:  # from Python 3.12 on that itself is refused
        refused: list[BaseException] = []
        context = contextvars.copy_context()

        def work() -> None:
            try:
                context.run(await_it().send, None)
            except BoundaryError as error:
                refused.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        raise refused[0]

    run = await harness.engine.start(starts_a_thread())

    with pytest.raises(RunParked, match=r"from a callback or from another thread|to start a thread"):
        await run.result()
    assert called == []
