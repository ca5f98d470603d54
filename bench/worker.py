"""Workers for the benchmarks of several processes.

    python -m bench.worker serve URL 0      serves runs; says what happens in a line each
    python -m bench.worker hold URL RUNS    starts runs, and says `held` when all stand in a step

Times are those of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from perdure import Engine, Signal, step, workflow

ping = Signal[int]("ping")
STOP = -1


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class _Life:
    """What a process that is to be killed knows."""

    to_hold = 0
    """How many more runs are to come to their step; 0 in a process that lives."""


@step
async def nothing(number: int) -> int:
    return number


@step
async def hold() -> None:
    """In the process that is to be killed it never returns."""
    if _Life.to_hold:
        _Life.to_hold -= 1
        if not _Life.to_hold:
            _say("held")
        await asyncio.Event().wait()


@step
async def get_on() -> None:
    """Begins once the result of `hold` is on disk."""
    _say("on", time.monotonic_ns())


@step
async def note(sent_ns: int) -> None:
    """Begins once the signal is recorded, and its run knows of it."""
    _say("noted", time.monotonic_ns() - sent_ns)


@workflow
async def one_step(number: int) -> int:
    return await nothing(number)


@workflow
async def held() -> None:
    await hold()


@workflow
async def interrupted() -> None:
    await nothing(0)
    await hold()
    await get_on()


@workflow
async def noting() -> None:
    while (sent_ns := await ping.receive()) != STOP:
        await note(sent_ns)


async def _serve(url: str) -> None:
    async with Engine(url) as engine:
        _say("open")
        await engine.serve()


async def _hold(url: str, runs: int) -> None:
    _Life.to_hold = runs
    async with Engine(url) as engine:
        await asyncio.gather(*(engine.start(held() if runs > 1 else interrupted()) for _ in range(runs)))
        await engine.serve()


@contextmanager
def worker(verb: str, url: str, runs: int = 1) -> Generator[subprocess.Popen[str]]:
    """A worker that has said its first word; killed at the end of the block."""
    command = [sys.executable, "-m", "bench.worker", verb, url, str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        hear(process, "held" if verb == "hold" else "open")
        yield process
    finally:
        process.kill()
        process.communicate()


def hear(process: subprocess.Popen[str], word: str) -> int:
    """The number behind the next line that begins with that word; 0 if there is none."""
    assert process.stdout is not None
    for line in process.stdout:
        first, *rest = line.split()
        if first == word:
            return int(rest[0]) if rest else 0
    raise RuntimeError(f"the worker ended with code {process.wait()} before it said {word!r}")


if __name__ == "__main__":
    _, verb, url, runs = sys.argv
    asyncio.run(_serve(url) if verb == "serve" else _hold(url, int(runs)))
