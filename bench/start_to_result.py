"""How long a caller waits for a run of one step on an idle engine: from `run` to the result in hand.

Limit: three commits of one row, one after the other, the same percentile. Three
is what the promises cost: the run is on disk before it begins, the step's
result before the run goes on, and the end before anybody is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine

from .measure import Figure, Work, commit_seconds, percentile
from .work import one_by_one, url_of

COMMITS = 3


def measure(work: Work) -> Iterator[Figure]:
    samples = work.size(1_000, quick=20)
    limits: list[list[float]] = []
    values: list[list[float]] = []
    for _ in work.repeats():
        limits.append(_threes(commit_seconds(work, times=COMMITS * samples)))
        values.append(asyncio.run(_waits_ms(work.fresh_path(), samples)))
    for name, part, target in (("p50", 0.50, 1.5), ("p99", 0.99, 10.0)):
        yield Figure(
            f"start to result, {name}", "ms", [percentile(repeat, part) for repeat in values],
            f"three commits, {name}", [percentile(repeat, part) for repeat in limits], target=target,
        )  # fmt: skip


def _threes(commits: list[float]) -> list[float]:
    return [sum(commits[first : first + COMMITS]) * 1_000 for first in range(0, len(commits), COMMITS)]


async def _waits_ms(path: Path, samples: int) -> list[float]:
    waits: list[float] = []
    async with Engine(url_of(path)) as engine:
        await engine.run(one_by_one(1))
        for _ in range(samples):
            began = time.perf_counter()
            await engine.run(one_by_one(1))
            waits.append((time.perf_counter() - began) * 1_000)
    return waits
