"""Reads runs, journals and what is kept with them, from the connection that only reads.

A read that meets no large payload is one statement. One that does is done
again in a snapshot, since the blobs must be those of the same commit.

What is read of one run is checked: a row that does not fit its checksum is
refused. Lists are not, so that one damaged run does not hide the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import apsw

from ...core.records import Message, Record, RunRow
from ..base import AttemptRow, Lease, Loaded, MessagePage, Reply, RunQuery, StateRow
from . import blobs
from .checksums import (
    ATTEMPT,
    LENGTH,
    MESSAGE,
    RECORD,
    REPLY,
    RUN_PAYLOADS,
    STATE,
    Table,
    check_journal,
    checked,
    checked_runs,
    stray,
    unchecked_runs,
)
from .claims import free_leases
from .connection import Database, Row
from .statements import SQL

_RECORDS = SQL["records"]
_OPEN = (SQL["open_runs"], SQL["open_records"])
_LOADED = (SQL["loaded_runs"], SQL["loaded_records"])
_LOADED_ATTEMPTS = SQL["loaded_attempts"]
_LOADED_MESSAGES = SQL["loaded_messages"]
_LENGTH = SQL["length"]
_ATTEMPTED = SQL["attempted"]
_SLEEPING_RUNS = SQL["sleeping_runs"]
_MESSAGES = SQL["messages"]
_MESSAGES_FOR = SQL["messages_for"]
_LIST_RUNS = SQL["list_runs"]
_LIST_TAGGED = SQL["list_tagged"]
_TAGS_OF = SQL["tags_of"]
_STATES = SQL["states"]
_STATES_OF = SQL["states_of"]
_ATTEMPTS = SQL["attempts"]
_REPLY = SQL["reply"]
_REPLIES_OF = SQL["replies_of"]
_COUNTS = SQL["counts"]

AnyTuple = TypeVar("AnyTuple", bound=NamedTuple)
OfRun = TypeVar("OfRun", AttemptRow, Message, StateRow)


class Reader:
    """The reads of a store. May be used from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self, name: str, *bindings: Any) -> list[RunRow]:
        """The runs that the statement `name` finds. Raises RunDamaged."""
        return self._runs(SQL[name], bindings, checked_runs)

    def runs_listed(self, name: str, *bindings: Any) -> list[RunRow]:
        """The same, unchecked."""
        return self._runs(SQL[name], bindings, unchecked_runs)

    def stopped_runs(self, runs: Sequence[int]) -> dict[int, RunRow | None]:
        """See `Store.stopped_runs`."""
        numbers = json.dumps(list(runs))
        missing: Any = self._database.query(SQL["missing_runs"], (numbers,))
        found: dict[int, RunRow | None] = {number: None for (number,) in missing}
        found.update((row.number, row) for row in self.runs("stopped_runs", numbers))
        return found

    def records(self, run: int) -> list[Record]:
        """See `Store.records`."""
        url = self._database.url
        with self._database.snapshot() as connection:
            length: Any = connection.execute(_LENGTH, (run,)).get
            found: Any = connection.execute(_RECORDS, (run,)).fetchall()
            rows = self._whole(connection, checked(found, RECORD, url=url), RECORD.payloads)
        check_journal(run, [row[0] for row in rows], length, url=url)
        return [Record._make(row) for row in rows]

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        """See `Store.load`."""
        numbers = json.dumps(list(runs))
        with self._database.snapshot() as connection:
            journals = self._journals(connection, *_LOADED, (numbers,), (numbers,))
            attempts = self._of_runs(connection, AttemptRow, ATTEMPT, _LOADED_ATTEMPTS, numbers)
            messages = self._of_runs(connection, Message, MESSAGE, _LOADED_MESSAGES, numbers)
        return [
            Loaded(row, records, attempts.get(row.number, []), messages.get(row.number, []))
            for row, records in journals
        ]

    def _of_runs(
        self, connection: apsw.Connection, of: type[OfRun], table: Table, sql: str, numbers: str
    ) -> dict[int, list[OfRun]]:
        """The rows of a table, by run."""
        found: Any = connection.execute(sql, (numbers,)).fetchall()
        rows = self._whole(connection, checked(found, table, url=self._database.url), table.payloads)
        grouped: dict[int, list[OfRun]] = {}
        for row in map(of._make, rows):
            grouped.setdefault(row.run, []).append(row)
        return grouped

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """See `Store.open_runs`."""
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(_OPEN[0], (after, limit)).fetchall()
            if not rows:
                return []
            return self._journals(connection, *_OPEN, (after, limit), (rows[0][0], rows[-1][0]))

    def _journals(
        self, connection: apsw.Connection, runs_sql: str, records_sql: str, of_runs: Row, of_records: Row
    ) -> list[tuple[RunRow, list[Record]]]:
        """Two statements in a snapshot, whatever the number of runs."""
        url = self._database.url
        found: Any = connection.execute(runs_sql, of_runs).fetchall()
        records: Any = connection.execute(records_sql, of_records).fetchall()
        lengths = {row[0]: row[LENGTH] for row in found}
        rows = self._whole(connection, checked_runs(found, url=url), RUN_PAYLOADS)
        records = self._whole(connection, checked(records, RECORD, url=url), RECORD.payloads)
        journals: dict[int, list[Record]] = {row[0]: [] for row in rows}
        for row in records:
            if row[-1] not in journals:
                raise stray(row[-1], url=url)
            journals[row[-1]].append(Record._make(row))
        for run, journal in journals.items():
            check_journal(run, [record.seq for record in journal], lengths[run], url=url)
        return [(RunRow._make(row), journals[row[0]]) for row in rows]

    def _whole(
        self, connection: apsw.Connection, rows: Sequence[Row], payloads: Sequence[int]
    ) -> Sequence[Sequence[Any]]:
        if not blobs.refer(rows, payloads):
            return rows
        return [blobs.whole(connection, row, payloads, url=self._database.url) for row in rows]

    def attempted(self, *, after: int, until: int) -> set[int]:
        """See `Store.attempted`."""
        rows: Any = self._database.query(_ATTEMPTED, (after, until))
        return {run for (run,) in rows}

    def sleeping_runs(
        self, lease: Lease, *, after: tuple[int, int], until_ms: int, limit: int
    ) -> list[tuple[int, int]]:
        """See `Store.sleeping_runs`."""
        found: list[Any] = []
        with self._database.snapshot() as connection:
            for number in [lease.number, *free_leases(connection)]:
                found += connection.execute(_SLEEPING_RUNS, (number, *after, until_ms, limit)).fetchall()
        return sorted(found)[:limit]

    def messages(self, lease: Lease, *, after: int, limit: int) -> MessagePage:
        """See `Store.messages`."""
        found: Any = self._database.query(_MESSAGES, (after, limit))
        rows: Any = self._to(lease, found)
        if blobs.refer(rows, MESSAGE.payloads):
            with self._database.snapshot() as connection:
                found = connection.execute(_MESSAGES, (after, limit)).fetchall()
                rows = self._whole(connection, self._to(lease, found), MESSAGE.payloads)
        return MessagePage([Message._make(row) for row in rows], found[-1][1] if found else after)

    def _to(self, lease: Lease, found: Sequence[Row]) -> list[Row]:
        """The messages to the runs of a lease; each row of `found` begins with the lease of its run."""
        ours = [row[1:] for row in found if row[0] == lease.number]
        return checked(ours, MESSAGE, url=self._database.url)

    def messages_for(self, run: int) -> list[Message]:
        """See `Store.messages_for`."""
        return self._tuples(Message, MESSAGE, _MESSAGES_FOR, (run,))

    def list_runs(self, query: RunQuery) -> list[RunRow]:
        """See `Store.list_runs`."""
        conditions, bindings = _conditions(query)
        sql = f"{_LIST_RUNS} {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
        return self._runs(sql, (*bindings, query.limit), unchecked_runs)

    def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]:
        """See `Store.tags_of`."""
        tags: dict[int, dict[str, str]] = {run: {} for run in runs}
        for run, key, value in self._database.query(_TAGS_OF, (json.dumps(list(runs)),)):
            tags[run][key] = value
        return tags

    def states_of(self, numbers: str) -> dict[int, list[StateRow]]:
        """The states of several runs, whose numbers are given as JSON; by run, then name."""
        with self._database.snapshot() as connection:
            return self._of_runs(connection, StateRow, STATE, _STATES_OF, numbers)

    def states(self, run: int) -> dict[str, StateRow]:
        """See `Store.states`."""
        return {row.name: row for row in self._tuples(StateRow, STATE, _STATES, (run,))}

    def attempts(self, run: int) -> list[AttemptRow]:
        """See `Store.attempts`."""
        return self._tuples(AttemptRow, ATTEMPT, _ATTEMPTS, (run,))

    def replies_of(self, requests: str) -> list[Reply]:
        """The replies to several requests, which are given as JSON; sorted."""
        return [row._replace(ok=bool(row.ok)) for row in self._tuples(Reply, REPLY, _REPLIES_OF, (requests,))]

    def reply(self, request: str) -> Reply | None:
        """See `Store.reply`."""
        for found in self._tuples(Reply, REPLY, _REPLY, (request,)):
            return found._replace(ok=bool(found.ok))
        return None

    def counts(self) -> dict[int, int]:
        """See `Store.counts`."""
        rows: Any = self._database.query(_COUNTS)
        return dict(rows)

    def _runs(self, sql: str, bindings: Sequence[Any], check: Callable[..., list[Row]]) -> list[RunRow]:
        return self._read(
            RunRow, sql, bindings, RUN_PAYLOADS, lambda rows: check(rows, url=self._database.url)
        )

    def _tuples(self, of: type[AnyTuple], table: Table, sql: str, bindings: Sequence[Any]) -> list[AnyTuple]:
        url = self._database.url
        return self._read(of, sql, bindings, table.payloads, lambda rows: checked(rows, table, url=url))

    def _read(
        self,
        of: type[AnyTuple],
        sql: str,
        bindings: Sequence[Any],
        payloads: Sequence[int],
        check: Callable[[Sequence[Row]], Sequence[Row]],
    ) -> list[AnyTuple]:
        rows = check(self._database.query(sql, bindings))
        if blobs.refer(rows, payloads):
            with self._database.snapshot() as connection:
                again: list[Row] = connection.execute(sql, bindings).fetchall()
                rows = self._whole(connection, check(again), payloads)
        return [of._make(row) for row in rows]


def _conditions(query: RunQuery) -> tuple[list[str], list[Any]]:
    """The conditions of a query, and what is bound to their marks."""
    conditions: list[str] = ["TRUE"] if query.all_generations else ["latest"]
    bindings: list[Any] = []

    def add(condition: str, *values: Any) -> None:
        conditions.append(condition)
        bindings.extend(values)

    if query.workflow is not None:
        add("workflow = ?", query.workflow)
    if query.statuses:
        add(f"status IN ({', '.join('?' * len(query.statuses))})", *query.statuses)
    if query.created_after_ms is not None:
        add("created_at_ms >= ?", query.created_after_ms)
    if query.created_before_ms is not None:
        add("created_at_ms < ?", query.created_before_ms)
    for key, value in query.tags:
        add(_LIST_TAGGED, key, value)
    if query.id_prefix:
        # Not LIKE: an id may hold its wildcards.
        add("substr(id, 1, ?) = ?", len(query.id_prefix), query.id_prefix)
    if query.parent is not None:
        add("parent = ?", query.parent)
    if query.before is not None:
        add("number < ?", query.before)
    return conditions, bindings
