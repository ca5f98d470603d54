"""One engine on PostgreSQL: steps a second, one step after another, and what each of them writes.

2,000 runs of 10 steps, all started at once, as in `throughput`; then one run of steps that
follow each other; then an engine that has nothing to do. The server is on this machine.

Limits: rows a second (and bytes of the server's log a row) that one connection puts into
a log with an index (run, seq), as arrays, in commits of 2,000 rows; the commit of one row on
one connection; one row a step; one look a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

from perdure import Engine

from .measure import Figure, Work
from .server import Server, running_server
from .work import one_by_one

STEPS = 10


class _Many(NamedTuple):
    """What many runs at once came to."""

    steps_per_second: float
    log_bytes_per_step: float
    rows_per_step: float


def measure(work: Work) -> Iterator[Figure]:
    with running_server(work) as server:
        yield from _at_once(server, work)
        yield _one_by_one(server, work)
        yield _idle(server, work)


def _at_once(server: Server, work: Work) -> Iterator[Figure]:
    runs = work.size(2_000, quick=50)
    found: list[_Many] = []
    raw: list[tuple[float, float]] = []
    for _ in work.repeats():
        before = server.write_log(runs * STEPS)
        rows = server.rows()
        with server.fresh_url() as url:
            rate, written = asyncio.run(_run_many(server, url, runs))
            found.append(_Many(rate, written, (server.rows() - rows) / (runs * STEPS)))
        after = server.write_log(runs * STEPS)
        raw.append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
    yield Figure(
        "throughput on PostgreSQL", "steps/s", [one.steps_per_second for one in found],
        "rows/s as arrays, in commits of 2,000", [rows for rows, _ in raw], better="more",
    )  # fmt: skip
    yield Figure(
        "written per step on PostgreSQL", "bytes", [one.log_bytes_per_step for one in found],
        "a row of the raw log", [size for _, size in raw],
    )  # fmt: skip
    yield Figure(
        "rows per step on PostgreSQL", "rows", [one.rows_per_step for one in found], "its record",
        [1.0 for _ in found],
    )  # fmt: skip


async def _run_many(server: Server, url: str, runs: int) -> tuple[float, float]:
    """Steps a second, and bytes of the server's log a step."""
    async with Engine(url) as engine:
        await engine.run(one_by_one(STEPS))  # what is made once is made before
        before = server.written_bytes()
        began = time.perf_counter()
        started = await asyncio.gather(*(engine.start(one_by_one(STEPS)) for _ in range(runs)))
        await asyncio.gather(*(run.result() for run in started))
        spent = time.perf_counter() - began
        written = server.written_bytes() - before
    return runs * STEPS / spent, written / (runs * STEPS)


def _one_by_one(server: Server, work: Work) -> Figure:
    steps = work.size(500, quick=20)
    values: list[float] = []
    limits: list[float] = []
    for _ in work.repeats():
        before = server.commit_ms(steps)
        with server.fresh_url() as url:
            values.append(asyncio.run(_milliseconds_per_step(url, steps)))
        limits.append((before + server.commit_ms(steps)) / 2)
    return Figure("sequential step on PostgreSQL", "ms", values, "a commit of one row", limits)


async def _milliseconds_per_step(url: str, steps: int) -> float:
    async with Engine(url) as engine:
        await engine.run(one_by_one(1))
        began = time.perf_counter()
        await engine.run(one_by_one(steps))
        return (time.perf_counter() - began) / steps * 1_000


def _idle(server: Server, work: Work) -> Figure:
    seconds = work.size(30, quick=8)
    # In its first second an engine looks more or less often, as its connections come about.
    opened, later = (_transactions(server, idle_s) for idle_s in (1, 1 + seconds))
    rate = (later - opened) / seconds
    return Figure("idle worker on PostgreSQL", "transactions/s", [rate], "one look a second", [1.0])


def _transactions(server: Server, idle_s: float) -> float:
    """How many there are from before an engine opens until after it has closed."""
    with server.fresh_url() as url:
        before = server.transactions()
        asyncio.run(_stay(url, idle_s))
        return server.transactions() - before


async def _stay(url: str, seconds: float) -> None:
    async with Engine(url):
        await asyncio.sleep(seconds)
