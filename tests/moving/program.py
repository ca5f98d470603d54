"""Workflows that are under way when they are moved, and a mover that is killed."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import sys
from collections import Counter

from perdure import Retry, Signal, State, Update, continue_as_new, start_child, step, workflow
from perdure.moving import Progress, move

go = Signal[str]("go")
stage = State[str]("stage")
add = Update[int, int]("add")

worked: Counter[str] = Counter()
"""How often each step ran."""
broken: set[str] = set()
"""Steps that fail for now."""


@step(retry=Retry(attempts=1))
async def work(what: str) -> str:
    if what in broken:
        raise ConnectionError(f"{what} is broken")
    worked[what] += 1
    return what


@step
async def draw() -> str:
    worked["draw"] += 1
    return "x" * 700_000


@workflow
async def waits_long(name: str) -> str:
    await work(f"{name} before")
    stage.set("asked")
    said = await go.receive()
    await work(f"{name} after")
    stage.set(f"told {said}")
    return said


@step(worker="gpu")
async def work_elsewhere(what: str) -> str:
    worked[what] += 1
    return f"{what} elsewhere"


@workflow
async def waits_for_a_worker(what: str) -> str:
    stage.set("asks")
    return await work_elsewhere(what)


@workflow
async def collects_all(count: int) -> list[str]:
    return [await go.receive() for _ in range(count)]


@workflow
async def sleeps_for_long(seconds: float) -> str:
    await work("sleeper before")
    stage.set("asleep")
    await asyncio.sleep(seconds)
    return await work("sleeper after")


@workflow
async def parks_itself() -> str:
    return await work("parked")


@workflow
async def has_one_child(name: str) -> str:
    await work("parent before")
    child = await start_child(waits_long(name), id=f"{name}-child")
    stage.set("started")
    said = await child
    await work("parent after")
    return f"child: {said}"


@workflow
async def adds_up() -> int:
    total = 0

    @add.handle
    async def handle(value: int) -> int:
        nonlocal total
        await work(f"add {value}")
        total += value
        return total

    await go.receive()
    return total


@workflow
async def goes_round(left: int) -> str:
    await work(f"round {left}")
    if left > 1:
        continue_as_new(goes_round(left - 1))
    stage.set("last round")
    return await go.receive()


@workflow
async def draws_lots() -> int:
    picture = await draw()
    stage.set("drawn")
    await go.receive()
    return len(picture)


def die_at(step: str, progress: Progress) -> None:
    """Kill this process when the move has come so far."""
    if progress.step == step:
        os.kill(os.getpid(), signals.SIGKILL)


if __name__ == "__main__":
    move(sys.argv[1], sys.argv[2], progress=lambda progress: die_at(sys.argv[3], progress))
