"""What the benchmarks share: the figure, the limits of disk and interpreter, and how to measure.

A figure is worth something only beside its limit, measured on the same disk in
the same minute: so each value has its own limit, taken just before and after.
Nothing here judges: whether a target was reached is printed, and never asserted.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import apsw

P = ParamSpec("P")
T = TypeVar("T")

ROWS_PER_COMMIT = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, some times over, beside its limit."""

    name: str
    unit: str
    values: Sequence[float]
    """One for each repeat."""
    limit: str
    """What the limit is, in a few words."""
    limits: Sequence[float]
    """In the same unit: one for each value."""
    better: Literal["less", "more"] = "less"
    target: float | None = None
    stretch: float | None = None
    """What would be better than good."""
    target_of: Literal["value", "ratio"] = "value"

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        return min(self.values) if self.better == "less" else max(self.values)

    @property
    def limit_value(self) -> float:
        return statistics.median(self.limits)

    @property
    def ratio(self) -> float:
        """The value beside its limit: of pairs, since what slows one down slows the other too."""
        return statistics.median(value / limit for value, limit in zip(self.values, self.limits, strict=True))

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the target; None when there is none."""
        if self.target is None:
            return None
        found = self.value if self.target_of == "value" else self.ratio
        return found <= self.target if self.better == "less" else found >= self.target


class Work:
    """How much is done, and where the files are."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self._numbers = count()

    def size(self, full: int, *, quick: int) -> int:
        """One of the two. Quick figures only show that the benchmark works."""
        return quick if self.quick else full

    def repeats(self, full: int = 5) -> range:
        """How often to measure."""
        return range(self.size(full, quick=1))

    def fresh_path(self) -> Path:
        """A file that is not there yet, in a folder of its own."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        return folder / "bench.db"


def apart(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a module's function in a new process: its memory and its caches are untouched."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def measure_one(name: str, folder: Path, *, quick: bool) -> list[Figure]:
    """Run one benchmark, in this process."""
    module = importlib.import_module(f"bench.{name}")
    return list(module.measure(Work(folder, quick=quick)))


def beside(limit: Callable[[], float], measure: Callable[[], T]) -> tuple[T, float]:
    """Measure, with the limit before and after; answers with both, the limit as the mean."""
    before = limit()
    found = measure()
    return found, (before + limit()) / 2


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def timed(function: Callable[[], object]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


# -- what the disk can do ------------------------------------------------------------------------


@contextmanager
def _raw_log(path: Path) -> Generator[apsw.Connection]:
    """An empty log of rows like those of a journal, on a disk that has nothing else to write."""
    os.sync()
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE log (pos INTEGER PRIMARY KEY, run INTEGER, seq INTEGER, kind INTEGER, key TEXT, "
            "digest INTEGER, at_ms INTEGER, payload BLOB)"
        )
        yield connection
    finally:
        connection.close()


_INSERT = "INSERT INTO log (run, seq, kind, key, digest, at_ms, payload) VALUES (?, ?, 1, ?, ?, ?, ?)"
_DIGEST = 3_000_000_000
_AT_MS = 1_800_000_000_000


def _row(run: int, seq: int, payload: str) -> tuple[int | str, ...]:
    return (run, seq, f"0/{seq}/nothing", _DIGEST, _AT_MS + seq, payload)


def commit_seconds(work: Work, *, times: int, payload: str = "1") -> list[float]:
    """How long each of so many one-row commits takes: WAL, synchronous=FULL, no index."""
    spent: list[float] = []
    with _raw_log(work.fresh_path()) as connection:
        for seq in range(times):
            began = time.perf_counter()
            connection.execute(_INSERT, _row(1, seq, payload))
            spent.append(time.perf_counter() - began)
    return spent


def commit_ms(work: Work, *, times: int, payload: str = "1") -> float:
    """The mean of so many one-row commits."""
    return statistics.mean(commit_seconds(work, times=times, payload=payload)) * 1_000


def rows_per_second(work: Work, *, rows: int) -> float:
    """How fast rows of a journal go into a log with an index, in commits of 2,000."""
    return rows / timed(lambda: write_log(work.fresh_path(), rows=rows))


def write_log(path: Path, *, rows: int) -> None:
    """Write that many rows of a journal, ten to a run, in commits of 2,000."""
    with _raw_log(path) as connection:
        connection.execute("CREATE UNIQUE INDEX log_run ON log (run, seq)")
        for first in range(0, rows, ROWS_PER_COMMIT):
            numbers = range(first, min(rows, first + ROWS_PER_COMMIT))
            with connection:
                connection.executemany(_INSERT, [_row(n // 10, n % 10, "1") for n in numbers])


def sync_seconds(work: Work, *, times: int) -> list[float]:
    """How long it takes to append 4 KiB to a plain file and sync it."""
    block = b"x" * 4_096
    spent: list[float] = []
    with work.fresh_path().open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - began)
    return spent


# -- what this process uses ----------------------------------------------------------------------


def resident_bytes() -> int:
    """The memory that this process holds, after it has given back what it does not need. Linux only."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def written_bytes() -> int:
    """What this process has written to files since it began. Linux only."""
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, number = line.partition(": ")
        if name == "wchar":
            return int(number)
    raise RuntimeError("/proc/self/io does not say how much was written")
