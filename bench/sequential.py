"""What one step costs when nothing else runs: one run of 1,000 steps, one after the other.

Each step waits until the one before is on disk, so each pays a commit of its
own. The time of the whole run, its start and end included, over its steps.

Limit: a commit of one row by `apsw`, WAL, `synchronous=FULL`, on the same disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine

from .measure import Figure, Work, beside, commit_ms
from .work import one_by_one, url_of


def measure(work: Work) -> Iterator[Figure]:
    steps = work.size(1_000, quick=50)
    pairs = [
        beside(
            lambda: commit_ms(work, times=steps),
            lambda: asyncio.run(_ms_per_step(work.fresh_path(), steps)),
        )
        for _ in work.repeats()
    ]
    values, limits = zip(*pairs, strict=True)
    yield Figure(
        "sequential step", "ms", values, "commit of one row", limits,
        target=1.5, stretch=1.15, target_of="ratio",
    )  # fmt: skip


async def _ms_per_step(path: Path, steps: int) -> float:
    async with Engine(url_of(path)) as engine:
        await engine.run(one_by_one(1))
        began = time.perf_counter()
        await engine.run(one_by_one(steps))
        return (time.perf_counter() - began) / steps * 1_000
