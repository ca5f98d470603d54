"""The store in one schema of a PostgreSQL database. Read this first; each line says which file does the work.

`place` reads the URL; `likeness` refuses servers that will not do; `connection` holds the
connections, and knows what to do when one breaks; `pipeline` sends statements; `migrating` makes
the tables; `lease` says who may write, and `fence` what looks at that; `claims` who takes what is
free, `jobs` which queued step is whose; `write` writes a batch, with `starts`, `messages` and
`appending`; `borrowing` works on connections of the user's; `read` reads; `streams` keeps event
streams, and `awaiting` which runs wait for which events; `ear` hears of other processes. `moving`
reads and writes whole runs. The SQL is in the
`.sql` files, the tables in `migrations/`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

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
from ..sight import Reading, Sight
from ..statements import load_statements
from ..streams import StreamStore
from .borrowing import Borrowing
from .check import find_wrongs
from .claims import Claims
from .connection import Database
from .ear import Ear
from .gate import Gate
from .jobs import Jobs
from .lagging import LaggingStreams
from .lease import Leases
from .link import Link
from .messages import MessageReader
from .migrating import prepare, schema_number
from .moving import Moves
from .place import find_place
from .read import Reader
from .windows import results_of
from .write import Written, remove_ended, write_batch, write_submission

_STATEMENTS = "\n".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in (
        "statements.sql",
        "jobs.sql",
        "streams.sql",
        "awaiting.sql",
        "schemas.sql",
        "windows.sql",
        "dead.sql",
        "lag.sql",
        "moving.sql",
        "moving_streams.sql",
    )
)


class PostgresStore:
    """A `Store` at `postgresql://user:password@host/database?schema=perdure`.

    Opening makes the schema when there is none, and brings an older one up to date.
    Raises StoreNotOurs, StoreVersionError, StoreReadOnly or StoreUnavailable.
    """

    reads_block = True

    def __init__(
        self, url: str, *, create: bool = True, only_look: bool = False, believes_caller: bool = False
    ) -> None:
        """`create`: make the tables where there are none. `only_look`: write nothing, not even newer ones.

        `believes_caller`, for tests: leases last by the times that are given, not by the server's clock.
        """
        place = find_place(url)
        self.url = self.address = place.url
        sql = load_statements(_STATEMENTS, s=f'"{place.schema}"')
        self._database = Database(place, sql)
        self._ear = Ear(self._database, lambda: self._database.writer_pid)
        try:
            prepare(self._database, create=create, only_look=only_look)
        except BaseException:
            self._database.close()
            raise
        self._gate = Gate(place)
        self._leases = Leases(self._database, self._ear, self._gate, believes_caller=believes_caller)
        self._claims = Claims(self._database, self._leases)
        self._jobs = Jobs(self._database, self._leases)
        self._reader = Reader(self._database, sql)
        self._borrowing = Borrowing(self._database, sql)
        self._messages = MessageReader(self._database)
        self._streams = LaggingStreams(self._database, self._leases, self._gate, self._borrowing)
        self._moves = Moves(self._database, self._leases, self._reader, self._gate)
        self.streams: StreamStore = self._streams
        self._checks = [name for name in sql if name.startswith("check_")]

    def listen(self, heard: Callable[[], None]) -> bool:
        return self._ear.listen(heard)

    def changed(self) -> bool:
        return True

    def clock_offset_ms(self) -> int:
        before = time.time_ns()
        ((server_ms,),) = self._database.rows("server_clock")
        return server_ms - (before + time.time_ns()) // 2_000_000

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
        return self._claims.glance(
            lease, workflows=workflows, after=after, now_ms=now_ms, until_ms=until_ms, reading=reading
        )

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
        fence = self._leases.fence(lease)
        self._streams.prepare([*batch.appends, *results_of(batch.windows)])
        written = self._database.write(
            lambda link: write_batch(link, batch, fence, self._leases, self._streams), tell=_concerns_others
        )
        if (batch.ends or batch.replies) and not written.concerns_others:
            self._ear.tell_soon()
        return written.committed

    def submit(self, batch: Batch) -> Committed:
        self._streams.prepare(batch.appends)
        return self._database.write(
            lambda link: write_submission(link, batch, self._gate, self._streams), tell=_concerns_others
        ).committed

    def start_within(self, connection: Any, new: NewRun) -> StartOutcome | Awaitable[StartOutcome]:
        return self._borrowing.start_within(connection, new)

    def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        if generation is None:
            return self._reader.run("latest_run", run_id)
        return self._reader.run("run_of_generation", run_id, generation)

    def run_by_number(self, number: int) -> RunRow | None:
        return self._reader.run("run_by_number", number)

    def stopped_runs(self, numbers: Sequence[int]) -> dict[int, RunRow | None]:
        return self._reader.stopped_runs(numbers)

    def records(self, run: int) -> list[Record]:
        return self._reader.records(run)

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        return self._reader.load(runs)

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        return self._reader.open_runs(after=after, limit=limit)

    def parked_runs(self, *, after: int, limit: int) -> list[RunRow]:
        return self._reader.runs("parked_runs", after, limit)

    def sleeping_runs(
        self, lease: Lease, *, after: tuple[int, int], until_ms: int, limit: int
    ) -> list[tuple[int, int]]:
        return self._reader.sleeping_runs(lease, after=after, until_ms=until_ms, limit=limit)

    def messages(self, lease: Lease, *, after: int, limit: int) -> MessagePage:
        return self._messages.page(lease, after=after, limit=limit)

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
        return self._reader.runs("children", run)

    def reply(self, request: str) -> Reply | None:
        return self._reader.reply(request)

    def replies(self, requests: Sequence[str]) -> list[Reply]:
        return self._reader.replies(requests)

    def counts(self) -> dict[int, int]:
        return self._reader.counts()

    def remove_ended(self, *, before_ms: int, limit: int) -> int:
        return self._database.write(
            lambda link: remove_ended(link, self._gate, before_ms=before_ms, limit=limit)
        )

    def check(self) -> Iterator[str]:
        return find_wrongs(self._database, self._checks)

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
        return self._database.read(self._versions)

    def _versions(self, link: Link) -> dict[str, str]:
        def setting(name: str) -> str:
            ((value,),) = link.rows("setting", name)
            return value or "unknown"

        ((size,),) = link.rows("size", self._database.place.schema)
        return {
            "postgresql": setting("server_version"),
            "psycopg": psycopg.__version__,
            "schema": str(schema_number(link, self._database)),
            "connection": "through a pooler" if link.is_pooled else "direct",
            "sync": setting("synchronous_commit"),
            "checksums": setting("data_checksums"),
            "size": f"{size:,} bytes",
        }

    def close(self) -> None:
        self._ear.close()
        self._database.close()


def _concerns_others(written: Written) -> bool:
    return written.concerns_others
