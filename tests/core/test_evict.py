"""A run that leaves memory: its code unwinds, and nothing of it gets out."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from perdure import Signal, State, compensate, continue_as_new, patched, random, start_child, step, workflow
from perdure.errors import RunEvicted

from .harness import Body, Trial, reborn

word = Signal[str]("word")
status = State[str]("status")
ran: list[str] = []


@step
def effect(value: Any = None) -> Any:
    ran.append(f"effect {value}")
    return value


@workflow
async def other() -> None: ...


@pytest.fixture(autouse=True)
def nothing_is_said(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, said.append
    ran.clear()
    yield
    gc.collect()
    sys.unraisablehook = before
    assert (said, caplog.records, capsys.readouterr().err) == ([], [], "")


async def in_a_finally() -> None:
    try:
        await asyncio.sleep(100)
    finally:
        ran.append("finally")
        await effect("finally")
        ran.append("went on")


async def in_base_exception() -> None:
    try:
        await asyncio.sleep(100)
    except BaseException:
        await effect("handler")
        ran.append("went on")


async def in_nested_finally() -> None:
    try:
        try:
            await effect(0)
        finally:
            await asyncio.sleep(0)
            await asyncio.Queue[int]().get()
    finally:
        await effect("outer")
        ran.append("went on")


async def in_managers() -> None:
    @asynccontextmanager
    async def managed() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await effect("closing")

    async with asyncio.Lock(), managed(), asyncio.timeout(50):
        await asyncio.sleep(100)


async def in_a_generator() -> None:
    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(100)
            yield 2
        finally:
            await effect("generator")

    idle = generate()
    await anext(idle)
    async for _ in generate():
        pass


async def in_a_generator_begun_while_dropped() -> None:
    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await effect("generator")

    try:
        await asyncio.sleep(100)
    finally:
        async for _ in generate():
            break


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_finally())
        group.create_task(in_nested_finally())
        await effect("body")


async def in_a_condition() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def in_a_receive() -> None:
    with suppress(Exception):
        await word.receive()
    ran.append("went on")


async def in_everything_else() -> None:
    try:
        await asyncio.sleep(100)
    finally:
        for refused in (
            lambda: status.set("gone"),
            lambda: patched("x"),
            lambda: compensate(effect("undo")),
            lambda: random().random(),
            lambda: continue_as_new(other()),
            lambda: asyncio.create_task(in_a_finally()),
            lambda: asyncio.get_running_loop().call_later(1, ran.append, "timer"),
            lambda: asyncio.get_running_loop().create_future(),
        ):
            with suppress(RunEvicted):
                refused()
                ran.append("went on")
        with suppress(RunEvicted):
            await start_child(other())
            ran.append("went on")
        asyncio.get_running_loop().call_soon(ran.append, "soon")


async def that_ignores_generator_exit() -> None:
    with suppress(GeneratorExit):
        await asyncio.sleep(100)
    await effect("ignored")
    ran.append("went on")


async def that_never_gives_up() -> None:
    while True:
        with suppress(BaseException):
            await asyncio.sleep(1)


async def that_never_gives_up_publishing() -> None:
    while True:
        with suppress(BaseException):
            status.set("still here")
            compensate(effect("undo"))
            await asyncio.sleep(1)


async def that_never_gives_up_a_step() -> None:
    while True:
        with suppress(BaseException):
            await asyncio.gather(effect(1), effect(2))


async def that_never_gives_up_in_layers() -> None:
    while True:
        try:
            while True:
                try:
                    await word.receive()
                except BaseException:
                    ran.append("caught")
                finally:
                    await effect("in layers")
        except BaseException:
            ran.append("caught again")


async def that_never_gives_up_yielding() -> None:
    with suppress(BaseException):
        await effect(0)
    while True:
        with suppress(BaseException):
            await asyncio.sleep(0)


BODIES: list[Body] = [
    in_a_finally,
    in_base_exception,
    in_nested_finally,
    in_managers,
    in_a_generator,
    in_a_generator_begun_while_dropped,
    in_a_group,
    in_a_condition,
    in_a_receive,
    in_everything_else,
    that_ignores_generator_exit,
    that_never_gives_up,
    that_never_gives_up_publishing,
    that_never_gives_up_a_step,
    that_never_gives_up_in_layers,
    that_never_gives_up_yielding,
]


@pytest.mark.parametrize("body", BODIES)
def test_no_command_leaves_a_run_that_is_dropped(body: Body) -> None:
    trial = Trial().begin(body)
    asked, said = list(trial.asked), list(trial.published)

    trial.drop()
    gc.collect()

    assert trial.execution.commands == []
    assert trial.published == said
    assert trial.asked == asked
    assert "went on" not in ran
    assert not [said for said in ran if said.startswith(("effect", "timer", "soon"))]


@pytest.mark.parametrize("body", BODIES)
async def test_the_loop_outside_is_left_alone(body: Body) -> None:
    before = asyncio.all_tasks()
    trial = Trial().begin(body)

    trial.drop()
    gc.collect()
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before
    assert trial.execution.commands == []


@pytest.mark.parametrize("body", BODIES[:-5])
def test_what_was_dropped_can_be_replayed(body: Body) -> None:
    trial = Trial().begin(body)
    asked = list(trial.asked)
    trial.drop()

    again = reborn(body, trial.journal)

    assert again.asked == asked
    again.drop()


@pytest.mark.parametrize("body", [in_a_finally, in_a_group, in_a_generator])
def test_a_run_that_ends_lets_no_more_effects_of_its_tasks_out(body: Body) -> None:
    async def flow() -> str:
        asyncio.create_task(body())  # noqa: RUF006
        await asyncio.sleep(1)
        return "over"

    trial = Trial().begin(flow)
    asked = list(trial.asked)
    trial.tick()

    assert trial.result == "over"
    assert trial.asked == asked
    assert "went on" not in ran


class Local:
    """Something that a workflow holds."""


@pytest.mark.parametrize("where", ["root", "task", "generator"])
def test_what_the_code_held_is_freed_at_once(where: str) -> None:
    held: list[weakref.ref[Local]] = []

    async def hold() -> None:
        local = Local()
        held.append(weakref.ref(local))
        await effect(1)
        del local

    async def generate() -> AsyncIterator[None]:
        await hold()
        yield

    async def body() -> None:
        if where == "generator":
            async for _ in generate():
                pass
        await (hold() if where == "root" else asyncio.create_task(hold()))

    trial = Trial().begin(body)
    alive = held[0]() is not None
    trial.drop()

    assert alive
    assert held[0]() is None


def test_ten_thousand_evictions_leave_nothing_behind() -> None:
    def evict(count: int) -> None:
        for _ in range(count):
            Trial().begin(in_a_finally).drop()

    evict(200)
    gc.collect()
    before = len(gc.get_objects())
    evict(10_000)
    gc.collect()
    ran.clear()

    assert len(gc.get_objects()) - before < 500
