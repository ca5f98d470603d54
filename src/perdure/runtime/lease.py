"""Keeping the right to write: the lease is taken, renewed in time, and given back.

At a server it is renewed by the worker's next glance; if none comes in time, and into a file
always, by a commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..stores.base import Lease, Store
from .clock import Armed, Clock
from .committer import Committer

LEASE_MS = 15_000
_RENEW_EVERY_MS = LEASE_MS // 3
_GLANCE_MAY_TAKE_MS = 2_000


class LeaseKeeper:
    """Holds the lease of one worker on one store."""

    def __init__(self, store: Store, clock: Clock, worker: str, tags: Sequence[str]) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._tags = tags
        self._lease: Lease | None = None
        self._armed: Armed | None = None
        self._committer: Committer | None = None
        self._is_wanted = False
        """Whether a glance is to renew it."""

    def acquire(self) -> Lease:
        """Take a lease. Raises StoreInUse where the store has as many workers as it can bear."""
        now_ms = self._clock.now_ms()
        self._lease = self._store.acquire(self._worker, now_ms=now_ms, ttl_ms=LEASE_MS, tags=self._tags)
        return self._lease

    def start(self, committer: Committer) -> None:
        """Renew it from now on."""
        self._committer = committer
        self._arm(_RENEW_EVERY_MS)

    def _arm(self, wait_ms: int) -> None:
        self._armed = self._clock.arm(self._clock.now_ms() + wait_ms, self._renew, background=True)

    def _renew(self) -> None:
        assert self._committer is not None
        if self._store.reads_block and not self._is_wanted:
            self._is_wanted = True
            self._arm(_GLANCE_MAY_TAKE_MS)
            return
        self._is_wanted = False
        self._committer.batch.leases = self._clock.now_ms() + LEASE_MS
        self._committer.schedule()
        self._arm(_RENEW_EVERY_MS)

    def wanted_until_ms(self) -> int:
        """Until when a glance is to renew it; 0: not now."""
        return self._clock.now_ms() + LEASE_MS if self._is_wanted else 0

    def was_renewed(self) -> None:
        """A glance has done it."""
        if self._is_wanted:
            self.stop()
            self._arm(_RENEW_EVERY_MS)

    def stop(self) -> None:
        """Renew no more."""
        self._is_wanted = False
        if self._armed is not None:
            self._armed.cancel()

    def release(self) -> None:
        """Give it back, so that the next worker need not wonder."""
        if self._lease is not None:
            self._store.release(self._lease)
