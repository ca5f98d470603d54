"""Keeping the right to write: the lease is taken, renewed in time, and given back."""

from __future__ import annotations

from ..stores.base import Lease, Store
from .clock import Armed, Clock
from .committer import Committer

LEASE_MS = 15_000
_RENEW_EVERY_MS = LEASE_MS // 3


class LeaseKeeper:
    """Holds the lease of one worker on one store."""

    def __init__(self, store: Store, clock: Clock, worker: str) -> None:
        self._store = store
        self._clock = clock
        self._worker = worker
        self._lease: Lease | None = None
        self._armed: Armed | None = None
        self._committer: Committer | None = None

    def acquire(self) -> Lease:
        """Take a lease. Raises StoreInUse where the store has as many workers as it can bear."""
        self._lease = self._store.acquire(self._worker, now_ms=self._clock.now_ms(), ttl_ms=LEASE_MS)
        return self._lease

    def start(self, committer: Committer) -> None:
        """Renew it from now on, as part of the commits."""
        self._committer = committer
        self._arm()

    def _arm(self) -> None:
        self._armed = self._clock.arm(self._clock.now_ms() + _RENEW_EVERY_MS, self._renew, background=True)

    def _renew(self) -> None:
        assert self._committer is not None
        self._committer.batch.leases = self._clock.now_ms() + LEASE_MS
        self._committer.schedule()
        self._arm()

    def stop(self) -> None:
        """Renew no more."""
        if self._armed is not None:
            self._armed.cancel()

    def release(self) -> None:
        """Give it back, so that the next worker need not wonder."""
        if self._lease is not None:
            self._store.release(self._lease)
