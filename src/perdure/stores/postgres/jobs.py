"""Jobs: steps that only a worker with a certain tag may run, queued, claimed and taken away.

As with runs, it is looked first, without a transaction that writes, whether there is anything to claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import AttemptRow, ClaimedJob, JobRow, JobStand, Lease
from ..jobs import with_one_suspect
from .arrays import numbers, payloads, texts
from .connection import Database
from .lease import Leases
from .link import Link


def queue_jobs(link: Link, jobs: Sequence[JobRow]) -> None:
    """Send jobs to be queued: those that are not there, and whose outcome does not wait for their run."""
    given = {(job.run, job.key): job for job in jobs}
    runs, keys, tags, steps, sources, digests, arguments, times = zip(*given.values(), strict=True)
    link.run("lock_jobs", numbers(runs), texts(keys))
    link.run(
        "queue_jobs", numbers(runs), texts(keys), texts(tags), texts(steps), texts(sources),
        numbers(digests), payloads(arguments), numbers(times),
    )  # fmt: skip


def withdraw_jobs(link: Link, withdrawn: Sequence[tuple[int, str]]) -> None:
    """Send for jobs to be taken away that nobody waits for."""
    runs, keys = zip(*withdrawn, strict=True)
    link.run("withdraw_jobs", numbers(runs), texts(keys))


class Jobs:
    """Gives jobs to workers, and tells where they are."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases

    def claim(
        self, lease: Lease, *, tags: Sequence[str], steps: Sequence[str], limit: int, suspect: bool
    ) -> list[ClaimedJob]:
        """See `Store.claim_jobs`."""
        asked = texts(tags), texts(steps), int(suspect)
        if not self._database.rows("free_jobs", *asked, 1):
            return []

        def work(link: Link) -> list[ClaimedJob]:
            with link.transaction(self._leases.fence(lease)):
                workers = link.run("tagged_workers", asked[0])
            ((others,),) = workers.fetchall()
            share = -(-len(link.rows("free_jobs", *asked, limit)) // max(1, others))
            found: Any = link.rows("lock_free_jobs", *asked, share)
            return _claim(link, lease, with_one_suspect(found)) if found else []

        return self._database.write(work)

    def held(self, lease: Lease) -> set[tuple[int, str]]:
        """See `Store.held_jobs`."""
        return {(run, key) for run, key in self._database.rows("held_jobs", lease.number)}

    def of_run(self, run: int) -> list[JobStand]:
        """See `Store.jobs`."""
        return [JobStand._make(row) for row in self._database.rows("jobs", run)]

    def waiting(self) -> dict[str, int]:
        """See `Store.waiting_jobs`."""
        return dict(self._database.rows("waiting_jobs"))  # pyright: ignore[reportArgumentType]


def _claim(link: Link, lease: Lease, found: Sequence[tuple[int, str]]) -> list[ClaimedJob]:
    runs, keys = zip(*found, strict=True)
    bindings = numbers(runs), texts(keys)
    with link.sending():
        claimed = link.run("claim_jobs", lease.number, *bindings)
        tried = link.run("attempts_of_jobs", *bindings)
    attempts: dict[tuple[int, str], list[AttemptRow]] = {}
    for row in map(AttemptRow._make, tried.fetchall()):
        attempts.setdefault((row.run, row.key), []).append(row)
    jobs: list[ClaimedJob] = []
    for *columns, crashes, run_id, workflow, seed in claimed.fetchall():
        job = JobRow._make(columns)
        jobs.append(ClaimedJob(job, crashes, run_id, workflow, seed, attempts.get((job.run, job.key), [])))
    return sorted(jobs, key=lambda claimed: (claimed.job.asked_at_ms, claimed.job[:2]))
