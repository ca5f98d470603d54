"""Workflows made by chance: a program is plain data, and one workflow plays them all.

What a program does it also tells the witness: each effect of a step, and everything
that its code sees, in order. That must come the same in every replay.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from perdure import (
    Retry,
    Signal,
    State,
    StepFailed,
    compensate,
    continue_as_new,
    now,
    random,
    run_info,
    step,
    step_info,
    workflow,
)

from .witness import Witness

if TYPE_CHECKING:
    from .flow import Flow

Program: TypeAlias = list[Any]
"""A word, and what belongs to it: `["work", "a", 0, 0.0]`, `["all", [program, …]]`."""

word = Signal[int]("word")
stage = State[int]("stage")

MEMORY_OF_A_FAILURE = 3
"""A step that fails does so this often in a row: as often as it is tried, so that it fails for good."""


class Stage:
    """Who looks on now. One simulation is played at a time."""

    witness: Witness
    flow: Flow


@step(retry=Retry(delay=1.0, attempts=MEMORY_OF_A_FAILURE))
async def work(label: str, failures: int, seconds: float) -> list[str]:
    """Take some time, fail so many times, then take effect."""
    info = step_info()
    Stage.witness.begun(info)
    if seconds:
        await asyncio.sleep(seconds)
    if Stage.witness.fails(info.idempotency_key, failures):
        raise OSError(label)
    Stage.witness.effect(info, label)
    return [label, info.idempotency_key]


@step(retry=Retry(delay=0.0))
async def undo(label: str) -> list[str]:
    info = step_info()
    Stage.witness.begun(info)
    Stage.witness.effect(info, f"undo {label}")
    return [label, info.idempotency_key]


@workflow
async def play(program: Program) -> Any:
    info = run_info()
    log = Stage.witness.new_life(info.number)
    return await _Player(log).play(program)


class _Player:
    """Plays one program in one life of its run."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log
        self._published = 0

    async def play(self, program: Program) -> Any:
        try:
            value = await getattr(self, f"_{program[0]}")(*program[1:])
        except (StepFailed, ExceptionGroup) as error:
            value = type(error).__mro__[1].__name__
        Stage.witness.saw(self._log, [program[0], value])
        return value

    async def _work(self, label: str, failures: int, seconds: float) -> Any:
        done = await work(label, failures, seconds)
        Stage.witness.delivered(done[1])
        return done[0]

    async def _drawn(self, label: str) -> Any:
        return await self._work(f"{label}:{random().randrange(1000)}", 0, 0.0)

    async def _sleep(self, seconds: float) -> Any:
        before = now()
        await asyncio.sleep(seconds)
        Stage.witness.slept(seconds, (now() - before).total_seconds())
        return now().timestamp()

    async def _receive(self) -> Any:
        return await word.receive()

    async def _publish(self) -> Any:
        self._published += 1
        stage.set(self._published)

    async def _compensate(self, label: str) -> Any:
        compensate(undo(label))

    async def _child(self, program: Program) -> Any:
        return await play(program)

    async def _sequence(self, programs: list[Program]) -> Any:
        return [await self.play(one) for one in programs]

    async def _all(self, programs: list[Program]) -> Any:
        return await asyncio.gather(*(self.play(one) for one in programs))

    async def _group(self, programs: list[Program]) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.play(one)) for one in programs]
        return [task.result() for task in tasks]

    async def _completed(self, programs: list[Program]) -> Any:
        return [await one for one in asyncio.as_completed([self.play(one) for one in programs])]

    async def _race(self, programs: list[Program]) -> Any:
        tasks = [asyncio.create_task(self.play(one)) for one in programs]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in done]

    async def _timeout(self, seconds: float, program: Program) -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.play(program)
        return "timeout"

    async def _again(self, program: Program) -> Any:
        continue_as_new(play(program))


# -- making them -----------------------------------------------------------------------------------

_MANY = ("sequence", "all", "group", "completed", "race")


class Author:
    """Writes programs."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._labels = 0
        self.receives = 0
        """How many signals the last program may wait for."""

    def write(self, size: int) -> Program:
        """A program with about so many steps, of several parts in a row."""
        self.receives = 0
        self._labels = 0
        parts: list[Program] = []
        while self._labels < size:
            parts.append(self._part(depth=0, inside=False))
        if self._chance.random() < 0.1:
            parts.append(["again", ["sequence", [self._part(depth=1, inside=True) for _ in range(2)]]])
        return ["sequence", parts]

    def _part(self, *, depth: int, inside: bool) -> Program:
        chance = self._chance
        if depth < 3 and chance.random() < 0.45:
            kind = chance.choice((*_MANY, "timeout", "child"))
            if kind == "timeout":
                return [
                    "timeout",
                    chance.choice((0.5, 3.0, 60.0)),
                    self._part(depth=depth + 1, inside=inside),
                ]
            if kind == "child":
                return ["child", self._part(depth=depth + 1, inside=True)]
            count = chance.randint(2, 4)
            return [kind, [self._part(depth=depth + 1, inside=inside) for _ in range(count)]]
        return self._leaf(inside=inside)

    def _leaf(self, *, inside: bool) -> Program:
        chance = self._chance
        kind = chance.choices(
            ("work", "drawn", "sleep", "receive", "publish", "compensate"), (60, 10, 12, 8, 5, 5)
        )[0]
        if kind == "receive" and not inside:
            self.receives += 1
            return ["receive"]
        if kind == "sleep":
            return ["sleep", chance.choice((0.0, 0.3, 1.0, 5.0, 30.0, 600.0))]
        if kind == "publish":
            return ["publish"]
        self._labels += 1
        label = f"{self._labels}"
        if kind == "compensate":
            return ["compensate", label]
        if kind == "drawn":
            return ["drawn", label]
        failures = chance.choices((0, 1, 2, MEMORY_OF_A_FAILURE), (80, 10, 5, 5))[0]
        return ["work", label, failures, chance.choice((0.0, 0.0, 0.0, 0.01, 0.5, 4.0))]
