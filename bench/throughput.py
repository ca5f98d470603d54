"""How many steps a second go through one engine: 2,000 runs of 10 steps, all started at once.

From the first `start` to the last `result`, on a new file. A step counts when
its result is on disk.

Limit: rows a second that `apsw` puts into a log with an index (run, seq), in
commits of 2,000 rows, `synchronous=FULL`. A run also writes its own row, twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine

from .measure import Figure, Work, beside, rows_per_second
from .work import one_by_one, url_of

STEPS = 10


def measure(work: Work) -> Iterator[Figure]:
    runs = work.size(2_000, quick=50)
    pairs = [
        beside(
            lambda: rows_per_second(work, rows=runs * STEPS),
            lambda: asyncio.run(_steps_per_second(work.fresh_path(), runs)),
        )
        for _ in work.repeats()
    ]
    values, limits = zip(*pairs, strict=True)
    yield Figure(
        "throughput", "steps/s", values, "rows/s in commits of 2,000", limits,
        better="more", target=80_000, stretch=150_000,
    )  # fmt: skip


async def _steps_per_second(path: Path, runs: int) -> float:
    async with Engine(url_of(path)) as engine:
        await engine.run(one_by_one(STEPS))  # what is made once is made before
        began = time.perf_counter()
        started = await asyncio.gather(*(engine.start(one_by_one(STEPS)) for _ in range(runs)))
        await asyncio.gather(*(run.result() for run in started))
        return runs * STEPS / (time.perf_counter() - began)
