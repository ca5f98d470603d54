"""The lease: who may write. One row, whose epoch is the fence, and a lock file as a hint.

Who takes over raises the epoch, and every commit looks at it in its own
transaction: so a worker that was paused past its lease can write nothing,
whatever the lock or any clock says.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import NamedTuple

import apsw

from ...errors import LeaseLost, StoreInUse
from ..base import Lease, WorkerRow
from .connection import Database
from .lock import WorkerLock
from .statements import SQL

_FENCE = SQL["fence"]
_ROW = SQL["lease_row"]
_TAKE = SQL["take_lease"]
_COUNT_CRASHES = SQL["count_crashes"]
_RENEW = SQL["renew_lease"]
_RELEASE = SQL["release_lease"]


class _LeaseRow(NamedTuple):
    epoch: int
    held: int
    worker: str
    pid: int
    locked: int
    since_ms: int
    until_ms: int


class Leases:
    """Gives, renews and takes back the lease on one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = WorkerLock(f"{database.path}-worker", mode_of=database.path)
        self._epoch = 0

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int) -> Lease:
        """Take the lease; see `Store.acquire`."""
        had_lock = self._lock.is_held
        has_lock = self._lock.try_take()
        try:
            with self._database.transaction() as connection:
                row = _read_row(connection)
                if row.held and not _may_take_over(row, has_lock=has_lock, now_ms=now_ms):
                    raise _in_use(row, self._database.url)
                lease = _take(connection, row, worker, has_lock=has_lock, now_ms=now_ms, ttl_ms=ttl_ms)
        except BaseException as error:
            # A lock that was ours before is kept through a passing failure: the lease may still be ours too.
            if not had_lock or isinstance(error, StoreInUse):
                self._lock.drop()
            raise
        self._epoch = lease.epoch
        return lease

    def worker(self, *, now_ms: int) -> WorkerRow | None:
        """Who holds the lease; see `Store.worker`."""
        row = _LeaseRow._make(self._database.query(_ROW)[0])
        # It had the lock, and now nobody has: it is dead.
        if not row.held or row.until_ms <= now_ms or (row.locked and not self._lock.is_taken()):
            return None
        return WorkerRow(row.worker, row.pid, row.since_ms, row.until_ms)

    def check_fence(self, connection: apsw.Connection, lease: Lease) -> None:
        """Raise LeaseLost unless `lease` still holds, as the transaction of `connection` sees it."""
        if connection.execute(_FENCE, (lease.epoch,)).get is None:
            self._forget(lease)
            raise _lost(_read_row(connection), lease, self._database.url)

    def extend(self, connection: apsw.Connection, lease: Lease, *, until_ms: int) -> None:
        """Extend the lease, whose fence was checked in this transaction."""
        # The lock may have been with a paused holder when we took over, and be free by now.
        locked = int(self._lock.try_take())
        connection.execute(_RENEW, (lease.epoch, until_ms, locked))

    def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        with self._database.transaction() as connection:
            connection.execute(_RELEASE, (lease.epoch,))
        self._forget(lease)

    def close(self) -> None:
        """Let the lock go: from now on this worker counts as dead, unless it has released."""
        self._lock.drop()

    def _forget(self, lease: Lease) -> None:
        # An older lease of this very store must not take the lock from the newer one.
        if lease.epoch == self._epoch:
            self._lock.drop()


def _read_row(connection: apsw.Connection) -> _LeaseRow:
    return _LeaseRow._make(connection.execute(_ROW).fetchall()[0])


def _may_take_over(row: _LeaseRow, *, has_lock: bool, now_ms: int) -> bool:
    """Whether the holder is dead (it had the lock, and now we have it), or its time is over."""
    return (has_lock and bool(row.locked)) or row.until_ms <= now_ms


def _take(
    connection: apsw.Connection, row: _LeaseRow, worker: str, *, has_lock: bool, now_ms: int, ttl_ms: int
) -> Lease:
    bindings = (worker, os.getpid(), int(has_lock), now_ms, now_ms + ttl_ms)
    connection.execute(_TAKE, bindings).fetchall()
    if row.held:
        # What became due after the holder last renewed, it may never have begun.
        connection.execute(_COUNT_CRASHES, (row.until_ms - ttl_ms,))
    return Lease(row.epoch + 1, worker, crashed_before=bool(row.held))


def _in_use(row: _LeaseRow, url: str) -> StoreInUse:
    return StoreInUse(
        f"Store '{url}' is in use by worker '{row.worker}' (process {row.pid}), which holds its lease since "
        f"{_clock_time(row.since_ms)} and until {_clock_time(row.until_ms)} at least.",
        hint="Stop that worker first, or open this store as a client.",
    )


def _lost(row: _LeaseRow, lease: Lease, url: str) -> LeaseLost:
    if row.held:
        why = f"worker '{row.worker}' (process {row.pid}) took over at {_clock_time(row.since_ms)}"
        hint = f"No action is needed: '{row.worker}' goes on with the runs."
    else:
        why = "it was released"
        hint = "Take the lease again before you write."
    return LeaseLost(
        f"Worker '{lease.worker}' no longer holds the lease on store '{url}': {why}. Nothing was written.",
        hint=hint,
    )


def _clock_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(" ", "seconds")
