"""A worker that is killed while its runs are half way, and the one that goes on after it.

    python -m bench.victim begin /full/path.db 10000    prints `held` when all runs are half way
    python -m bench.victim go-on /full/path.db 10000    prints how long they took to get on

Little is imported: how fast it starts is part of what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time

from perdure import Engine, step, workflow

STEPS = 5
"""Before the run is interrupted, and after."""


class _Life:
    """What this process knows of its runs."""

    def __init__(self) -> None:
        self.holds = False
        self.runs = 0
        self.got_there = asyncio.Event()
        self._seen: set[int] = set()

    def note(self, number: int) -> None:
        """A run has come to the place that this process waits for."""
        if not self._seen:
            print("first", flush=True)
        self._seen.add(number)
        if len(self._seen) == self.runs:
            self.got_there.set()


_life = _Life()


@step
async def work(number: int) -> int:
    return number


@step
async def hold(number: int) -> int:
    """In its first life it never returns."""
    if _life.holds:
        _life.note(number)
        await asyncio.Event().wait()
    return number


@step
async def get_on(number: int) -> int:
    """Begins once the result of `hold` is on disk: the run has got on."""
    _life.note(number)
    return number


@workflow
async def interrupted(number: int) -> int:
    for nth in range(STEPS):
        await work(nth)
    await hold(number)
    await get_on(number)
    for nth in range(STEPS - 2):
        await work(nth)
    return number


async def begin(path: str) -> None:
    """Bring all runs half way, and wait for the end of this process."""
    _life.holds = True
    async with Engine(f"sqlite:///{path}") as engine:
        calls = [interrupted(number) for number in range(_life.runs)]
        await asyncio.gather(*(engine.start(call) for call in calls))
        await _life.got_there.wait()
        print("held", flush=True)
        await asyncio.Event().wait()


async def go_on(path: str) -> None:
    """Open the file that a dead worker left; print the seconds until the last run has got on."""
    began = time.perf_counter()
    async with Engine(f"sqlite:///{path}"):
        await _life.got_there.wait()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    _, verb, path, runs = sys.argv
    _life.runs = int(runs)
    asyncio.run({"begin": begin, "go-on": go_on}[verb](path))
