"""Signals: on disk when sent, received once, in order, before or after they are asked for."""

from __future__ import annotations

import asyncio

import pytest

from perdure import NotSerialisable, OutsideRun, RunClosed, RunNotFound, Signal, step, workflow
from perdure.testing import Harness

word = Signal[str]("word")
number = Signal[int]("number")


@step
async def echo(text: str) -> str:
    return text


@workflow
async def collects_words(count: int) -> list[str]:
    return [await word.receive() for _ in range(count)]


async def test_signals_are_received_in_the_order_of_sending(harness: Harness) -> None:
    run = await harness.engine.start(collects_words(3))

    for text in ("a", "b", "c"):
        await run.send(word, text)

    assert await run.result() == ["a", "b", "c"]


async def test_a_signal_that_came_before_it_was_asked_for_waits(harness: Harness) -> None:
    @workflow
    async def sleeps_first() -> str:
        await asyncio.sleep(60)
        return await word.receive()

    run = await harness.engine.start(sleeps_first(), id="one")
    await run.send(word, "early")
    await harness.crash()
    await harness.advance(60)

    assert await (await harness.engine.get("one", sleeps_first)).result() == "early"


async def test_a_signal_that_was_sent_is_not_lost_in_a_crash(harness: Harness) -> None:
    await harness.engine.start(collects_words(2), id="one")
    await (await harness.engine.get("one")).send(word, "first")
    await harness.crash()
    run = await harness.engine.get("one", collects_words)
    await run.send(word, "second")

    assert await run.result() == ["first", "second"]


async def test_async_for_receives_until_it_is_left(harness: Harness) -> None:
    @workflow
    async def listens_until_stop() -> list[str]:
        heard: list[str] = []
        async for text in word:
            if text == "stop":
                return heard
            heard.append(await echo(text))
        return []

    run = await harness.engine.start(listens_until_stop())
    for text in ("a", "b", "stop"):
        await run.send(word, text)

    assert await run.result() == ["a", "b"]


async def test_a_plain_handler_gets_each_value_at_once_those_that_wait_first(harness: Harness) -> None:
    @workflow
    async def adds_up() -> int:
        total = 0
        done = asyncio.Event()

        def add(value: int) -> None:
            nonlocal total
            total += value
            if value == 0:
                done.set()

        await word.receive()
        number.handle(add)
        await done.wait()
        return total

    run = await harness.engine.start(adds_up())
    for value in (1, 2):
        await run.send(number, value)
    await run.send(word, "go")
    for value in (3, 0):
        await run.send(number, value)

    assert await run.result() == 6


async def test_an_async_handler_may_await_steps_and_overlap(harness: Harness) -> None:
    @workflow
    async def handles_words() -> list[str]:
        heard: list[str] = []
        enough = asyncio.Event()

        async def hear(text: str) -> None:
            heard.append(await echo(text.upper()))
            if len(heard) == 3:
                enough.set()

        word.handle(hear)
        await enough.wait()
        await asyncio.sleep(5)
        return sorted(heard)

    run = await harness.engine.start(handles_words(), id="one")
    for text in ("a", "b", "c"):
        await run.send(word, text)
    await harness.settle()
    await harness.crash()
    await harness.advance(5)

    assert await (await harness.engine.get("one", handles_words)).result() == ["A", "B", "C"]


async def test_a_plain_handler_may_use_asyncio(harness: Harness) -> None:
    @workflow
    async def makes_tasks_in_a_handler() -> str:
        answers: asyncio.Queue[str] = asyncio.Queue()
        tasks: list[asyncio.Task[None]] = []

        async def answer(text: str) -> None:
            await asyncio.sleep(1)
            answers.put_nowait(await echo(text))

        word.handle(lambda text: tasks.append(asyncio.create_task(answer(text))))
        return await answers.get()

    run = await harness.engine.start(makes_tasks_in_a_handler())
    await run.send(word, "hello")
    await harness.advance(1)

    assert await run.result() == "hello"


async def test_handlers_of_two_runs_do_not_mix_when_their_signals_come_at_once(harness: Harness) -> None:
    @workflow
    async def hears_and_waits() -> str:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def hear(text: str) -> None:
            heard.put_nowait(await echo(text))

        word.handle(hear)
        return await heard.get()

    runs = [await harness.engine.start(hears_and_waits(), id=f"run-{number}") for number in range(4)]
    await harness.settle()

    await asyncio.gather(*(run.send(word, run.id) for run in runs))

    assert [await run.result() for run in runs] == [run.id for run in runs]


async def test_two_receivers_are_served_in_the_order_of_asking(harness: Harness) -> None:
    @workflow
    async def two_receive() -> list[str]:
        async def take(name: str) -> str:
            return f"{name} {await word.receive()}"

        return list(await asyncio.gather(take("first"), take("second")))

    run = await harness.engine.start(two_receive())
    await run.send(word, "a")
    await run.send(word, "b")

    assert await run.result() == ["first a", "second b"]


async def test_a_signal_is_not_lost_with_a_receiver_that_gave_up(harness: Harness) -> None:
    @workflow
    async def gives_up_once() -> str:
        try:
            async with asyncio.timeout(10):
                return await word.receive()
        except TimeoutError:
            return f"late {await word.receive()}"

    run = await harness.engine.start(gives_up_once())
    await harness.advance(10)
    await run.send(word, "a")

    assert await run.result() == "late a"


async def test_a_signal_with_an_id_is_taken_once(harness: Harness) -> None:
    run = await harness.engine.start(collects_words(2))

    for text, signal_id in (("a", "1"), ("a", "1"), ("b", "2")):
        await run.send(word, text, id=signal_id)

    assert await run.result() == ["a", "b"]


async def test_a_run_that_has_ended_takes_no_signal(harness: Harness) -> None:
    run = await harness.engine.start(collects_words(0), id="one")
    await run.result()

    with pytest.raises(RunClosed, match="'one' has ended"):
        await run.send(word, "late")


async def test_a_run_that_does_not_exist_takes_no_signal(harness: Harness) -> None:
    with pytest.raises(RunNotFound, match="'nobody'"):
        await harness.engine.send("nobody", word, "hello")


async def test_a_value_of_the_wrong_type_is_refused_at_the_call(harness: Harness) -> None:
    run = await harness.engine.start(collects_words(1))

    with pytest.raises(NotSerialisable, match="signal 'word'"):
        await run.send(word, 7)  # type: ignore[arg-type]

    await run.send(word, "seven")
    assert await run.result() == ["seven"]


async def test_receiving_outside_a_run_is_refused() -> None:
    with pytest.raises(OutsideRun, match="receive"):
        await word.receive()
