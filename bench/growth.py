"""How many bytes a step adds to the file, and how many are written to the disk for it.

- The file: 100 runs of 50 steps, and of 150; the difference over the steps, so
  that the runs' own rows do not count. Limit: a row of a journal in a log with an
  index, as large as the journal's own.
- Written: one run, steps one by one, all that the process writes to files
  meanwhile, the log of SQLite included. Limit: the same for commits of one row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine

from .measure import Figure, Work, apart, commit_seconds, write_log, written_bytes
from .work import one_by_one, url_of


def measure(work: Work) -> Iterator[Figure]:
    runs, few = work.size(100, quick=10), 50
    many = 3 * few
    steps = runs * (many - few)
    sizes = [_size_with(work.fresh_path(), runs, steps) for steps in (few, many)]
    path = work.fresh_path()
    write_log(path, rows=steps)
    yield Figure(
        "file growth per step", "B", [(sizes[1] - sizes[0]) / steps],
        "a row in a log with an index", [path.stat().st_size / steps],
    )  # fmt: skip
    steps = work.size(1_000, quick=50)
    yield Figure(
        "written per step, one by one", "B", [apart(written_by_steps, work.fresh_path(), steps) / steps],
        "commit of one row", [apart(written_by_commits, work, steps) / steps],
    )  # fmt: skip


def _size_with(path: Path, runs: int, steps: int) -> int:
    asyncio.run(_run(path, runs, steps))
    return path.stat().st_size  # closed: the log has gone into the file


async def _run(path: Path, runs: int, steps: int) -> None:
    async with Engine(url_of(path)) as engine:
        await asyncio.gather(*(engine.run(one_by_one(steps)) for _ in range(runs)))


def written_by_steps(path: Path, steps: int) -> int:
    """The bytes that a run of so many steps writes."""
    return asyncio.run(_written_by_steps(path, steps))


async def _written_by_steps(path: Path, steps: int) -> int:
    async with Engine(url_of(path)) as engine:
        await engine.run(one_by_one(1))
        before = written_bytes()
        await engine.run(one_by_one(steps))
        return written_bytes() - before


def written_by_commits(work: Work, times: int) -> int:
    """The bytes that so many one-row commits write."""
    before = written_bytes()
    commit_seconds(work, times=times)
    return written_bytes() - before
