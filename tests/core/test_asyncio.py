"""Plain asyncio works inside a run, and replays from every record."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure import step
from perdure.errors import NonRetryable

from .harness import Body, Trial, crash_everywhere, live, newest, shuffled

colour = contextvars.ContextVar("colour", default="none")


@step
def same(value: Any) -> Any:
    return value


@step
def refuse(value: str) -> str:
    raise Refused(value)


class Refused(NonRetryable):
    pass


async def late(delay: float, value: Any) -> Any:
    await asyncio.sleep(delay)
    return value


async def gathers() -> Any:
    return await asyncio.gather(same(1), late(2, 2), same(3), asyncio.create_task(late(1, 4)))


async def gathers_exceptions() -> Any:
    results = await asyncio.gather(same(1), refuse("no"), late(1, 2), return_exceptions=True)
    return [str(result) for result in results]


async def gather_raises_the_first_exception() -> Any:
    try:
        await asyncio.gather(late(5, 1), refuse("no"))
    except Refused as error:
        return [str(error), await same("after")]


async def nests_task_groups() -> Any:
    async with asyncio.TaskGroup() as outer:
        first = outer.create_task(same("a"))
        async with asyncio.TaskGroup() as inner:
            second = inner.create_task(late(3, "b"))
            third = inner.create_task(same("c"))
    return [first.result(), second.result(), third.result()]


async def groups_exceptions() -> Any:
    seen: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse("x"))
            group.create_task(late(9, None))
    except* Refused as found:
        seen = [str(error) for error in found.exceptions]
    return seen


async def waits_for_the_first() -> Any:
    tasks = [asyncio.create_task(late(delay, delay)) for delay in (3, 1, 2)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [task.result() for task in done]


async def waits_for_the_first_exception() -> Any:
    tasks = [asyncio.create_task(one) for one in (same(1), late(1, 2), refuse("no"), late(99, 3))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    return [len(done) + len(pending), tasks[3] in pending]


async def waits_with_a_timeout() -> Any:
    tasks = {asyncio.create_task(late(delay, delay)) for delay in (1, 5)}
    done, pending = await asyncio.wait(tasks, timeout=2)
    return [len(done), len(pending)]


async def waits_for_in_time() -> Any:
    return [await asyncio.wait_for(same(7), 10), await asyncio.wait_for(late(1, 8), None)]


async def waits_for_too_long() -> Any:
    try:
        await asyncio.wait_for(late(10, None), 1)
    except TimeoutError:
        return await same("too late")


async def times_out() -> Any:
    try:
        async with asyncio.timeout(1) as limit:
            await late(5, None)
    except TimeoutError:
        return limit.expired()


async def times_out_at_once() -> Any:
    try:
        async with asyncio.timeout_at(0):
            await same("never")
    except TimeoutError:
        return "at once"


async def reschedules_a_timeout() -> Any:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(1) as limit:
        limit.reschedule(loop.time() + 100)
        return await late(50, "in time")


async def takes_as_completed() -> Any:
    return [await one for one in asyncio.as_completed([late(3, "c"), same("a"), late(1, "b")])]


async def takes_as_completed_with_timeout() -> Any:
    seen = []
    try:
        for one in asyncio.as_completed([late(1, 1), late(9, 2)], timeout=5):
            seen.append(await one)  # noqa: PERF401 (one by one is what is tested)
    except TimeoutError:
        seen.append("timeout")
    return seen


async def shields() -> Any:
    inner = asyncio.create_task(late(5, "inner"))
    try:
        async with asyncio.timeout(1):
            await asyncio.shield(inner)
    except TimeoutError:
        return await inner


async def queues() -> Any:
    plain: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for value in range(4):
            await plain.put(await same(value))

    producer = asyncio.create_task(produce())
    taken = [await plain.get() for _ in range(4)]
    await producer
    return taken


async def orders_queues() -> Any:
    ranked: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()
    stack: asyncio.LifoQueue[int] = asyncio.LifoQueue()
    for value in (2, 3, 1):
        ranked.put_nowait(value)
        stack.put_nowait(value)
    first = [await ranked.get() for _ in range(3)]
    second = [await stack.get() for _ in range(3)]
    stack.task_done(), stack.task_done(), stack.task_done()
    await stack.join()
    return first + second


async def locks() -> Any:
    lock, gate, seen = asyncio.Lock(), asyncio.Semaphore(2), list[Any]()

    async def work(value: int) -> None:
        async with gate, lock:
            seen.append(await same(value))

    await asyncio.gather(*(work(value) for value in range(4)))
    return sorted(seen)


async def waits_for_conditions() -> Any:
    event, condition, ready = asyncio.Event(), asyncio.Condition(), list[str]()

    async def waiter() -> str:
        await event.wait()
        async with condition:
            await condition.wait_for(lambda: bool(ready))
        return ready[0]

    task = asyncio.create_task(waiter())
    asyncio.get_running_loop().call_later(1, event.set)
    await asyncio.sleep(2)
    async with condition:
        ready.append(await same("go"))
        condition.notify_all()
    return await task


async def meets_at_a_barrier() -> Any:
    barrier = asyncio.Barrier(3)

    async def come(delay: float) -> int:
        await asyncio.sleep(delay)
        return await barrier.wait()

    return sorted(await asyncio.gather(come(1), come(2), come(3)))


async def uses_async_generators() -> Any:
    seen: list[Any] = []

    async def count() -> AsyncIterator[Any]:
        try:
            for value in range(3):
                yield await same(value)
        finally:
            seen.append(await same("closed"))

    async for value in count():
        seen.append(value)  # noqa: PERF401 (one by one is what is tested)
    async for _ in count():
        break
    await asyncio.sleep(0)
    await asyncio.sleep(1)
    third = count()
    await anext(third)
    await third.aclose()
    return [*seen, [value * 2 async for value in count()]]


async def inherits_context() -> Any:
    colour.set("red")

    async def child() -> str:
        before = colour.get()
        colour.set("blue")
        await same(1)
        return f"{before} {colour.get()}"

    inside = await asyncio.gather(child(), child())
    return [*inside, colour.get()]


async def keeps_its_run_in_a_context_of_ones_own() -> Any:
    async def child() -> Any:
        return [colour.get(), await same("a step, and not a function call")]

    colour.set("red")
    return await asyncio.create_task(child(), context=contextvars.Context())


async def calls_back() -> Any:
    loop, seen = asyncio.get_running_loop(), list[Any]()
    start = loop.time()
    loop.call_soon(seen.append, "soon")
    loop.call_later(2, seen.append, "later")
    loop.call_at(start + 1, seen.append, "at")
    loop.call_later(1.5, seen.append, "never").cancel()
    await asyncio.sleep(0)
    seen.append("zero")
    await asyncio.sleep(3)
    return [*seen, round(loop.time() - start, 3)]


async def names_tasks() -> Any:
    async def who() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    named = asyncio.create_task(who(), name="ann")
    plain = asyncio.create_task(who())
    everybody = len(asyncio.all_tasks())
    return [await named, await plain, everybody]


async def forgets_a_task() -> Any:
    seen: list[Any] = []

    async def work() -> None:
        seen.append(await same("done"))

    asyncio.create_task(work())  # noqa: RUF006  # that nobody holds it is the point
    gc.collect()
    await asyncio.sleep(5)
    return seen


async def cancels_a_task() -> Any:
    task = asyncio.create_task(late(9, None))
    await asyncio.sleep(1)
    task.cancel("enough")
    try:
        await task
    except asyncio.CancelledError as error:
        return [str(error), task.cancelled(), await same("after")]


PROGRAMS: list[tuple[Body, Any]] = [
    (gathers, [1, 2, 3, 4]),
    (gathers_exceptions, ["1", "no", "2"]),
    (gather_raises_the_first_exception, ["no", "after"]),
    (nests_task_groups, ["a", "b", "c"]),
    (groups_exceptions, ["x"]),
    (waits_for_the_first, [1]),
    (waits_for_the_first_exception, [4, True]),
    (waits_with_a_timeout, [1, 1]),
    (waits_for_in_time, [7, 8]),
    (waits_for_too_long, "too late"),
    (times_out, True),
    (times_out_at_once, "at once"),
    (reschedules_a_timeout, "in time"),
    (takes_as_completed, ["a", "b", "c"]),
    (takes_as_completed_with_timeout, [1, "timeout"]),
    (shields, "inner"),
    (queues, [0, 1, 2, 3]),
    (orders_queues, [1, 2, 3, 1, 3, 2]),
    (locks, [0, 1, 2, 3]),
    (waits_for_conditions, "go"),
    (meets_at_a_barrier, [0, 1, 2]),
    (uses_async_generators, [0, 1, 2, "closed", "closed", "closed", [0, 2, 4]]),
    (inherits_context, ["red blue", "red blue", "red"]),
    (keeps_its_run_in_a_context_of_ones_own, ["none", "a step, and not a function call"]),
    (calls_back, ["soon", "zero", "at", "later", 3.0]),
    (names_tasks, ["ann", "0.2", 3]),
    (forgets_a_task, ["done"]),
    (cancels_a_task, ["enough", True, "after"]),
]


@pytest.mark.parametrize(("body", "expected"), PROGRAMS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("choose", [None, newest, shuffled(7)], ids=["oldest", "newest", "shuffled"])
def test_plain_asyncio_works_and_replays_from_every_record(body: Body, expected: Any, choose: Any) -> None:
    trial = live(body, choose) if choose else live(body)

    assert trial.result == expected
    crash_everywhere(body, trial)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="as_completed is asynchronous since 3.13")
def test_as_completed_can_be_iterated_asynchronously() -> None:
    async def body() -> Any:
        tasks = [asyncio.create_task(late(delay, delay)) for delay in (3, 1, 2)]
        return [await done async for done in asyncio.as_completed(tasks)]

    trial = live(body)

    assert trial.result == [1, 2, 3]
    crash_everywhere(body, trial)


def test_a_task_group_aborts_its_tasks_in_the_same_order_each_time() -> None:
    kept: list[Any] = []

    def abort(order: list[int]) -> Body:
        async def child(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                order.append(number)

        async def body() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(child(number))
                group.create_task(refuse("abort"))

        return body

    orders = set[tuple[int, ...]]()
    for repeat in range(50):
        order: list[int] = []
        live(abort(order))
        orders.add(tuple(order))
        kept.append([object() for _ in range(repeat * 7)])  # so that addresses differ

    assert len(orders) == 1
    assert sorted(orders.pop()) == list(range(8))


def test_as_completed_makes_its_tasks_in_the_order_given() -> None:
    kept: list[Any] = []
    numbers = list(range(12))

    def body() -> Any:
        kept.append([object() for _ in range(len(kept) * 5)])

        async def flow() -> Any:
            calls = [same(number) for number in numbers]
            calls[2], calls[9] = calls[9], calls[2]
            return [await one for one in asyncio.as_completed(calls)]

        return flow()

    results = {tuple(live(body).result) for _ in range(20)}

    assert results == {(0, 1, 9, 3, 4, 5, 6, 7, 8, 2, 10, 11)}


def test_as_completed_of_a_set_of_coroutines_is_refused() -> None:
    async def body() -> Any:
        for one in asyncio.as_completed({same(value) for value in range(3)}):
            await one

    trial = live(body)

    assert "asyncio.ensure_future(one)" in str(trial.error)


def test_a_run_does_not_see_the_context_of_whoever_started_it() -> None:
    async def body() -> str:
        return colour.get()

    token = colour.set("green")
    trial = live(body)
    colour.reset(token)

    assert trial.result == "none"


@pytest.mark.parametrize("where", ["in its own run", "in another run", "outside"])
def test_a_generator_that_is_collected_and_not_dropped_never_cleans_up(where: str) -> None:
    cleaned: list[str] = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            cleaned.append("up")

    async def body() -> str:
        knot: dict[str, Any] = {"generator": generate()}
        knot["knot"] = knot
        await anext(knot["generator"])
        del knot
        await same("first")
        if where == "in its own run":
            gc.collect()
        return await same("second")

    async def bystander() -> str:
        await same("b")
        gc.collect()
        return "done"

    trial = Trial().begin(body)
    trial.answer("0/0/same")
    other = live(bystander) if where == "in another run" else None
    gc.collect()
    trial.finish()

    assert (trial.result, cleaned) == ("second", [])
    assert other is None or other.result == "done"
