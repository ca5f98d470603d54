"""Leases: who may write. A row for each worker, and three things that hold on to it.

- *The fence.* Each commit shares the lock of its lease, and then looks whether the row is
  still held. Who ends a lease has the lock alone: so no commit is under way, and
  none will be. Nothing is written for it, and no worker waits for another.
- *Time.* Leases last by the server's clock; of the times that workers give only the
  difference counts.
- *Presence*, a hint: see `ear`. A worker that is known to be gone is not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from ...errors import StoreError
from ..base import Lease, WorkerRow
from .arrays import texts
from .connection import Database
from .ear import Ear
from .fence import Fence
from .gate import Gate
from .link import Link

_DOUBT_MS: Final = 400
"""How long a worker whose connection is gone has to come back before it is taken for dead."""


class HeldLease(NamedTuple):
    """A lease that is held, and what is known of its worker."""

    number: int
    worker: str
    process: int
    since_ms: int
    until_ms: int
    is_over: bool
    is_absent: bool
    tags: list[str]

    @property
    def is_dead(self) -> bool:
        """Whether its runs may go to others."""
        return self.is_over or self.is_absent


class Leases:
    """Gives, renews, ends and takes back leases on one store."""

    def __init__(self, database: Database, ear: Ear, gate: Gate, *, believes_caller: bool) -> None:
        self._database = database
        self._ear = ear
        self._gate = gate
        self._believes = believes_caller
        self._own = 0
        self._space = database.place.space("the lease")
        self.presence = database.place.space("presence")
        """Where the locks are that show which workers are there."""
        if not believes_caller:
            database.when_blocked = self._break_off_what_is_over

    def fence(self, lease: Lease) -> Fence:
        """What a commit under this lease looks at."""
        return Fence(self._space, lease, self._database.url)

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int, tags: Sequence[str] = ()) -> Lease:
        """Give a new lease; see `Store.acquire`."""

        def work(link: Link) -> int:
            with link.transaction():
                asked = self._gate.ask(link)
                since_ms = self.believed(now_ms)
                given = link.run("insert_lease", since_ms, worker, os.getpid(), ttl_ms, texts(tags))
                link.run("remove_leases")
                link.run("forget_said")
            self._gate.check(asked)
            ((number,),) = given.fetchall()
            return number

        number = self._database.write(work)
        self._own = number
        self._ear.be_present(number)
        return Lease(number, worker)

    def renew(self, link: Link, lease: Lease, *, until_ms: int) -> None:
        """Extend the lease, as part of a transaction that has passed its fence."""
        link.run("renew_lease", until_ms if self._believes else None, lease.number)

    def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still held."""

        def work(link: Link) -> None:
            with link.transaction():
                link.run("lock_lease", self._space, lease.number)
                link.run("release_lease", lease.number)

        self._database.write(work, tell=lambda _: True)
        if lease.number == self._own:
            self._ear.be_present(0)

    def held(self, *, now_ms: int) -> list[HeldLease]:
        """The leases that are held. Where a worker seems to be gone, it is looked twice."""
        bindings = (self.believed(now_ms), self.presence, self._own)
        for doubtful in (False, True):
            rows = [HeldLease._make(row) for row in self._database.rows("held_leases", *bindings)]
            if doubtful or not any(row.is_absent and not row.is_over for row in rows):
                break
            self._database.rows("pause", _DOUBT_MS)
        return rows

    def workers(self, *, now_ms: int) -> list[WorkerRow]:
        """Who is alive; see `Store.workers`."""
        return [WorkerRow(*row[:5], tuple(row.tags)) for row in self.held(now_ms=now_ms) if not row.is_dead]

    def end(self, link: Link, dead: Iterable[HeldLease]) -> list[HeldLease]:
        """End these leases; give those that cannot be now: their workers are in the midst of a commit."""
        busy: list[HeldLease] = []
        for row in dead:
            ((alone,),) = link.rows("try_lock_lease", self._space, row.number)
            if alone:
                link.rows("end_lease", row.number)
            else:
                busy.append(row)
        return busy

    def break_off(self, busy: Iterable[HeldLease]) -> None:
        """Have the commits under these leases broken off, if their time is over: their workers were stopped.

        The leases can be ended the next time. Where this user may not do so, the server
        does it by itself, when it has waited for five seconds.
        """
        for row in busy:
            if row.is_over:
                with suppress(StoreError):
                    self._database.rows("end_lease_users", self._space, row.number)

    def _break_off_what_is_over(self) -> None:
        """Have commits broken off whose workers stand still: this process waits for what they have locked.

        The server itself would not do so where a worker was stopped between two messages of one commit.
        """
        with suppress(StoreError):
            self.break_off(self.held(now_ms=0))

    def believed(self, now_ms: int) -> int | None:
        """The time that a caller gives; None where the server's is asked instead."""
        return now_ms if self._believes else None
