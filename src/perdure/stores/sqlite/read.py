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
from ...errors import RunDamaged, StoreCorrupt
from ..base import AttemptRow, Reply, RunQuery, StateRow
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
from .connection import Database, Row
from .statements import SQL

_RECORDS = SQL["records"]
_ACTIVE = (SQL["active_runs"], SQL["active_records"])
_OPEN = (SQL["open_runs"], SQL["open_records"])
_LENGTH = SQL["length"]
_NEXT_ACTIVE = SQL["next_active"]
_ATTEMPTED = SQL["attempted"]
_SLEEPING_RUNS = SQL["sleeping_runs"]
_MESSAGES = SQL["messages"]
_MESSAGES_FOR = SQL["messages_for"]
_LIST_RUNS = SQL["list_runs"]
_LIST_TAGGED = SQL["list_tagged"]
_TAGS_OF = SQL["tags_of"]
_STATES = SQL["states"]
_ATTEMPTS = SQL["attempts"]
_REPLY = SQL["reply"]
_COUNTS = SQL["counts"]

AnyTuple = TypeVar("AnyTuple", bound=NamedTuple)


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

    def records(self, run: int) -> list[Record]:
        """See `Store.records`."""
        url = self._database.url
        with self._database.snapshot() as connection:
            length: Any = connection.execute(_LENGTH, (run,)).get
            found: Any = connection.execute(_RECORDS, (run,)).fetchall()
            rows = self._whole(connection, checked(found, RECORD, url=url), RECORD.payloads)
        check_journal(run, [row[0] for row in rows], length, url=url)
        return [Record._make(row) for row in rows]

    def active_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """See `Store.active_runs`."""
        try:
            return self._with_journals(*_ACTIVE, after=after, limit=limit)
        except RunDamaged:
            raise
        except StoreCorrupt as error:
            if limit > 1:
                raise
            number = self._database.query(_NEXT_ACTIVE, (after,))[0][0]
            raise RunDamaged(error.what, number=number, hint=error.hint) from error

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """See `Store.open_runs`."""
        return self._with_journals(*_OPEN, after=after, limit=limit)

    def _with_journals(
        self, runs_sql: str, records_sql: str, *, after: int, limit: int
    ) -> list[tuple[RunRow, list[Record]]]:
        """Two statements in a snapshot, whatever the number of runs."""
        url = self._database.url
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(runs_sql, (after, limit)).fetchall()
            if not rows:
                return []
            bounds = (rows[0][0], rows[-1][0])
            records: Any = connection.execute(records_sql, bounds).fetchall()
            lengths = {row[0]: row[LENGTH] for row in rows}
            rows = self._whole(connection, checked_runs(rows, url=url), RUN_PAYLOADS)
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

    def sleeping_runs(self, *, after: tuple[int, int], until_ms: int, limit: int) -> list[tuple[int, int]]:
        """See `Store.sleeping_runs`."""
        rows: Any = self._database.query(_SLEEPING_RUNS, (*after, until_ms, limit))
        return rows

    def messages(self, *, after: int, limit: int) -> list[Message]:
        """See `Store.messages`."""
        return self._tuples(Message, MESSAGE, _MESSAGES, (after, limit))

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

    def states(self, run: int) -> dict[str, StateRow]:
        """See `Store.states`."""
        return {row.name: row for row in self._tuples(StateRow, STATE, _STATES, (run,))}

    def attempts(self, run: int) -> list[AttemptRow]:
        """See `Store.attempts`."""
        return self._tuples(AttemptRow, ATTEMPT, _ATTEMPTS, (run,))

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
