"""The store in one SQLite file. Read this first; each line says which file does the work.

`connection` opens the file and passes or refuses it; `lease` says who may
write, `claims` which run is whose, `jobs` which queued step; `write` writes a batch, with `starts`,
`messages` and `blobs`; `borrowing` starts runs on connections of the user's; `read`
reads; `moving` reads and writes whole runs. The SQL is in `statements.sql`,
`jobs.sql` and `moving.sql`, the tables in `migrations/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from ...core.records import Message, NewRun, Record, RunRow
from ..base import (
    AttemptRow,
    Batch,
    ClaimedJob,
    Committed,
    JobStand,
    Lease,
    Loaded,
    MessagePage,
    MoveCursor,
    MoveMark,
    MovePage,
    Reply,
    RunQuery,
    StartOutcome,
    StateRow,
    WorkerRow,
)
from ..moves import refuse_closed
from ..sight import Reading, Sight
from .borrowing import start_within
from .check import find_wrongs
from .claims import Claims
from .connection import Database, find_place
from .jobs import Jobs
from .lagging import LaggingStreams
from .lease import Leases
from .marks import read_mark
from .moving import Moves
from .read import Reader
from .write import remove_ended, write_batch, write_submission


class SqliteStore:
    """A `Store` in the file at a path or URL: `sqlite:///relative.db`, `sqlite:////absolute.db`.

    Opening makes the file when there is none, and brings an older schema up to
    date. Raises StoreNotOurs, StoreVersionError, StoreReadOnly or StoreUnavailable.
    """

    reads_block = False

    def __init__(
        self, path_or_url: str | os.PathLike[str], *, busy_timeout_ms: int = 5_000, only_look: bool = False
    ) -> None:
        """`busy_timeout_ms` is how long a write waits for one of another process.

        `only_look`: nothing is written, not even a newer schema, which is refused (StoreVersionError).
        """
        place = find_place(path_or_url)
        self._database = Database(place, busy_timeout_ms=busy_timeout_ms, only_look=only_look)
        self.url = self._database.url
        self.address = f"sqlite:///{place.path}"
        self._leases = Leases(self._database)
        self._claims = Claims(self._database, self._leases)
        self._reader = Reader(self._database)
        self._jobs = Jobs(self._database, self._leases)
        self._moves = Moves(self._database, self._leases, self._reader, self._jobs)
        self.streams = LaggingStreams(self._database, self._leases)

    def listen(self, heard: Callable[[], None]) -> bool:
        return False

    def changed(self) -> bool:
        return self._database.changed()

    def clock_offset_ms(self) -> int:
        return 0

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int, tags: Sequence[str] = ()) -> Lease:
        return self._leases.acquire(worker, now_ms=now_ms, ttl_ms=ttl_ms, tags=tags)

    def claim(self, lease: Lease, *, workflows: Sequence[str], now_ms: int, limit: int) -> list[int]:
        return self._claims.claim(lease, workflows=workflows, now_ms=now_ms, limit=limit)

    def glance(
        self,
        lease: Lease,
        *,
        workflows: Sequence[str],
        after: int,
        now_ms: int,
        until_ms: int,
        reading: Sequence[Reading] = (),
    ) -> Sight:
        """There may always be something: a file is looked at closer as quickly."""
        if until_ms:
            self.commit(lease, Batch(leases=until_ms))
        return Sight(runs=True, messages=True, events=True)

    def claim_these(self, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        return self._claims.claim_these(lease, runs, now_ms=now_ms)

    def claim_jobs(
        self, lease: Lease, *, tags: Sequence[str], steps: Sequence[str], limit: int, suspect: bool
    ) -> list[ClaimedJob]:
        return self._jobs.claim(lease, tags=tags, steps=steps, limit=limit, suspect=suspect)

    def held_jobs(self, lease: Lease) -> set[tuple[int, str]]:
        return self._jobs.held(lease)

    def jobs(self, run: int) -> list[JobStand]:
        return self._jobs.of_run(run)

    def waiting_jobs(self) -> dict[str, int]:
        return self._jobs.waiting()

    def free_workflows(self, *, now_ms: int) -> list[str]:
        return self._claims.free_workflows(now_ms=now_ms)

    def renew(self, lease: Lease, *, now_ms: int, ttl_ms: int) -> None:
        self.commit(lease, Batch(leases=now_ms + ttl_ms))

    def release(self, lease: Lease) -> None:
        self._leases.release(lease)

    def workers(self, *, now_ms: int) -> list[WorkerRow]:
        return self._leases.workers(now_ms=now_ms)

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            committed = write_batch(connection, batch, lease=lease.number, url=self.url)
            if batch.leases:
                self._leases.extend(connection, lease, until_ms=batch.leases)
        return committed

    def submit(self, batch: Batch) -> Committed:
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self.url)
            return write_submission(connection, batch, url=self.url)

    def start_within(self, connection: Any, new: NewRun) -> StartOutcome:
        path = None if self._database.writes_by(connection) else self._database.path
        return start_within(connection, new, path=path, url=self.url)

    def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        if generation is None:
            return _first(self._reader.runs("latest_run", run_id))
        return _first(self._reader.runs("run_of_generation", run_id, generation))

    def run_by_number(self, number: int) -> RunRow | None:
        return _first(self._reader.runs("run_by_number", number))

    def stopped_runs(self, numbers: Sequence[int]) -> dict[int, RunRow | None]:
        return self._reader.stopped_runs(numbers)

    def records(self, run: int) -> list[Record]:
        return self._reader.records(run)

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        return self._reader.load(runs)

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        return self._reader.open_runs(after=after, limit=limit)

    def parked_runs(self, *, after: int, limit: int) -> list[RunRow]:
        return self._reader.runs_listed("parked_runs", after, limit)

    def sleeping_runs(
        self, lease: Lease, *, after: tuple[int, int], until_ms: int, limit: int
    ) -> list[tuple[int, int]]:
        return self._reader.sleeping_runs(lease, after=after, until_ms=until_ms, limit=limit)

    def messages(self, lease: Lease, *, after: int, limit: int) -> MessagePage:
        return self._reader.messages(lease, after=after, limit=limit)

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

    def replies(self, requests: Sequence[str]) -> list[Reply]:
        return self._reader.replies_of(json.dumps(list(requests)))

    def counts(self) -> dict[int, int]:
        return self._reader.counts()

    def remove_ended(self, *, before_ms: int, limit: int) -> int:
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self.url)
            return remove_ended(connection, before_ms=before_ms, limit=limit)

    def check(self) -> Iterator[str]:
        return find_wrongs(self._database)

    def move_mark(self) -> MoveMark | None:
        return self._moves.mark()

    def mark_move(self, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        self._moves.change(before, after, now_ms=now_ms)

    def export_page(self, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
        return self._moves.export_page(after, limit=limit, bytes_max=bytes_max)

    def import_page(self, mark: MoveMark, page: MovePage) -> None:
        self._moves.import_page(mark, page)

    def arrived(self) -> MoveCursor:
        return self._moves.arrived()

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
