"""An account of every effect, kept apart from the engine, so that the engine's word need not be taken.

A small SQLite file of its own, written by the standard library's driver from
inside each step, once the step's effect is done. The law: an effect is counted
under its idempotency key, and the totals grow, in *one* transaction; a key that
was counted before is written down as a repeat and the totals stay. The totals
are plain counters, so an effect that was counted twice would show for ever.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    at REAL NOT NULL,
    flights INTEGER NOT NULL,
    counted INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_count_per_key ON entries (key) WHERE counted;
CREATE TABLE IF NOT EXISTS totals (
    step TEXT PRIMARY KEY,
    effects INTEGER NOT NULL,
    flights INTEGER NOT NULL
);
"""
_BUSY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One time that a step did its work."""

    key: str
    run: str
    step: str
    attempt: int
    pid: int
    flights: int
    """How many flights the step handled: what the totals add up."""
    counted: bool
    """False for a repeat: the key had been counted before."""


@dataclass(frozen=True, slots=True)
class Total:
    """What a step's counters say."""

    effects: int
    flights: int


class Ledger:
    """One ledger file. Safe to use from many threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        # A rollback journal, not WAL: many standard libraries carry a SQLite whose WAL can lose commits.
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def count(self, *, key: str, run: str, step: str, attempt: int, flights: int) -> Entry:
        """Count one effect under its key, or write down that it is a repeat.

        After this returns the entry is on disk.
        """
        with self._transaction() as connection:
            known = connection.execute("SELECT 1 FROM entries WHERE key = ? AND counted", (key,)).fetchone()
            entry = Entry(key, run, step, attempt, os.getpid(), flights, counted=known is None)
            connection.execute(
                "INSERT INTO entries (key, run, step, attempt, pid, at, flights, counted)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key, run, step, attempt, entry.pid, time.time(), flights, entry.counted),
            )
            if entry.counted:
                connection.execute(
                    "INSERT INTO totals (step, effects, flights) VALUES (?, 1, ?) ON CONFLICT (step)"
                    " DO UPDATE SET effects = effects + 1, flights = flights + excluded.flights",
                    (step, flights),
                )
        return entry

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read_entries(path: Path) -> list[Entry]:
    """All entries, in the order in which they were written; none when there is no ledger yet."""
    if not path.is_file():
        return []
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        rows = connection.execute(
            "SELECT key, run, step, attempt, pid, flights, counted FROM entries ORDER BY position"
        ).fetchall()
    return [Entry(*row[:6], counted=bool(row[6])) for row in rows]


def read_totals(path: Path) -> dict[str, Total]:
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
        rows = connection.execute("SELECT step, effects, flights FROM totals").fetchall()
    return {step: Total(effects, flights) for step, effects, flights in rows}
