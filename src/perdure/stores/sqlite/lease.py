"""Leases: who may write. A row for each worker, whose number is the fence, and a lock file as a hint.

Whoever ends a lease clears `held` in its row, for good, and every commit looks at
its own row in its own transaction: so a worker that was paused past its lease can
write nothing, whatever the lock or any clock says.

Time counts against a lease only while it could have been renewed. Where another program holds
the file nobody can; a worker that was kept from writing itself leaves the others as much
time as a lease lasts before it takes them for dead, unless the lock says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import apsw

from ...errors import LeaseLost, StoreInUse
from ..base import Lease, WorkerRow
from ..moves import refuse_closed
from .connection import Database
from .lock import WorkerLock
from .marks import read_mark
from .messages import reserve_numbers
from .statements import SQL

_FENCE = SQL["fence"]
_HELD = SQL["held_leases"]
_BY_NUMBER = SQL["lease_by_number"]
_INSERT = SQL["insert_lease"]
_END = SQL["end_lease"]
_RENEW = SQL["renew_lease"]
_RELEASE = SQL["release_lease"]
_REMOVE = SQL["remove_leases"]

_SPARED_MS: Final = 15_000
"""How long after a write was kept out by another program no lease is found over by its time."""

WORKERS_MAX: Final = 4
"""How many workers a file can bear: they take turns at writing, so more would not be faster."""


class LeaseRow(NamedTuple):
    """The row of a lease, as far as it is read."""

    number: int
    worker: str
    pid: int
    slot: int
    locked: int
    since_ms: int
    until_ms: int
    tags: str
    """A JSON array."""


class Leases:
    """Gives, renews, ends and takes back leases on one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks = {slot: _lock_of(database.path, slot) for slot in range(1, WORKERS_MAX + 1)}
        self._slot = 0
        """Whose lock is ours."""
        self._number = 0
        self._spared_until_ms = 0

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int, tags: Sequence[str] = ()) -> Lease:
        """Give a new lease; see `Store.acquire`."""
        taken: list[WorkerLock] = []
        try:
            with self._database.transaction() as connection:
                refuse_closed(read_mark(connection), self._database.url)
                slot = self._free_slot(connection, taken, now_ms=now_ms)
                number = reserve_numbers(connection, "lease", 1)
                locked = int(self._locks[slot].is_held)
                given = json.dumps(list(tags))
                connection.execute(
                    _INSERT, (number, worker, os.getpid(), slot, locked, now_ms, ttl_ms, given)
                )
                connection.execute(_REMOVE)
        except BaseException:
            for lock in taken:
                lock.drop()
            raise
        for lock in taken:
            if lock is not self._locks[slot]:
                lock.drop()
        self._slot, self._number = slot, number
        return Lease(number, worker)

    def _free_slot(self, connection: apsw.Connection, taken: list[WorkerLock], *, now_ms: int) -> int:
        """A slot that no living worker has; the lease of a dead one is ended. Raises StoreInUse."""
        held = {row.slot: row for row in self.rows(connection)}
        for slot, lock in self._locks.items():
            had_lock = lock.is_held
            if lock.try_take() and not had_lock:
                taken.append(lock)
            row = held.get(slot)
            if row is None:
                return slot
            if self._is_over(row, now_ms=now_ms) or (
                row.locked and lock.is_held and row.number != self._number
            ):
                connection.execute(_END, (row.number,))
                return slot
        raise _in_use(held.values(), self._database.url)

    def end_dead(self, connection: apsw.Connection, asking: Lease | None, *, now_ms: int) -> None:
        """End the leases of workers that are known to be dead, or whose time is over; not the asker's."""
        for row in self.dead(self.rows(connection), asking, now_ms=now_ms):
            connection.execute(_END, (row.number,))

    def dead(self, rows: Iterable[LeaseRow], asking: Lease | None = None, *, now_ms: int) -> list[LeaseRow]:
        """Those of leases that are held whose workers are dead, or whose time is over; who asks lives."""
        own = 0 if asking is None else asking.number
        return [
            row
            for row in rows
            if row.number != own and (self._is_over(row, now_ms=now_ms) or self._is_dead(row))
        ]

    def _is_over(self, row: LeaseRow, *, now_ms: int) -> bool:
        """Whether its worker did not renew it, although it could have."""
        if self._database.was_locked_out:
            self._database.was_locked_out = False
            self._spared_until_ms = now_ms + _SPARED_MS
        return row.until_ms <= now_ms and self._spared_until_ms <= now_ms

    @staticmethod
    def rows(connection: apsw.Connection) -> list[LeaseRow]:
        """The leases that are held, as the transaction of `connection` sees them."""
        return [LeaseRow._make(row) for row in connection.execute(_HELD).fetchall()]

    def held(self) -> list[LeaseRow]:
        """The leases that are held, as the last commit has them."""
        return [LeaseRow._make(row) for row in self._database.query(_HELD)]

    def workers(self, *, now_ms: int) -> list[WorkerRow]:
        """Who is alive; see `Store.workers`."""
        held = self.held()
        dead = self.dead(held, now_ms=now_ms)
        return [
            WorkerRow(
                row.number, row.worker, row.pid, row.since_ms, row.until_ms, tuple(json.loads(row.tags))
            )
            for row in held
            if row not in dead
        ]

    def _is_dead(self, row: LeaseRow) -> bool:
        """Whether its worker had the lock, and now nobody has, or another worker of this process."""
        return row.number != self._number and bool(row.locked) and not self._locks[row.slot].is_taken()

    def check_fence(self, connection: apsw.Connection, lease: Lease) -> None:
        """Raise LeaseLost unless `lease` is held, as the transaction of `connection` sees it."""
        if connection.execute(_FENCE, (lease.number,)).get is None:
            self._forget(lease)
            raise self._lost(connection, lease)

    def extend(self, connection: apsw.Connection, lease: Lease, *, until_ms: int) -> None:
        """Extend the lease, whose fence was checked in this transaction."""
        # The lock may have been with a paused holder when we came, and be free by now.
        locked = int(lease.number == self._number and self._locks[self._slot].try_take())
        connection.execute(_RENEW, (lease.number, until_ms, locked))

    def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        with self._database.transaction() as connection:
            connection.execute(_RELEASE, (lease.number,))
        self._forget(lease)

    def close(self) -> None:
        """Let the lock go: from now on this worker counts as dead, unless it has released."""
        for lock in self._locks.values():
            lock.drop()

    def _forget(self, lease: Lease) -> None:
        # An older lease of this very store must not take the lock from the newer one.
        if lease.number == self._number:
            self.close()

    def _lost(self, connection: apsw.Connection, lease: Lease) -> LeaseLost:
        rows = [LeaseRow._make(row) for row in connection.execute(_BY_NUMBER, (lease.number,)).fetchall()]
        since = f", which it held since {_clock_time(rows[0].since_ms)}" if rows else ""
        return LeaseLost(
            f"Worker '{lease.worker}' no longer holds its lease on store '{self._database.url}'{since}: it "
            "was released, or another worker found it over. Nothing was written.",
            hint="Other workers go on with its runs. Open the store again to take part.",
        )


def _lock_of(path: str, slot: int) -> WorkerLock:
    return WorkerLock(f"{path}-worker{'' if slot == 1 else f'-{slot}'}", mode_of=path)


def _in_use(rows: Iterable[LeaseRow], url: str) -> StoreInUse:
    workers = ", ".join(f"'{row.worker}' (process {row.pid})" for row in rows)
    until = min(row.until_ms for row in rows)
    return StoreInUse(
        f"Store '{url}' has {WORKERS_MAX} workers already, which is all that a file can bear: {workers}. The "
        f"first of their leases lasts until {_clock_time(until)} at least.",
        hint="Stop one of them first, or open this store as a client; PostgreSQL takes any number.",
    )


def _clock_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(" ", "seconds")
