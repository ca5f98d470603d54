"""How many schedules `explore` plays in a second: six steps at once, which end in 720 orders.

Each schedule is a run from its start to its end, its six steps called, and its
journal replayed and compared.

Limit: such a journal replayed as often, by the core alone. A schedule is at least
two such runs, one played and one replayed, so half of the limit is the most there is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from math import factorial

from perdure.core.ready import Ready
from perdure.testing.explore import explore

from .measure import Figure, Work, beside
from .replay import make_execution, write_journal
from .work import all_at_once


def measure(work: Work) -> Iterator[Figure]:
    steps = work.size(6, quick=3)
    schedules = factorial(steps)
    pairs = [
        beside(
            lambda: asyncio.run(_replay_seconds(steps, times=schedules)),
            lambda: asyncio.run(_explore_seconds(steps, schedules=schedules)),
        )
        for _ in work.repeats()
    ]
    yield Figure(
        "explore", "schedules/s", [schedules / spent for spent, _ in pairs],
        "replays by the core alone", [schedules / spent for _, spent in pairs],
        better="more",
    )  # fmt: skip


async def _explore_seconds(steps: int, *, schedules: int) -> float:
    began = time.perf_counter()
    found = await explore(all_at_once(steps), schedules=schedules)
    spent = time.perf_counter() - began
    if not found.complete:
        raise RuntimeError("there are more orders than steps can have")
    return spent


async def _replay_seconds(steps: int, *, times: int) -> float:
    records = await write_journal(all_at_once, steps)
    data, turn = all_at_once(steps).input(), Ready()
    began = time.perf_counter()
    for _ in range(times):
        execution = make_execution(turn)
        with turn:
            execution.begin(all_at_once.body(data), all_at_once.encode_result)
            execution.replay(records)
    return time.perf_counter() - began
