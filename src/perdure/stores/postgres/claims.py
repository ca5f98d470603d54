"""Claims: how runs that no living worker has in hand come to one.

It is looked first, without a transaction that writes, whether there is anything: a
worker asks every second or so, and there is nothing nearly always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...core.records import Status
from ..base import Lease
from ..sight import Reading, Sight
from .appending import stream_number
from .arrays import numbers, texts
from .connection import Database
from .lease import HeldLease, Leases
from .link import Link

_ALL_MESSAGES_EVERY_MS: Final = 1_000
"""How often a claim looks through all waiting messages, though nothing was sent and no lease ended."""
_GLANCE_AT_ALL_EVERY_MS: Final = 5_000
"""How often a glance does."""
_NO_MESSAGE: Final = (1 << 63) - 1
"""A position after all."""
_OPEN: Final = int(Status.PARKED)
_ALSO_ENDED: Final = int(max(Status))


_Arrays = tuple[bytes, bytes, bytes, bytes, bytes]


def _as_arrays(reading: Sequence[Reading]) -> _Arrays:
    return (
        numbers(one.subscription for one in reading),
        numbers(stream_number(one.stream) for one in reading),
        numbers(one.after for one in reading),
        numbers(one.subscription for one in reading if not one.is_whole),
        numbers(one.edition for one in reading),
    )


_READING_NOTHING: Final = _as_arrays(())


class _Seen(NamedTuple):
    """What one statement finds."""

    is_held: bool | None
    """Whether the own lease is; None when its row is gone."""
    settled: int
    """Up to this position all messages are there that will ever be."""
    free: str | None
    """The leases that have ended, and have runs."""
    others: int
    """How many other leases are held."""
    is_one_dead: bool
    """Whether one of them seems to be a dead worker's."""
    is_due: bool
    is_sent: bool
    messages: bool
    lanes: bool
    """Whether some that are asked for are free, or more than its share."""
    events: bool
    awaited: bool

    @property
    def runs(self) -> bool:
        """Whether there is something to claim, or a lease to end."""
        return self.is_one_dead or self.is_due or self.is_sent


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
        """See `Store.glance`."""
        self._database.look_after_writer()  # for lost commits, which are noticed without anything to write
        every_ms, names = _GLANCE_AT_ALL_EVERY_MS, texts(workflows)
        seen, _ = self._look(
            lease, names, now_ms=now_ms, every_ms=every_ms, after=after, until_ms=until_ms or None,
            reading=_as_arrays(reading),
        )  # fmt: skip
        if not seen.is_held:
            raise self._leases.fence(lease).lost()
        events = seen.is_one_dead or seen.lanes or seen.events
        return Sight(seen.runs, seen.messages, events, seen.awaited)

    def claim(self, lease: Lease, *, workflows: Sequence[str], now_ms: int, limit: int) -> list[int]:
        """See `Store.claim`."""
        names = texts(workflows)
        seen, after = self._look(lease, names, now_ms=now_ms, every_ms=_ALL_MESSAGES_EVERY_MS)
        if not seen.runs:
            return []
        dead: list[HeldLease] = []
        if seen.is_one_dead:
            held = self._leases.held(now_ms=now_ms)
            dead = [row for row in held if row.is_dead and row.number != lease.number]
            if not (dead or seen.is_due or seen.is_sent):
                return []
        workers = 1 + seen.others - len(dead)
        looked = _Look(names, now_ms, 0 if dead else after, limit, workers)
        claimed, busy = self._database.write(
            lambda link: self._claim(link, lease, dead, looked), tell=lambda done: len(done[1]) < len(dead)
        )
        self._leases.break_off(busy)
        return claimed

    def _look(
        self,
        lease: Lease,
        names: bytes,
        *,
        now_ms: int,
        every_ms: int,
        after: int = _NO_MESSAGE,
        until_ms: int | None = None,
        reading: _Arrays = _READING_NOTHING,
    ) -> tuple[_Seen, int]:
        """What there is, and after which position it was looked for messages to free runs.

        After the last that are known not to matter; or all of them, now and then, and if
        other runs are free, or wanted, than were the last time.
        """
        is_old = not 0 <= now_ms - self._looked_at_ms < every_ms
        settled = 0 if is_old else self._settled
        seen = self._see(
            lease, names, settled, now_ms=now_ms, after=after, until_ms=until_ms, reading=reading
        )
        if settled and (seen.free, names) != self._looked:
            settled, is_old = 0, True
            seen = self._see(lease, names, 0, now_ms=now_ms, after=after, reading=reading)
        if is_old:
            self._looked, self._looked_at_ms = (seen.free, names), now_ms
        if not seen.is_due and not seen.is_sent:
            self._settled = seen.settled
        return seen, settled

    def _see(
        self,
        lease: Lease,
        names: bytes,
        settled: int,
        *,
        now_ms: int,
        after: int,
        reading: _Arrays,
        until_ms: int | None = None,
    ) -> _Seen:
        believed = self._leases.believed
        bindings = (
            now_ms, names, 1, lease.number, self._leases.presence, settled, after, believed(now_ms), *reading,
        )  # fmt: skip
        if until_ms is None:
            rows = self._database.rows("glance", *bindings)
        else:
            rows = self._database.rows("glance_and_renew", *bindings, believed(until_ms))
        return _Seen._make(rows[0])

    def _claim(
        self, link: Link, lease: Lease, dead: Sequence[HeldLease], looked: _Look
    ) -> tuple[list[int], list[HeldLease]]:
        """The runs that were claimed, and the leases that could not be ended.

        If any was, others are told: their share of its runs waits for them.
        """
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
            {number for (number,) in link.rows("claim", lease.number, numbers(wanted), _ALSO_ENDED)}
            if wanted
            else ()
        )
        return [number for number in wanted if number in claimed], busy

    def claim_these(self, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        """See `Store.claim_these`."""
        dead = [row for row in self._leases.held(now_ms=now_ms) if row.is_dead and row.number != lease.number]

        def work(link: Link) -> tuple[set[int], list[HeldLease]]:
            with link.transaction(self._leases.fence(lease)):
                pass
            busy = self._leases.end(link, dead)
            rows = link.rows("claim", lease.number, numbers(sorted(runs)), _OPEN)
            return {number for (number,) in rows}, busy

        claimed, busy = self._database.write(work, tell=lambda done: len(done[1]) < len(dead))
        self._leases.break_off(busy)
        return claimed

    def free_workflows(self, *, now_ms: int) -> list[str]:
        """See `Store.free_workflows`."""
        dead = [row.number for row in self._leases.held(now_ms=now_ms) if row.is_dead]
        return sorted(name for (name,) in self._database.rows("free_workflows", now_ms, numbers(dead)))
