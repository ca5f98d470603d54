"""How long a run stands still when its worker is killed with `kill -9` and another is alive.

From the kill to the first new result on disk, at the other worker. Then how long a signal takes
from `send` in one process to the step that it lets begin in another.

Limits: a start by a client until its first step is recorded elsewhere (no death has to be noticed for
it); two commits of one row, since the signal is written when it is sent and when it is recorded.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator

from perdure import Client, Run

from .measure import Figure, Work, commit_ms, percentile
from .server import running_server
from .work import url_of
from .worker import STOP, hear, interrupted, noting, ping, worker

_MILLION = 1_000_000


def measure(work: Work) -> Iterator[Figure]:
    times = work.size(500, quick=20)
    with running_server(work) as server, server.fresh_url() as url:
        yield from _measure_store("PostgreSQL", url, work, lambda: server.commit_ms(times))
    url = url_of(work.fresh_path())
    yield from _measure_store("SQLite", url, work, lambda: commit_ms(work, times=times))


def _measure_store(store: str, url: str, work: Work, one_commit: Callable[[], float]) -> Iterator[Figure]:
    with worker("serve", url) as heir:
        starts = asyncio.run(_start_ms(url, heir, work.size(100, quick=3)))
        falls = [_failover_ms(url, heir) for _ in range(work.size(30, quick=3))]
        before = one_commit()
        signals = asyncio.run(_signal_ms(url, heir, work.size(500, quick=5)))
        commits = before + one_commit()  # two, as the mean of what was before and after
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        yield Figure(
            f"failover on {store}, {name}", "ms", [percentile(falls, part)],
            "a start, taken up elsewhere", [percentile(starts, part)],
        )  # fmt: skip
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        yield Figure(
            f"signal to another process on {store}, {name}", "ms", [percentile(signals, part)],
            "2 commits of one row", [commits],
        )  # fmt: skip


async def _start_ms(url: str, heir: subprocess.Popen[str], times: int) -> list[float]:
    """From `start` in this process to a recorded step in another."""
    spent: list[float] = []
    async with Client(url) as client:
        for _ in range(times):
            began = time.monotonic_ns()
            await client.start(interrupted())
            spent.append((await asyncio.to_thread(hear, heir, "on") - began) / _MILLION)
    return spent


def _failover_ms(url: str, heir: subprocess.Popen[str]) -> float:
    """From the death of a worker to the first new result at the other."""
    with worker("hold", url) as victim:
        began = time.monotonic_ns()
        victim.kill()
        return (hear(heir, "on") - began) / _MILLION


async def _signal_ms(url: str, heir: subprocess.Popen[str], times: int) -> list[float]:
    """From `send` in this process to the step in the other; one at a time."""
    spent: list[float] = []
    async with Client(url) as client:
        run: Run[None] = await client.start(noting())
        for _ in range(times):
            await run.send(ping, time.monotonic_ns())
            spent.append(await asyncio.to_thread(hear, heir, "noted") / _MILLION)
        await run.send(ping, STOP)
        await run.result()
    return spent
