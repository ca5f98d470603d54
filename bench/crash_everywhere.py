"""How many crash runs `crash_everywhere` makes in a second, of a workflow of ten steps.

Each crash run is a run from its start to its end, with a worker that dies on the
way and another that replays and goes on: the real engine, on a disk in memory.

Limit: the ten steps by themselves, one after another: ten commits of one row to
SQLite in memory, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import apsw

from perdure.testing import crash_everywhere

from .measure import Figure, Work, beside, timed
from .work import one_by_one

STEPS = 10


def measure(work: Work) -> Iterator[Figure]:
    times = work.size(5, quick=1)
    pairs = [
        beside(_ten_commits_a_second, lambda: asyncio.run(_crash_runs_a_second(times)))
        for _ in work.repeats()
    ]
    values, limits = zip(*pairs, strict=True)
    yield Figure(
        "crash runs of ten steps", "/s", values, "ten commits in memory", limits, better="more", target=1_000
    )  # fmt: skip


async def _crash_runs_a_second(times: int) -> float:
    began = time.perf_counter()
    runs = 0
    for _ in range(times):
        runs += (await crash_everywhere(one_by_one(STEPS))).runs
    return runs / (time.perf_counter() - began)


def _ten_commits_a_second() -> float:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE log (run INTEGER, seq INTEGER, key TEXT, payload BLOB)")
    rounds = 500

    def write() -> None:
        for number in range(rounds * STEPS):
            connection.execute("INSERT INTO log VALUES (1, ?, '0/0/nothing', x'31')", (number,))

    return rounds / timed(write)
