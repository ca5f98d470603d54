"""What a step costs when its result is 100 bytes, 10 kB or 1 MB of text, steps one by one.

The time of the whole run over its steps. Each text differs, as equal ones are
kept once.

Limit: a commit of one row with the same text, by `apsw`, `synchronous=FULL`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine, step, workflow

from .measure import Figure, Work, beside, commit_ms
from .work import url_of


@step
async def write_text(number: int, size: int) -> str:
    return f"{number:08}".ljust(size, "x")


@workflow
async def write_texts(steps: int, size: int) -> int:
    total = 0
    for number in range(steps):
        total += len(await write_text(number, size))
    return total


def measure(work: Work) -> Iterator[Figure]:
    for name, size, full in (("100 B", 100, 500), ("10 kB", 10_000, 500), ("1 MB", 1_000_000, 40)):
        steps = work.size(full, quick=10)
        pairs = [
            beside(
                lambda size=size, steps=steps: commit_ms(work, times=steps, payload="x" * size),
                lambda size=size, steps=steps: asyncio.run(_ms_per_step(work.fresh_path(), steps, size)),
            )
            for _ in work.repeats()
        ]
        values, limits = zip(*pairs, strict=True)
        yield Figure(f"step with {name}", "ms", values, f"commit of one row of {name}", limits)


async def _ms_per_step(path: Path, steps: int, size: int) -> float:
    async with Engine(url_of(path)) as engine:
        await engine.run(write_texts(1, 1))
        began = time.perf_counter()
        await engine.run(write_texts(steps, size))
        return (time.perf_counter() - began) / steps * 1_000
