"""Reads runs, journals and what is kept with them.

The server keeps large values apart and checks its own pages; here it is only seen to
that a journal that is to be replayed has no gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ...core.records import Message, Record, RunRow
from ...errors import RunDamaged
from ..base import AttemptRow, Lease, Loaded, Reply, RunQuery, StateRow
from .arrays import numbers, texts
from .connection import Database
from .pipeline import Row

OfRun = TypeVar("OfRun", Record, AttemptRow, Message)

_LAST_BEFORE_SURROGATES, _FIRST_AFTER, _LAST = 0xD7FF, 0xE000, 0x10FFFF


class Reader:
    """The reads of a store. May be used from any thread."""

    def __init__(self, database: Database, sql: dict[str, str]) -> None:
        self._database = database
        self._list_runs = sql["list_runs"]
        self._list_tagged = sql["list_tagged"]

    def run(self, name: str, *bindings: Any) -> RunRow | None:
        """The run that the statement `name` finds."""
        rows = self._database.rows(name, *bindings)
        return RunRow._make(rows[0]) if rows else None

    def runs(self, name: str, *bindings: Any) -> list[RunRow]:
        """The runs that the statement `name` finds."""
        return [RunRow._make(row) for row in self._database.rows(name, *bindings)]

    def stopped_runs(self, runs: Sequence[int]) -> dict[int, RunRow | None]:
        """See `Store.stopped_runs`."""
        array = numbers(runs)
        stopped, missing = self._database.snapshot(("stopped_runs", array), ("missing_runs", array))
        found: dict[int, RunRow | None] = {number: None for (number,) in missing}
        found.update((row.number, row) for row in map(RunRow._make, stopped))
        return found

    def records(self, run: int) -> list[Record]:
        """See `Store.records`."""
        return [Record._make(row) for row in self._database.rows("records", run)]

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        """See `Store.load`."""
        names = ("loaded_runs", "loaded_records", "loaded_attempts", "loaded_messages")
        array = numbers(runs)
        found, records, attempts, messages = self._database.snapshot(*((name, array) for name in names))
        journals = self._by_run(Record, records)
        tried = self._by_run(AttemptRow, attempts)
        sent = self._by_run(Message, messages)
        return [
            Loaded(row, self._whole(row, journals), tried.get(row.number, []), sent.get(row.number, []))
            for row in map(RunRow._make, found)
        ]

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """See `Store.open_runs`."""
        found, records = self._database.snapshot(("open_runs", after, limit), ("open_records", after, limit))
        journals = self._by_run(Record, records)
        return [(row, self._whole(row, journals)) for row in map(RunRow._make, found)]

    @staticmethod
    def _by_run(of: type[OfRun], rows: Sequence[Row]) -> dict[int, list[OfRun]]:
        grouped: dict[int, list[OfRun]] = {}
        for row in map(of._make, rows):
            grouped.setdefault(row.run, []).append(row)
        return grouped

    def _whole(self, row: RunRow, journals: dict[int, list[Record]]) -> list[Record]:
        journal = journals.get(row.number, [])
        if journal and journal[-1].seq != len(journal) - 1:
            raise RunDamaged(
                f"Run '{row.id}' (number {row.number}) in store '{self._database.url}' has {len(journal)} "
                f"records, but the last has the place {journal[-1].seq}: some are missing.",
                number=row.number,
                hint="It is left alone, and the others go on. `perdure doctor` looks at all of the store.",
            )
        return journal

    def sleeping_runs(
        self, lease: Lease, *, after: tuple[int, int], until_ms: int, limit: int
    ) -> list[tuple[int, int]]:
        """See `Store.sleeping_runs`."""
        rows: Any = self._database.rows("sleeping_runs", lease.number, *after, until_ms, limit)
        return rows

    def messages_for(self, run: int) -> list[Message]:
        """See `Store.messages_for`."""
        return [Message._make(row) for row in self._database.rows("messages_for", run)]

    def list_runs(self, query: RunQuery) -> list[RunRow]:
        """See `Store.list_runs`."""
        conditions, bindings = self._conditions(query)
        bindings.append(query.limit)
        text = f"{self._list_runs} {' AND '.join(conditions)} ORDER BY number DESC LIMIT ${len(bindings)}"
        return [RunRow._make(row) for row in self._database.read(lambda link: link.query(text, *bindings))]

    def _conditions(self, query: RunQuery) -> tuple[list[str], list[Any]]:
        """The conditions of a query, and what is bound to their marks."""
        conditions = ["TRUE"] if query.all_generations else ["latest"]
        bindings: list[Any] = []

        def add(condition: str, *values: Any) -> None:
            places = [f"${len(bindings) + place}" for place in range(1, len(values) + 1)]
            conditions.append(condition.format(*places))
            bindings.extend(values)

        if query.workflow is not None:
            add("workflow = {}", query.workflow)
        if query.statuses:
            # Not bound: only a plan for these very ones can use the small indexes of rare statuses.
            conditions.append(f"status IN ({', '.join(str(int(status)) for status in query.statuses)})")
        if query.created_after_ms is not None:
            add("created_at_ms >= {}", query.created_after_ms)
        if query.created_before_ms is not None:
            add("created_at_ms < {}", query.created_before_ms)
        for key, value in query.tags:
            add(f"number IN ({self._list_tagged} key = {{}} AND value = {{}})", key, value)
        if query.id_prefix:
            add("id >= {}", query.id_prefix)
            above = _first_after(query.id_prefix)
            if above:
                add("id < {}", above)
        if query.parent is not None:
            add("parent = {}", query.parent)
        if query.before is not None:
            add("number < {}", query.before)
        return conditions, bindings

    def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]:
        """See `Store.tags_of`."""
        tags: dict[int, dict[str, str]] = {run: {} for run in runs}
        for run, key, value in self._database.rows("tags_of", numbers(runs)):
            tags[run][key] = value
        return tags

    def states(self, run: int) -> dict[str, StateRow]:
        """See `Store.states`."""
        return {row.name: row for row in map(StateRow._make, self._database.rows("states", run))}

    def attempts(self, run: int) -> list[AttemptRow]:
        """See `Store.attempts`."""
        return [AttemptRow._make(row) for row in self._database.rows("attempts", run)]

    def attempted(self, *, after: int, until: int) -> set[int]:
        """See `Store.attempted`."""
        return {run for (run,) in self._database.rows("attempted", after, until)}

    def reply(self, request: str) -> Reply | None:
        """See `Store.reply`."""
        rows = self._database.rows("reply", request)
        return Reply._make(rows[0]) if rows else None

    def replies(self, requests: Sequence[str]) -> list[Reply]:
        """See `Store.replies`."""
        return [Reply._make(row) for row in self._database.rows("replies_of", texts(requests))]

    def counts(self) -> dict[int, int]:
        """See `Store.counts`."""
        return dict(self._database.rows("counts"))  # pyright: ignore[reportArgumentType]


def _first_after(prefix: str) -> str:
    """The first text, by code points, that comes after all that begin with `prefix`; empty: there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[end])
        if point < _LAST:
            return prefix[:end] + chr(_FIRST_AFTER if point == _LAST_BEFORE_SURROGATES else point + 1)
    return ""
