"""Claims: how runs that no living worker has in hand come to one.

It is looked first, by the connection that only reads, whether there is anything:
a worker asks many times a second, and a transaction that writes would hold up the
others. What is claimed is decided in a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import apsw

from ..base import Lease
from .connection import Database
from .lease import Leases
from .statements import SQL

_ENDED = SQL["ended_leases"]
_DUE = SQL["free_due"]
_WITH_MESSAGES = SQL["free_with_messages"]
_OF_THESE = SQL["free_of_these"]
_WORKFLOWS = SQL["free_workflows"]
_SENT_WORKFLOWS = SQL["sent_workflows"]
_CLAIM = SQL["claim_run"]
_LAST_MESSAGE = SQL["last_message"]

_ALL_MESSAGES_EVERY_MS: Final = 1_000
"""How often all waiting messages are looked through, though nothing was sent and no worker died."""


class Claims:
    """Gives free runs to workers."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases
        self._looked: tuple[Any, ...] = ()
        self._looked_at_ms = 0

    def claim(self, lease: Lease, *, workflows: Sequence[str], now_ms: int, limit: int) -> list[int]:
        """See `Store.claim`."""
        names = json.dumps(list(workflows))
        if not self._is_anything(lease, names, now_ms=now_ms):
            return []
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            self._leases.end_dead(connection, lease, now_ms=now_ms)
            due: list[Any] = []
            for number in free_leases(connection):
                due += connection.execute(_DUE, (number, now_ms, names, limit)).fetchall()
            due.sort()
            sent: Any = connection.execute(_WITH_MESSAGES, (names, limit)).fetchall()
            others = [row for row in self._leases.rows(connection) if row.number != lease.number]
            share = -(-len(due) // (1 + len(others)))
            runs = [*(number for _, number in due[:share]), *(number for (number,) in sent)]
            found = list(dict.fromkeys(runs))[:limit]
            bindings = [(lease.number, number) for number in found]
            claimed: Any = connection.executemany(_CLAIM, bindings).fetchall()
        return [number for (number,) in claimed]

    def claim_these(self, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        """See `Store.claim_these`."""
        with self._database.transaction() as connection:
            self._leases.check_fence(connection, lease)
            self._leases.end_dead(connection, lease, now_ms=now_ms)
            free: Any = connection.execute(_OF_THESE, (json.dumps(list(runs)),)).fetchall()
            connection.executemany(_CLAIM, [(lease.number, number) for (number,) in free]).fetchall()
        return {number for (number,) in free}

    def free_workflows(self, *, now_ms: int) -> list[str]:
        """See `Store.free_workflows`."""
        with self._database.snapshot() as connection:
            dead = [row.number for row in self._leases.dead(self._leases.rows(connection), now_ms=now_ms)]
            found: set[Any] = set()
            for number in (*free_leases(connection), *dead):
                found.update(connection.execute(_WORKFLOWS, (number, now_ms)).fetchall())
            found.update(connection.execute(_SENT_WORKFLOWS, (json.dumps(dead),)).fetchall())
        return sorted(name for (name,) in found)

    def _is_anything(self, lease: Lease, names: str, *, now_ms: int) -> bool:
        """Whether a claim might find something."""
        if self._leases.dead(self._leases.held(), lease, now_ms=now_ms):
            return True
        with self._database.snapshot() as connection:
            free = free_leases(connection)
            if any(connection.execute(_DUE, (number, now_ms, names, 1)).get for number in free):
                return True
            last: Any = connection.execute(_LAST_MESSAGE).get
            looked = (last, free, names)
            if looked == self._looked and 0 <= now_ms - self._looked_at_ms < _ALL_MESSAGES_EVERY_MS:
                return False
            self._looked, self._looked_at_ms = looked, now_ms
            return connection.execute(_WITH_MESSAGES, (names, 1)).get is not None


def free_leases(connection: apsw.Connection) -> list[int]:
    """The leases whose runs are free: that of nobody, and those that have ended."""
    rows: Any = connection.execute(_ENDED)
    return [0, *(number for (number,) in rows)]
