"""Moves: the mark in this store, its runs read whole, and runs of another store written whole.

A mark is changed in the transaction that looks whether anybody is alive, and every
other writer looks at the mark in its own: SQLite lets one write after the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import apsw

from ..base import MoveCursor, MoveMark, MovePage, Reply
from ..moves import first_within, in_use, load_undamaged, not_empty, refuse_other_mark
from ..rows import WholeRun
from . import blobs, moving_streams
from .blobs import write_rows
from .checksums import ATTEMPT, JOB, MESSAGE, RECORD, REPLY, RUN_PAYLOADS, STATE, run_checksums
from .connection import Database
from .jobs import Jobs
from .lease import Leases
from .marks import read_mark
from .messages import reserve_numbers
from .read import Reader
from .statements import SQL

_INSERT_MARK = SQL["insert_move_mark"]
_REMOVE_MARK = SQL["remove_move_mark"]
_FREE_ALL = (SQL["free_all_runs"], SQL["free_all_jobs"])
_ANY_ARRIVED = SQL["any_arrived"]
_REMOVALS = tuple(sql for name, sql in SQL.items() if name.startswith("remove_all_"))
_MARK = SQL["move_mark"]
_RUNS = SQL["moving_runs"]
_REPLIES = SQL["moving_replies"]
_OLDER = SQL["older_of"]
_REQUESTS = SQL["requests_of"]
_LAST_RUN = SQL["last_run"]
_RAISE_LAST_RUN = SQL["raise_last_run"]
_INSERT_RUN = SQL["insert_whole_run"]
_INSERT_TAG = SQL["insert_tag"]
_INSERT_RECORD = SQL["insert_record"]
_INSERT_ATTEMPT = SQL["upsert_attempt"]
_INSERT_JOB = SQL["queue_job"]
_INSERT_STATE = SQL["upsert_state"]
_INSERT_MESSAGE = SQL["insert_any_message"]
_INSERT_REQUEST = SQL["insert_any_request"]
_INSERT_REPLY = SQL["insert_reply"]


class Moves:
    """What a move asks of this store."""

    def __init__(self, database: Database, leases: Leases, reader: Reader, jobs: Jobs) -> None:
        self._database = database
        self._leases = leases
        self._reader = reader
        self._jobs = jobs

    def mark(self) -> MoveMark | None:
        """See `Store.move_mark`."""
        rows = self._database.query(_MARK)
        return MoveMark._make(rows[0]) if rows else None

    def change(self, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        """See `Store.mark_move`."""
        url = self._database.url
        with self._database.transaction() as connection:
            refuse_other_mark(read_mark(connection), before, url)
            self._leases.end_dead(connection, None, now_ms=now_ms)
            alive = self._leases.rows(connection)
            if alive:
                raise in_use([(row.worker, row.pid) for row in alive], url)
            was_arriving = before is not None and before.stage == "arriving"
            if after is None and was_arriving:
                for sql in _REMOVALS:
                    connection.execute(sql)
            will_arrive = after is not None and after.stage == "arriving"
            if will_arrive and not was_arriving and connection.execute(_ANY_ARRIVED).get:
                raise not_empty(url)
            if was_arriving and after is not None and after.stage == "arrived":
                moving_streams.give_awaited(connection, url=url)
            for sql in _FREE_ALL:
                connection.execute(sql)
            moving_streams.free_lanes(connection)
            connection.execute(_REMOVE_MARK)
            if after is not None:
                connection.execute(_INSERT_MARK, after)

    # -- reading ---------------------------------------------------------------------------------

    def export_page(self, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
        """See `Store.export_page`."""
        if after.kind:
            return moving_streams.export_page(self._database, after, limit=limit, bytes_max=bytes_max)
        rows: Any = self._database.query(_LAST_RUN)
        last_number: int = rows[0][0]
        found: Any = self._database.query(_RUNS, (after.run, limit))
        if found:
            numbers: list[int] = first_within(found, bytes_max)
            runs, damage = load_undamaged(numbers, self._load)
            return MovePage(runs, [], damage, last_number, MoveCursor(numbers[-1]))
        found = self._database.query(_REPLIES, (after.request, limit))
        requests: list[str] = first_within(found, bytes_max)
        if not requests:
            rows_next = after._replace(kind=1)
            return moving_streams.export_page(self._database, rows_next, limit=limit, bytes_max=bytes_max)
        replies, damage = load_undamaged(requests, self._load_replies)
        return MovePage([], replies, damage, last_number, MoveCursor(after.run, requests[-1]))

    def _load(self, runs: Sequence[int]) -> list[WholeRun]:
        numbers = json.dumps(list(runs))
        loaded = self._reader.load(runs)
        states = self._reader.states_of(numbers)
        jobs = self._jobs.of_runs(numbers)
        tags = self._reader.tags_of(runs)
        older = {number for (number,) in self._database.query(_OLDER, (numbers,))}
        requests: dict[int, list[str]] = {}
        for run, request in self._database.query(_REQUESTS, (numbers,)):
            requests.setdefault(run, []).append(request)
        return [
            WholeRun(
                row._replace(lease=0), row.number not in older, sorted(tags[row.number].items()), records,
                attempts, jobs.get(row.number, []), states.get(row.number, []), messages,
                requests.get(row.number, []),
            )
            for row, records, attempts, messages in loaded
        ]  # fmt: skip

    def _load_replies(self, requests: Sequence[str]) -> list[Reply]:
        return self._reader.replies_of(json.dumps(list(requests)))

    # -- writing ---------------------------------------------------------------------------------

    def import_page(self, mark: MoveMark, page: MovePage) -> None:
        """See `Store.import_page`."""
        with self._database.transaction() as connection:
            refuse_other_mark(read_mark(connection), mark, self._database.url)
            connection.execute(_RAISE_LAST_RUN, (page.last_number,))
            if page.runs:
                _write_runs(connection, page.runs)
            replies = [reply._replace(ok=int(reply.ok)) for reply in page.replies]  # as it is read
            write_rows(connection, _INSERT_REPLY, replies, REPLY.payloads)
            if page.rows:
                moving_streams.write_rows(connection, page, url=self._database.url)

    def arrived(self) -> MoveCursor:
        """See `Store.arrived`."""
        return moving_streams.arrived(self._database)


def _write_runs(connection: apsw.Connection, runs: Sequence[WholeRun]) -> None:
    for run in runs:
        columns: list[Any] = list(run.row)
        for place in RUN_PAYLOADS:
            columns[place] = blobs.put(connection, columns[place])
        length = len(run.records)
        connection.execute(
            _INSERT_RUN, (*columns, int(run.is_latest), length, *run_checksums(tuple(columns)))
        )
    connection.executemany(
        _INSERT_TAG, [(run.row.number, key, value) for run in runs for key, value in run.tags]
    )
    connection.executemany(
        _INSERT_REQUEST, [(run.row.number, request) for run in runs for request in run.requests]
    )
    write_rows(connection, _INSERT_RECORD, [row for run in runs for row in run.records], RECORD.payloads)
    write_rows(connection, _INSERT_ATTEMPT, [row for run in runs for row in run.attempts], ATTEMPT.payloads)
    write_rows(connection, _INSERT_JOB, [row for run in runs for row in run.jobs], JOB.payloads)
    write_rows(connection, _INSERT_STATE, [row for run in runs for row in run.states], STATE.payloads)
    messages = [message for run in runs for message in run.messages]
    if messages:
        positions = count(reserve_numbers(connection, "message", len(messages)))
        placed = [message._replace(pos=pos) for message, pos in zip(messages, positions, strict=False)]
        write_rows(connection, _INSERT_MESSAGE, placed, MESSAGE.payloads)
