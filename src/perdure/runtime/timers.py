"""When runs must be woken: one heap for those in memory, a cursor for those on disk.

A run's deadline in the heap may be outdated (it got on meanwhile); the driver
looks again when it is called. Runs that left memory are read from the store in
the order of their wake-up, a page at a time, so that a million sleepers cost
nothing until their time comes near.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush

from ..stores.base import Lease
from .clock import Armed, Clock
from .reads import Reads

_log = logging.getLogger("perdure")

# How far ahead sleeping runs are read from the store, and how many at a time.
_HORIZON_MS = 60_000
_PAGE = 5_000
_LEFT_MAX = 1_000
_TRY_AGAIN_MS = 1_000


class Timers:
    """Calls `wake(number, at_ms)` when a run's time has come."""

    def __init__(
        self,
        clock: Clock,
        reads: Reads,
        lease: Lease,
        wake: Callable[[int, int], None],
        *,
        page: int = _PAGE,
    ) -> None:
        """`page`: how many sleeping runs are read at a time."""
        self._clock = clock
        self._page = page
        self._reads = reads
        self._lease = lease
        self._reading = False
        self._stopped = False
        self._wake = wake
        self._heap: list[tuple[int, int]] = []
        self._left = 0
        """How many entries, at most, are of runs that have left memory."""
        self.residents: Container[int] = ()
        """The numbers of the runs in memory; set by the driver."""
        self._armed: Armed | None = None
        self._armed_at_ms: int | None = None
        self._cursor = (0, 0)
        """(wake_at_ms, number) up to which sleeping runs have been read."""
        self._read_until_ms = 0

    def start(self) -> None:
        """Read the first sleepers."""
        self._read_sleepers()

    def set(self, number: int, at_ms: int) -> None:
        """Wake this run at that time. An earlier setting is not taken back."""
        heappush(self._heap, (at_ms, number))
        if self._armed_at_ms is None or at_ms < self._armed_at_ms:
            self._arm(at_ms)

    def set_evicted(self, number: int, at_ms: int) -> None:
        """The same for a run that leaves memory: only kept here if its time is already read."""
        if (at_ms, number) <= self._cursor or at_ms <= self._read_until_ms or self._reading:
            self.set(number, at_ms)
            return
        self._left += 1
        if self._left > _LEFT_MAX and self._left * 2 > len(self._heap):
            # What was set for it while it was in memory would stay for as long as it sleeps.
            residents, until_ms = self.residents, self._read_until_ms
            self._heap[:] = [entry for entry in self._heap if entry[0] <= until_ms or entry[1] in residents]
            heapify(self._heap)
            self._left = 0

    def next_ms(self) -> int | None:
        """When the next run in memory may have to be woken; None when none waits for time."""
        return self._heap[0][0] if self._heap else None

    def _arm(self, at_ms: int) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_at_ms = at_ms
        self._armed = self._clock.arm(at_ms, self._fire, background=True)

    def _fire(self) -> None:
        self._armed = None
        self._armed_at_ms = None
        now_ms = self._clock.now_ms()
        if now_ms >= self._read_until_ms:
            self._read_sleepers()
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            at_ms, number = heappop(heap)
            self._wake(number, at_ms)
        self._arm_next()

    def _read_sleepers(self) -> None:
        """Read those whose time comes next: this worker's, and those that are free."""
        if self._reading:
            return
        self._reading = True
        lease, after, limit = self._lease, self._cursor, self._page
        until_ms = self._clock.now_ms() + _HORIZON_MS
        self._reads.ask(
            lambda store: store.sleeping_runs(lease, after=after, until_ms=until_ms, limit=limit),
            lambda page: self._have_read(page, until_ms),
        )

    def _have_read(self, page: list[tuple[int, int]] | Exception, until_ms: int) -> None:
        self._reading = False
        if self._stopped:
            return
        if isinstance(page, Exception):
            _log.warning("While reading the runs that sleep: %s", page)
            self._read_until_ms = self._clock.now_ms() + _TRY_AGAIN_MS
        else:
            for at_ms, number in page:
                heappush(self._heap, (at_ms, number))
            full = len(page) == self._page
            self._cursor = page[-1] if full else (until_ms, 1 << 62)
            self._read_until_ms = self._cursor[0]
        self._arm_next()

    def _arm_next(self) -> None:
        """Arm for the next run, or to read on."""
        moments = [at_ms for at_ms, _ in self._heap[:1]]
        if not self._reading:
            moments.append(self._read_until_ms)
        if moments and (self._armed_at_ms is None or min(moments) < self._armed_at_ms):
            self._arm(min(moments))

    def stop(self) -> None:
        """Wake nobody any more."""
        self._stopped = True
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._heap.clear()
