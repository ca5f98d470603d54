"""Jobs: steps that only a worker with a certain tag may run, queued, claimed and taken away.

As with runs, it is looked first whether there is anything to claim, by the connection that only reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import apsw

from ...errors import RunDamaged
from ..base import AttemptRow, ClaimedJob, JobRow, JobStand, Lease
from ..jobs import with_one_suspect
from . import blobs
from .checksums import ATTEMPT, JOB, checked
from .claims import free_leases
from .connection import Database, Row
from .lease import Leases
from .statements import SQL

_QUEUE = SQL["queue_job"]
_REPLACE = SQL["replace_job"]
_KNOWS = SQL["knows_job"]
_WITHDRAW = SQL["withdraw_job"]
_REMOVE = SQL["remove_jobs"]
_FREE = SQL["free_jobs"]
_CLAIM = SQL["claim_job"]
_CLAIMED = SQL["claimed_job"]
_ATTEMPTS = SQL["attempts_of_job"]
_HELD = SQL["held_jobs"]
_TAGGED_WORKERS = SQL["tagged_workers"]
_JOBS = SQL["jobs"]
_WAITING = SQL["waiting_jobs"]
_JOBS_OF = SQL["jobs_of"]


def queue_jobs(connection: apsw.Connection, jobs: Sequence[JobRow]) -> None:
    """Queue those that are not there yet, and whose outcome does not wait for their run either."""
    for job in jobs:
        connection.execute(_REPLACE, (job.run, job.key, job.digest, job.tag))
        known: Any = connection.execute(_KNOWS, (job.run, job.key)).get
        if not known:
            blobs.write_rows(connection, _QUEUE, [job], JOB.payloads)


def withdraw_jobs(connection: apsw.Connection, withdrawn: Sequence[tuple[int, str]]) -> None:
    """Take away jobs that nobody waits for; an empty key stands for all of the run's."""
    for run, key in withdrawn:
        if key:
            connection.execute(_WITHDRAW, (run, key))
        else:
            connection.execute(_REMOVE, (run,))


class Jobs:
    """Gives jobs to workers, and tells where they are."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def claim(
        self, lease: Lease, *, tags: Sequence[str], steps: Sequence[str], limit: int, suspect: bool
    ) -> list[ClaimedJob]:
        """See `Store.claim_jobs`."""
        names = json.dumps(list(steps))
        with self._database.snapshot() as connection:
            if not _find(connection, tags, names, 1, suspect=suspect):
                return []
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            workers: Any = connection.execute(_TAGGED_WORKERS, (json.dumps(list(tags)),)).get
            claimed: list[ClaimedJob] = []
            found = _find(connection, tags, names, limit, suspect=suspect)
            for run, key in with_one_suspect(found)[: -(-len(found) // max(1, workers))]:
                connection.execute(_CLAIM, (lease.number, run, key))
                with suppress(RunDamaged):  # it is out of the way, so that others get their turn
                    claimed.append(self._read(connection, run, key))
        return claimed

    def _read(self, connection: apsw.Connection, run: int, key: str) -> ClaimedJob:
        row: Any = connection.execute(_CLAIMED, (run, key)).fetchall()[0]
        crashes, run_id, workflow, seed, *columns = row
        attempts: Any = connection.execute(_ATTEMPTS, (run, key)).fetchall()
        (job,) = self._whole(connection, checked([tuple(columns)], JOB, url=self._database.url), JOB.payloads)
        rows = self._whole(connection, checked(attempts, ATTEMPT, url=self._database.url), ATTEMPT.payloads)
        return ClaimedJob(
            JobRow._make(job), crashes, run_id, workflow, seed, [AttemptRow._make(row) for row in rows]
        )

    def _whole(
        self, connection: apsw.Connection, rows: Sequence[Row], payloads: Sequence[int]
    ) -> list[Sequence[Any]]:
        return [blobs.whole(connection, row, payloads, url=self._database.url) for row in rows]

    def held(self, lease: Lease) -> set[tuple[int, str]]:
        """See `Store.held_jobs`."""
        rows: Any = self._database.query(_HELD, (lease.number,))
        return {(run, key) for run, key in rows}

    def of_run(self, run: int) -> list[JobStand]:
        """See `Store.jobs`."""
        return [JobStand._make(row) for row in self._database.query(_JOBS, (run,))]

    def waiting(self) -> dict[str, int]:
        """See `Store.waiting_jobs`."""
        rows: Any = self._database.query(_WAITING)
        return dict(rows)

    def of_runs(self, numbers: str) -> dict[int, list[JobRow]]:
        """The jobs of several runs, whose numbers are given as JSON; by run, then key."""
        grouped: dict[int, list[JobRow]] = {}
        with self._database.snapshot() as connection:
            found: Any = connection.execute(_JOBS_OF, (numbers,)).fetchall()
            rows = checked(found, JOB, url=self._database.url)
            for row in map(JobRow._make, self._whole(connection, rows, JOB.payloads)):
                grouped.setdefault(row.run, []).append(row)
        return grouped


def _find(
    connection: apsw.Connection, tags: Sequence[str], names: str, limit: int, *, suspect: bool
) -> list[Any]:
    found: list[Any] = []
    for number in free_leases(connection):
        for tag in tags:
            found += connection.execute(_FREE, (number, tag, names, suspect, limit)).fetchall()
    return sorted(found)[:limit]
