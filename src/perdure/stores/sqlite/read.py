"""Reads runs, journals and what is kept with them, from the connection that only reads.

A read that meets no large payload is one statement. One that does is done
again in a snapshot, since the blobs must be those of the same commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ...core.records import Message, Record, RunRow
from ..base import AttemptRow, Reply, RunQuery, StateRow
from . import blobs
from .connection import Database, Row
from .starts import RUN_PAYLOADS
from .statements import SQL

_RECORDS = SQL["records"]
_ACTIVE_RUNS = SQL["active_runs"]
_ATTEMPTED = SQL["attempted"]
_ACTIVE_RECORDS = SQL["active_records"]
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

_RECORD_PAYLOADS = (5,)
_MESSAGE_PAYLOADS = (4,)

AnyTuple = TypeVar("AnyTuple", bound=NamedTuple)


class Reader:
    """The reads of a store. May be used from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self, name: str, *bindings: Any) -> list[RunRow]:
        """The runs that the statement `name` finds."""
        return self._tuples(RunRow, SQL[name], bindings, RUN_PAYLOADS)

    def records(self, run: int) -> list[Record]:
        """See `Store.records`."""
        return self._tuples(Record, _RECORDS, (run,), _RECORD_PAYLOADS)

    def active_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """See `Store.active_runs`. Two statements in a snapshot, whatever the number of runs."""
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(_ACTIVE_RUNS, (after, limit)).fetchall()
            if not rows:
                return []
            bounds = (rows[0][0], rows[-1][0])
            records: Any = connection.execute(_ACTIVE_RECORDS, bounds).fetchall()
            url = self._database.url
            if blobs.refer(rows, RUN_PAYLOADS):
                rows = [blobs.whole(connection, row, RUN_PAYLOADS, url=url) for row in rows]
            if blobs.refer(records, _RECORD_PAYLOADS):
                records = [blobs.whole(connection, row, _RECORD_PAYLOADS, url=url) for row in records]
        journals: dict[int, list[Record]] = {row[0]: [] for row in rows}
        for row in records:
            journals[row[-1]].append(Record._make(row))
        return [(RunRow._make(row), journals[row[0]]) for row in rows]

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
        return self._tuples(Message, _MESSAGES, (after, limit), _MESSAGE_PAYLOADS)

    def messages_for(self, run: int) -> list[Message]:
        """See `Store.messages_for`."""
        return self._tuples(Message, _MESSAGES_FOR, (run,), _MESSAGE_PAYLOADS)

    def list_runs(self, query: RunQuery) -> list[RunRow]:
        """See `Store.list_runs`."""
        conditions, bindings = _conditions(query)
        sql = f"{_LIST_RUNS} {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
        return self._tuples(RunRow, sql, (*bindings, query.limit), RUN_PAYLOADS)

    def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]:
        """See `Store.tags_of`."""
        tags: dict[int, dict[str, str]] = {run: {} for run in runs}
        for run, key, value in self._database.query(_TAGS_OF, (json.dumps(list(runs)),)):
            tags[run][key] = value
        return tags

    def states(self, run: int) -> dict[str, StateRow]:
        """See `Store.states`."""
        return {row.name: row for row in self._tuples(StateRow, _STATES, (run,), (3,))}

    def attempts(self, run: int) -> list[AttemptRow]:
        """See `Store.attempts`."""
        return self._tuples(AttemptRow, _ATTEMPTS, (run,), (3, 4))

    def reply(self, request: str) -> Reply | None:
        """See `Store.reply`."""
        for found in self._tuples(Reply, _REPLY, (request,), (2,)):
            return found._replace(ok=bool(found.ok))
        return None

    def counts(self) -> dict[int, int]:
        """See `Store.counts`."""
        rows: Any = self._database.query(_COUNTS)
        return dict(rows)

    def _tuples(
        self, of: type[AnyTuple], sql: str, bindings: Sequence[Any], payloads: Sequence[int]
    ) -> list[AnyTuple]:
        rows: Iterable[Any] = self._database.query(sql, bindings)
        if blobs.refer(rows, payloads):
            with self._database.snapshot() as connection:
                again: list[Row] = connection.execute(sql, bindings).fetchall()
                rows = [blobs.whole(connection, row, payloads, url=self._database.url) for row in again]
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
