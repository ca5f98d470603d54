"""What it costs to wait: 100,000 runs that sleep for a month, and a million of them on file.

- The seconds to start them. Limit: as many rows by `apsw`, in commits of 2,000.
- The memory of each while it stays in memory. Limit: a coroutine asleep in a
  plain asyncio task, which nothing survives.
- The memory of each that has left memory. Limit: a pair of numbers in a list,
  a deadline and whose it is.
- The memory of a worker that started a million, and of a new one that opens
  their file. Limit: a worker on an empty file.

Each in a process of its own; memory is what the kernel counts, after the
allocator gave back what it could.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine

from .measure import Figure, Work, apart, resident_bytes, rows_per_second
from .work import long_sleep, url_of

MONTH_S = 30 * 86_400.0
_AT_ONCE = 5_000
_SETTLE_S = 0.2
_MB = 1_000_000


def measure(work: Work) -> Iterator[Figure]:
    sleepers = work.size(100_000, quick=500)
    seconds: list[float] = []
    limits: list[float] = []
    each: list[float] = []
    each_plain: list[float] = []
    for _ in work.repeats(3):
        limits.append(sleepers / rows_per_second(work, rows=sleepers))
        seconds.append(apart(start_sleepers, work.fresh_path(), sleepers, None)[0])
        _, grown, _ = apart(start_sleepers, work.fresh_path(), sleepers, 2 * sleepers)
        each.append(grown / sleepers)
        each_plain.append(apart(plain_sleepers, sleepers) / sleepers)
    name = f"{sleepers:,} sleepers"
    yield Figure(f"{name} started", "s", seconds, "as many rows", limits, target=3)
    yield Figure(f"{name}, each in memory", "B", each, "asyncio.sleep in a task", each_plain, target=4_000)
    _, grown, _ = apart(start_sleepers, work.fresh_path(), sleepers, 0)
    pair = apart(pairs, sleepers) / sleepers
    yield Figure(
        f"{name}, each evicted", "B", [max(grown, 1) / sleepers], "a pair of numbers", [pair], target=500
    )
    yield from _million(work)


def _million(work: Work) -> Iterator[Figure]:
    sleepers = work.size(1_000_000, quick=1_000)
    path = work.fresh_path()
    _, _, started = apart(start_sleepers, path, sleepers, None)
    reopened = apart(open_and_settle, path)
    empty = apart(open_and_settle, work.fresh_path()) / _MB
    for name, found in ((f"{sleepers:,} on file", started), (f"{sleepers:,} on file, reopened", reopened)):
        yield Figure(name, "MB", [found / _MB], "an empty file", [empty], target=400)


def start_sleepers(path: Path, sleepers: int, kept: int | None) -> tuple[float, int, int]:
    """Answer with the seconds, by how many bytes the process grew, and how large it is."""
    return asyncio.run(_start_sleepers(path, sleepers, kept))


async def _start_sleepers(path: Path, sleepers: int, kept: int | None) -> tuple[float, int, int]:
    engine = Engine(url_of(path)) if kept is None else Engine(url_of(path), residents_kept=kept)
    async with engine:
        await _start(engine, min(1_000, sleepers))
        await asyncio.sleep(_SETTLE_S)
        before = resident_bytes()
        began = time.perf_counter()
        for first in range(0, sleepers, _AT_ONCE):
            await _start(engine, min(_AT_ONCE, sleepers - first))
        spent = time.perf_counter() - began
        await asyncio.sleep(_SETTLE_S)
        after = resident_bytes()
        return spent, after - before, after


async def _start(engine: Engine, sleepers: int) -> None:
    await asyncio.gather(*(engine.start(long_sleep(MONTH_S)) for _ in range(sleepers)))


def open_and_settle(path: Path) -> int:
    """The size of a worker that has opened a store and has nothing to do."""
    return asyncio.run(_open_and_settle(path))


async def _open_and_settle(path: Path) -> int:
    async with Engine(url_of(path)):
        await asyncio.sleep(_SETTLE_S)
        return resident_bytes()


def plain_sleepers(sleepers: int) -> int:
    """By how many bytes a process grows that sleeps in so many plain tasks."""
    return asyncio.run(_plain_sleepers(sleepers))


async def _plain_sleepers(sleepers: int) -> int:
    before = resident_bytes()
    tasks = [asyncio.create_task(asyncio.sleep(MONTH_S)) for _ in range(sleepers)]
    await asyncio.sleep(_SETTLE_S)
    grown = resident_bytes() - before
    for task in tasks:
        task.cancel()
    return grown


def pairs(count: int) -> int:
    """By how many bytes a process grows that keeps so many pairs of numbers."""
    before = resident_bytes()
    kept = [(1_800_000_000_000 + number, 1_000_000 + number) for number in range(count)]
    grown = resident_bytes() - before
    return max(grown, len(kept))
