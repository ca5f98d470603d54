"""How soon 10,000 interrupted runs get on: until the last of them has a new result on disk.

A real worker brings all runs into their sixth step and is killed with `kill -9`.
Measured in the next worker, from before the store is opened: reading, replaying
and beginning the interrupted steps again, until each run has gone past its
step. Each repeat has a copy of the file that the dead worker left.

Limit: `apsw` reads the same runs and records, and makes Python values of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw

from . import killing
from .measure import Figure, Work, timed


def measure(work: Work) -> Iterator[Figure]:
    runs = work.size(10_000, quick=100)
    left = work.fresh_path()
    killing.kill(killing.bring_half_way(left, runs))
    values: list[float] = []
    limits: list[float] = []
    for _ in work.repeats():
        path = _copy(left, work.fresh_path())
        values.append(_recover(path, runs))
        path = _copy(left, work.fresh_path())
        limits.append(timed(lambda path=path: _read(path)))
    yield Figure(
        f"recovery of {runs:,} runs", "s", values, "reading their rows", limits, target=1, stretch=0.3
    )


def _copy(left: Path, path: Path) -> Path:
    for part in left.parent.iterdir():
        shutil.copy(part, path.parent)
    os.sync()
    return path


def _recover(path: Path, runs: int) -> float:
    worker = killing.start("go-on", path, runs)
    assert killing.read_line(worker) == "first"
    seconds = float(killing.read_line(worker))
    worker.communicate()
    return seconds


def _read(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("SELECT * FROM run").fetchall()
    connection.execute("SELECT * FROM record ORDER BY run, seq").fetchall()
    connection.close()
