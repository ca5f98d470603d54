"""The store in one SQLite file. Read this first; each line says which file does the work.

`connection` opens the file and passes or refuses it; `lease` says who may
write; `write` writes a batch, with `starts`, `messages` and `blobs`; `read`
reads. The SQL is in `statements.sql`, the tables in `migrations/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from ...core.records import Message, Record, RunRow
from ..base import AttemptRow, Batch, Committed, Lease, Reply, RunQuery, StateRow, WorkerRow
from .check import find_wrongs
from .connection import Database, find_place
from .lease import Leases
from .read import Reader
from .write import remove_ended, write_batch, write_submission


class SqliteStore:
    """A `Store` in the file at a path or URL: `sqlite:///relative.db`, `sqlite:////absolute.db`.

    Opening makes the file when there is none, and brings an older schema up to
    date. Raises StoreNotOurs, StoreVersionError, StoreReadOnly or StoreUnavailable.
    """

    def __init__(
        self, path_or_url: str | os.PathLike[str], *, busy_timeout_ms: int = 5_000, only_look: bool = False
    ) -> None:
        """`busy_timeout_ms` is how long a write waits for one of another process.

        `only_look`: nothing is written, not even a newer schema, which is refused (StoreVersionError).
        """
        place = find_place(path_or_url)
        self._database = Database(place, busy_timeout_ms=busy_timeout_ms, only_look=only_look)
        self.url = self._database.url
        self._leases = Leases(self._database)
        self._reader = Reader(self._database)

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int) -> Lease:
        return self._leases.acquire(worker, now_ms=now_ms, ttl_ms=ttl_ms)

    def renew(self, lease: Lease, *, now_ms: int, ttl_ms: int) -> None:
        self.commit(lease, Batch(leases=now_ms + ttl_ms))

    def release(self, lease: Lease) -> None:
        self._leases.release(lease)

    def worker(self, *, now_ms: int) -> WorkerRow | None:
        return self._leases.worker(now_ms=now_ms)

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            committed = write_batch(connection, batch, url=self.url)
            if batch.leases:
                self._leases.extend(connection, lease, until_ms=batch.leases)
        return committed

    def submit(self, batch: Batch) -> Committed:
        with self._database.transaction() as connection:
            return write_submission(connection, batch, url=self.url)

    def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        if generation is None:
            return _first(self._reader.runs("latest_run", run_id))
        return _first(self._reader.runs("run_of_generation", run_id, generation))

    def run_by_number(self, number: int) -> RunRow | None:
        return _first(self._reader.runs("run_by_number", number))

    def records(self, run: int) -> list[Record]:
        return self._reader.records(run)

    def active_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        return self._reader.active_runs(after=after, limit=limit)

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        return self._reader.open_runs(after=after, limit=limit)

    def parked_runs(self, *, after: int, limit: int) -> list[RunRow]:
        return self._reader.runs_listed("parked_runs", after, limit)

    def sleeping_runs(self, *, after: tuple[int, int], until_ms: int, limit: int) -> list[tuple[int, int]]:
        return self._reader.sleeping_runs(after=after, until_ms=until_ms, limit=limit)

    def messages(self, *, after: int, limit: int) -> list[Message]:
        return self._reader.messages(after=after, limit=limit)

    def messages_for(self, run: int) -> list[Message]:
        return self._reader.messages_for(run)

    def list_runs(self, query: RunQuery) -> list[RunRow]:
        return self._reader.list_runs(query)

    def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]:
        return self._reader.tags_of(runs)

    def states(self, run: int) -> dict[str, StateRow]:
        return self._reader.states(run)

    def attempts(self, run: int) -> list[AttemptRow]:
        return self._reader.attempts(run)

    def attempted(self, *, after: int, until: int) -> set[int]:
        return self._reader.attempted(after=after, until=until)

    def children(self, run: int) -> list[RunRow]:
        return self._reader.runs_listed("children", run)

    def reply(self, request: str) -> Reply | None:
        return self._reader.reply(request)

    def counts(self) -> dict[int, int]:
        return self._reader.counts()

    def remove_ended(self, *, before_ms: int, limit: int) -> int:
        with self._database.transaction() as connection:
            return remove_ended(connection, before_ms=before_ms, limit=limit)

    def check(self) -> Iterator[str]:
        return find_wrongs(self._database)

    def versions(self) -> dict[str, str]:
        return {
            "sqlite": apsw.sqlite_lib_version(),
            "apsw": apsw.apsw_version(),
            "schema": str(self._database.pragma("user_version")),
            "journal mode": str(self._database.pragma("journal_mode")),
            "size": _size(self._database.path),
            "log": _size(f"{self._database.path}-wal"),
        }

    def close(self) -> None:
        self._leases.close()
        self._database.close()


def _size(path: str) -> str:
    try:
        return f"{Path(path).stat().st_size:,} bytes"
    except OSError:  # the log goes when the last connection closes
        return "none"


def _first(runs: list[RunRow]) -> RunRow | None:
    return runs[0] if runs else None
