"""What the disk alone can do, in the folder where the peers keep their data.

Measured just before and just after each variant: the speed of an fsync wanders
on a shared machine, and a ratio is worth something only beside its own base.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from pathlib import Path

_CHUNK_SECONDS = 0.1


def measure_commits_per_second(folder: Path, *, seconds: float = 1.0) -> float:
    """Insert one row a commit: WAL, synchronous=FULL, the standard library's sqlite3.

    The median of chunks, so that one stall does not count; checkpoints do.
    """
    # What others left to be written would otherwise be written while we measure.
    os.sync()
    path = folder / "raw.db"
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, payload BLOB)")
        chunks = range(round(seconds / _CHUNK_SECONDS))
        return statistics.median(_commit_for_a_chunk(connection) for _ in chunks)
    finally:
        connection.close()
        path.unlink()


def _commit_for_a_chunk(connection: sqlite3.Connection) -> float:
    """Answer with the commits per second."""
    commits = 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < _CHUNK_SECONDS:
        connection.execute("INSERT INTO row (payload) VALUES (?)", (b"1",))
        commits += 1
    return commits / spent


def measure_fdatasync_ms(folder: Path, *, times: int = 500) -> float:
    """Append 4 KiB to a plain file and sync it; the median."""
    block = b"x" * 4_096
    spent: list[float] = []
    path = folder / "raw.log"
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(times):
                began = time.perf_counter()
                file.write(block)
                os.fdatasync(file.fileno())
                spent.append(time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
    return statistics.median(spent) * 1_000


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`; `?` where that cannot be told."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "?"
    best, kind = "", "?"
    for line in mounts:
        _, point, word, *_ = line.split()
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, word
    return kind
