"""Claims: how runs that no living worker has in hand come to one.

It is looked first, without a transaction that writes, whether there is anything: a
worker asks every second or so, and there is nothing nearly always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ..base import Lease
from .arrays import numbers, texts
from .connection import Database, Link
from .lease import HeldLease, Leases

_ALL_MESSAGES_EVERY_MS: Final = 1_000
"""How often all waiting messages are looked through, though nothing was sent and no lease ended."""


class _Look(NamedTuple):
    """What a claim is to look for."""

    names: bytes
    """The workflows, as an array."""
    now_ms: int
    after: int
    """Messages above this position."""
    limit: int
    workers: int
    """How many are alive."""


class Claims:
    """Gives free runs to workers."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases
        self._looked: tuple[Any, ...] = ()
        self._looked_at_ms = 0
        self._settled = 0
        """Messages up to this position have been looked at."""

    def claim(self, lease: Lease, *, workflows: Sequence[str], now_ms: int, limit: int) -> list[int]:
        """See `Store.claim`."""
        names = texts(workflows)
        held = self._leases.held(now_ms=now_ms)
        dead = [row for row in held if row.is_dead and row.number != lease.number]
        after = self._look(names, now_ms=now_ms)
        if not dead and after is None:
            return []
        looked = _Look(names, now_ms, 0 if dead or after is None else after, limit, len(held) - len(dead))
        claimed, busy = self._database.write(lambda link: self._claim(link, lease, dead, looked))
        self._leases.break_off(busy)
        return claimed

    def _look(self, names: bytes, *, now_ms: int) -> int | None:
        """Whether there is something to claim: after which position messages are to be looked at, or None."""
        (horizon,), free, due, sent = self._database.snapshot(
            ("horizon",),
            ("free_leases",),
            ("free_due", now_ms, names, 1),
            ("free_with_messages", self._settled, names, 1),
        )
        looked = (free, names)
        after = self._settled
        if looked != self._looked or not 0 <= now_ms - self._looked_at_ms < _ALL_MESSAGES_EVERY_MS:
            self._looked, self._looked_at_ms, after = looked, now_ms, 0
            sent = self._database.rows("free_with_messages", 0, names, 1)
        if due or sent:
            return after
        self._settled = horizon[0]
        return None

    def _claim(
        self, link: Link, lease: Lease, dead: Sequence[HeldLease], looked: _Look
    ) -> tuple[list[int], list[HeldLease]]:
        """The runs that were claimed, and the leases that could not be ended."""
        with link.transaction(self._leases.fence(lease)):
            pass
        busy = self._leases.end(link, dead)
        due = link.rows("free_due", looked.now_ms, looked.names, looked.limit)
        share = -(-len(due) // max(1, looked.workers))
        with link.sending():
            locked = link.run("lock_free_due", looked.now_ms, looked.names, share)
            sent = link.run("free_with_messages", looked.after, looked.names, looked.limit)
        numbers_found = [number for number, *_ in [*locked.fetchall(), *sent.fetchall()]]
        wanted = list(dict.fromkeys(numbers_found))[: looked.limit]
        claimed = (
            {number for (number,) in link.rows("claim", lease.number, numbers(wanted))} if wanted else ()
        )
        return [number for number in wanted if number in claimed], busy

    def claim_these(self, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        """See `Store.claim_these`."""
        dead = [row for row in self._leases.held(now_ms=now_ms) if row.is_dead and row.number != lease.number]

        def work(link: Link) -> tuple[set[int], list[HeldLease]]:
            with link.transaction(self._leases.fence(lease)):
                pass
            busy = self._leases.end(link, dead)
            return {number for (number,) in link.rows("claim", lease.number, numbers(sorted(runs)))}, busy

        claimed, busy = self._database.write(work)
        self._leases.break_off(busy)
        return claimed

    def free_workflows(self, *, now_ms: int) -> list[str]:
        """See `Store.free_workflows`."""
        dead = [row.number for row in self._leases.held(now_ms=now_ms) if row.is_dead]
        return sorted(name for (name,) in self._database.rows("free_workflows", now_ms, numbers(dead)))
