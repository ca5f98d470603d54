"""Cancellation of a run: at every await, again if swallowed, and never during clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from perdure import Signal, compensate, step

from .harness import Body, Kind, Status, Trial, crash_everywhere, live, reborn

word = Signal[str]("word")


@step
def a(value: Any = None) -> Any:
    return value


@step
def clean(value: Any = None) -> Any:
    return value


async def late(delay: float, value: Any = None) -> Any:
    await asyncio.sleep(delay)
    return value


# -- programs that are cancelled at every record ---------------------------------------------------


async def in_sequence() -> Any:
    await a(1)
    await asyncio.sleep(5)
    await a(2)
    return "done"


async def in_a_gather() -> Any:
    await asyncio.gather(a(1), late(3), asyncio.gather(a(2), late(4)))
    return "done"


async def in_a_group() -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(a(1))
        group.create_task(late(2))
        await a(3)
    return "done"


async def with_cleanup() -> Any:
    try:
        await a(1)
        async with asyncio.timeout(50):
            await asyncio.gather(late(3), a(2))
    finally:
        await clean(1)
        await asyncio.sleep(1)
        async with asyncio.timeout(10):
            await asyncio.gather(clean(2), late(1), clean(3))
        async with asyncio.TaskGroup() as group:
            group.create_task(clean(4))
            group.create_task(late(2))
        await asyncio.wait_for(clean(5), 10)
    return "done"


async def with_a_timeout_in_the_cleanup() -> Any:
    try:
        await a(1)
        await late(5)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await late(60)
        await clean(1)
    return "done"


async def with_managers() -> Any:
    @asynccontextmanager
    async def managed(name: str) -> AsyncIterator[None]:
        await a(f"open {name}")
        try:
            yield
        finally:
            await clean(f"close {name}")

    async with managed("outer"), AsyncExitStack() as stack:
        await stack.enter_async_context(managed("inner"))
        stack.push_async_callback(lambda: clean("callback"))
        await late(3)
    return "done"


async def with_a_handler() -> Any:
    try:
        await a(1)
        await late(2)
    except asyncio.CancelledError:
        await clean(1)
        await asyncio.gather(clean(2), late(1))
        raise
    return "done"


async def with_an_iterator() -> Any:
    async def count() -> AsyncIterator[Any]:
        try:
            for value in range(3):
                yield await a(value)
        finally:
            await clean("iterator")

    async for _ in count():
        await asyncio.sleep(1)
    return "done"


PROGRAMS: list[Body] = [
    in_sequence,
    in_a_gather,
    in_a_group,
    with_cleanup,
    with_a_timeout_in_the_cleanup,
    with_managers,
    with_a_handler,
    with_an_iterator,
]


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@pytest.mark.parametrize("body", PROGRAMS)
def test_a_cancel_at_any_record_lets_the_cleanup_through_and_ends_the_run(body: Body, how: str) -> None:
    whole = live(body)
    ended = Status.CANCELLED if how == "cancel" else Status.TIMED_OUT

    for seq in range(len(whole.journal)):
        trial = Trial().begin(body).finish(at={seq: lambda trial: trial.cancel(how)})

        assert whole.result == "done"
        assert trial.journal[seq].kind == Kind.CANCEL
        # Cancelled in the clean-up itself, the rest of that is what is cut short.
        assert trial.status is ended, f"cancelled at record {seq}"
        crash_everywhere(body, trial)


@pytest.mark.parametrize("body", [with_cleanup, with_managers, with_a_handler, with_a_timeout_in_the_cleanup])
def test_cleanup_of_several_steps_completes(body: Body) -> None:
    first_wait = 3 if body is with_managers else 1

    trial = Trial().begin(body).finish(at={first_wait: lambda trial: trial.cancel()})

    cleaned = [key for key in trial.steps() if key.endswith("clean")]
    assert trial.status is Status.CANCELLED
    assert len(cleaned) == {with_cleanup: 5, with_managers: 2, with_a_handler: 2}.get(body, 1)


async def cleans_up() -> None:
    try:
        await asyncio.sleep(100)
    finally:
        await clean()


async def a_group_of_cleaners() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(cleans_up())
        group.create_task(cleans_up())


async def a_condition_whose_lock_is_taken() -> None:
    condition = asyncio.Condition()

    async def holder() -> None:
        async with condition:
            condition.notify_all()
            await clean("held")

    async with condition:
        task = asyncio.create_task(holder())
        await condition.wait()
    await task


async def a_loop_that_swallows() -> None:
    for _ in range(1000):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
    await clean()


@pytest.mark.parametrize("body", [a_group_of_cleaners, a_condition_whose_lock_is_taken, a_loop_that_swallows])
def test_a_cancel_that_is_swallowed_by_what_waits_for_others_lets_them_get_on(body: Body) -> None:
    trial = Trial().begin(body)

    trial.cancel()
    trial.finish()

    assert trial.status is Status.CANCELLED
    crash_everywhere(body, trial)


# -- swallowed -----------------------------------------------------------------------------------


async def receives() -> Any:
    await word.receive()


async def queues() -> Any:
    await asyncio.Queue[int]().get()


async def waits_for_an_event() -> Any:
    await asyncio.Event().wait()


async def awaits_a_task() -> Any:
    await tasks[0]


async def groups() -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(late(60))


async def locks() -> Any:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


tasks: list[asyncio.Task[Any]] = []
NEXT_AWAITS: dict[str, Any] = {
    "step": lambda: a(1),
    "sleep": lambda: asyncio.sleep(5),
    "gather": lambda: asyncio.gather(a(1), late(2)),
    "wait_for": lambda: asyncio.wait_for(a(1), 10),
    "wait": lambda: asyncio.wait([tasks[0]]),
    "shield": lambda: asyncio.shield(tasks[0]),
    "receive": receives,
    "queue": queues,
    "event": waits_for_an_event,
    "lock": locks,
    "task": awaits_a_task,
    "group": groups,
}


@pytest.mark.parametrize("name", NEXT_AWAITS)
def test_a_swallowed_cancel_comes_again_at_the_next_await(name: str) -> None:
    async def body() -> str:
        tasks[:] = [asyncio.create_task(late(1000))]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        with suppress(asyncio.CancelledError):
            await NEXT_AWAITS[name]()
            return "got through"
        await a("and again")
        return "got through"

    trial = Trial().begin(body)
    trial.cancel()

    assert trial.status is Status.CANCELLED
    assert trial.open == {}
    assert len(trial.journal) == 1


def test_a_run_that_swallows_and_returns_has_completed() -> None:
    async def body() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await clean()
        return "what there was"

    trial = Trial().begin(body)
    trial.cancel()
    trial.finish()

    assert trial.result == "what there was"


def test_a_cancel_that_a_child_task_swallows_comes_again_in_the_child() -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await a(1)
        await a(2)

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn())

    trial = Trial().begin(body)
    trial.cancel()

    assert trial.status is Status.CANCELLED


def test_what_the_workers_own_code_is_handling_is_not_taken_for_cleanup() -> None:
    async def body() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        await a("next")

    trial = Trial().begin(body)
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        trial.cancel()

    assert trial.status is Status.CANCELLED


# -- once, and not in places ---------------------------------------------------------------------


def test_to_cancel_twice_is_to_cancel_once() -> None:
    trial = Trial().begin(with_cleanup)
    trial.cancel()
    trial.cancel()
    trial.cancel("timeout")

    trial.finish()

    assert trial.status is Status.CANCELLED
    assert len([key for key in trial.steps() if key.endswith("clean")]) == 5
    crash_everywhere(with_cleanup, trial)


def test_a_shielded_task_is_not_cancelled() -> None:
    async def body() -> Any:
        inner = asyncio.create_task(a("inner"))
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            return await inner

    trial = Trial().begin(body)
    trial.cancel()
    trial.finish()

    assert trial.result == "inner"


def test_undo_calls_are_not_cancelled() -> None:
    async def body() -> None:
        compensate(clean("undo 1"))
        compensate(clean("undo 2"))
        await a(1)
        raise ValueError("no")

    trial = Trial().begin(body)
    trial.answer("0/0/a")
    trial.cancel()
    trial.cancel("timeout")
    trial.finish()

    assert (trial.status, str(trial.error)) == (Status.FAILED, "no")
    assert trial.steps() == ["0/0/a", "undo/0/clean", "undo/1/clean"]
    crash_everywhere(body, trial)


def test_a_deadline_that_passes_during_undo_does_not_come_again_and_again() -> None:
    async def body() -> None:
        compensate(clean("undo"))
        await a(1)
        raise ValueError("no")

    trial = Trial(deadline_ms=1_700_000_010_000).begin(body)
    before = trial.execution.next_deadline_ms()
    trial.answer("0/0/a")

    assert before == 1_700_000_010_000
    assert trial.execution.next_deadline_ms() is None


def test_a_run_past_its_deadline_cleans_up_and_is_timed_out() -> None:
    trial = Trial(deadline_ms=1_700_000_002_000).begin(in_sequence)
    trial.answer("0/0/a")

    trial.finish()

    assert trial.status is Status.TIMED_OUT
    assert trial.now_ms == 1_700_000_002_000


def test_ones_own_cancel_of_a_task_is_plain_asyncio() -> None:
    async def stubborn() -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await asyncio.sleep(1)
        return await a("got through")

    async def body() -> Any:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(1)
        task.cancel()
        return await task

    assert live(body).result == "got through"


def test_ones_own_cancel_of_a_task_of_the_cleanup_is_plain_asyncio_too() -> None:
    async def stubborn() -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return await clean("got through")

    async def body() -> None:
        seen: list[Any] = []
        try:
            await asyncio.sleep(5)
        finally:
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(1)
            task.cancel()
            seen.append(await task)
            raise ValueError(*seen)

    trial = Trial().begin(body)
    trial.cancel()
    trial.finish()

    assert str(trial.error) == "got through"


def test_cleanup_that_raises_fails_the_run() -> None:
    async def body() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            await clean()
            raise ValueError("broken cleanup")

    trial = Trial().begin(body)
    trial.cancel()
    trial.finish()

    assert (trial.status, str(trial.error)) == (Status.FAILED, "broken cleanup")


def test_steps_whose_waiter_is_cancelled_are_called_off_once() -> None:
    trial = Trial().begin(in_a_gather)
    trial.cancel()

    again = reborn(in_a_gather, trial.journal)

    assert sorted(trial.cancelled) == ["0.1/0/a", "0.3/0/a"]
    assert again.cancelled == []
    assert again.status is Status.CANCELLED
