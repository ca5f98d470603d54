"""Small concurrent programs made by chance, run in orders made by chance, crashed at every record."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure import Signal, random, step

from .harness import Status, Trial, crash_everywhere, reborn, shuffled

word = Signal[int]("word")


@step
def work(value: int) -> int:
    if value % 7 == 3:
        raise OSError(str(value))
    return value


Program = tuple[Any, ...]

leaves = st.one_of(
    st.tuples(st.just("work"), st.integers(0, 20)),
    st.tuples(st.just("sleep"), st.sampled_from([0, 0.5, 1, 2])),
    st.tuples(st.just("put"), st.integers(0, 20)),
    st.tuples(st.just("take")),
    st.tuples(st.just("receive")),
    st.tuples(st.just("draw")),
)


def bigger(inner: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.tuples(st.sampled_from(["sequence", "gather", "race", "group", "completed"]), several),
        st.tuples(st.just("timeout"), st.sampled_from([0, 0.7, 1, 5]), inner),
        st.tuples(st.just("tidy"), inner, st.integers(0, 20)),
    )


programs = st.recursive(leaves, bigger, max_leaves=8)


class Playing:
    """Runs a program; everything that it sees goes into one log, in order."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.queue: asyncio.Queue[int] = asyncio.Queue()

    async def play(self, program: Program) -> Any:
        try:
            value = await getattr(self, f"do_{program[0]}")(*program[1:])
        except (OSError, ExceptionGroup) as error:
            value = type(error).__mro__[1].__name__
        self.log.append([program[0], value])
        return value

    async def do_work(self, value: int) -> Any:
        return await work(value)

    async def do_sleep(self, delay: float) -> Any:
        await asyncio.sleep(delay)
        return round(asyncio.get_running_loop().time(), 3)

    async def do_put(self, value: int) -> Any:
        await self.queue.put(value)
        return value

    async def do_take(self) -> Any:
        return await self.queue.get()

    async def do_receive(self) -> Any:
        return await word.receive()

    async def do_draw(self) -> Any:
        return await work(random().randrange(20))

    async def do_sequence(self, inner: tuple[Program, ...]) -> Any:
        return [await self.play(one) for one in inner]

    async def do_gather(self, inner: tuple[Program, ...]) -> Any:
        return await asyncio.gather(*(self.play(one) for one in inner))

    async def do_completed(self, inner: tuple[Program, ...]) -> Any:
        return [await one for one in asyncio.as_completed([self.play(one) for one in inner])]

    async def do_group(self, inner: tuple[Program, ...]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.play(one)) for one in inner]
        return [task.result() for task in tasks]

    async def do_race(self, inner: tuple[Program, ...]) -> Any:
        tasks = [asyncio.create_task(self.play(one)) for one in inner]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in done]

    async def do_timeout(self, delay: float, inner: Program) -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                return await self.play(inner)
        return "timeout"

    async def do_tidy(self, inner: Program, value: int) -> Any:
        try:
            return await self.play(inner)
        finally:
            with suppress(OSError):
                self.log.append(await work(value))


def drive(trial: Trial, seed: int, *, cancel_at: int | None) -> None:
    """Answer, tick and signal in an order made by chance, several records in one commit."""
    choose = shuffled(seed)
    for turn in range(200):
        trial.deliver()
        if trial.outcome is not None:
            return
        if turn == cancel_at:
            trial.cancel()
            continue
        choices: list[Any] = [*trial.open.values()]
        for _ in range(1 + choose(range(2))):  # type: ignore[arg-type]
            if choices:
                trial.compute(choices.pop(choose(choices)).key)
        if not trial.undelivered:
            if trial.execution.next_deadline_ms() is not None:
                trial.tick()
            else:
                trial.signal("word", turn)
                trial.deliver()
                if turn > 30 and not trial.open:
                    trial.cancel()


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=programs, seed=st.integers(0, 5), cancel_at=st.one_of(st.none(), st.integers(0, 6)))
def test_any_program_crashed_anywhere_comes_to_the_same_end(
    program: Program, seed: int, cancel_at: int | None
) -> None:
    logs: list[list[Any]] = []

    async def body() -> Any:
        playing = Playing()
        logs.append(playing.log)
        return await playing.play(program)

    trial = Trial().begin(body)
    drive(trial, seed, cancel_at=cancel_at)

    assert trial.outcome is not None
    assert trial.status in (Status.COMPLETED, Status.CANCELLED)
    crash_everywhere(body, trial)
    again = reborn(body, trial.journal)
    assert again.outcome is not None
    assert all(log == logs[0] for log in logs)
