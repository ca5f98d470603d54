"""Moves: the mark in this store, its runs read whole, and runs of another store written whole.

A page is written like a batch: one statement for each kind of row, all sent together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.records import Message, Record
from ..base import AttemptRow, JobRow, MoveCursor, MoveMark, MovePage, Reply, StateRow
from ..moves import first_within, in_use, load_undamaged, not_empty, refuse_other_mark
from ..rows import WholeRun
from . import moving_streams
from .arrays import numbers, payloads, texts
from .connection import Database
from .gate import Gate, found_mark
from .jobs import queue_jobs
from .lease import Leases
from .link import Link
from .read import Reader

_TABLES = ("run", "record", "state", "attempt", "job", "message", "request", "tag", "reply")


class Moves:
    """What a move asks of this store."""

    def __init__(self, database: Database, leases: Leases, reader: Reader, gate: Gate) -> None:
        self._database = database
        self._leases = leases
        self._reader = reader
        self._gate = gate

    def mark(self) -> MoveMark | None:
        """See `Store.move_mark`."""
        rows = self._database.rows("move_mark")
        return MoveMark._make(rows[0]) if rows else None

    def change(self, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        """See `Store.mark_move`."""
        self._database.write(lambda link: self._change(link, before, after, now_ms=now_ms))

    def _change(self, link: Link, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        url = self._database.url
        with link.transaction():
            asked = self._gate.shut(link)
        refuse_other_mark(found_mark(asked), before, url)
        held = self._leases.held(now_ms=now_ms)
        self._leases.end(link, [row for row in held if row.is_dead])
        # One of a dead worker that was stopped in the midst of a commit is ended the next time.
        if link.rows("any_lease")[0][0]:
            alive = [row for row in held if not row.is_dead] or held
            raise in_use([(row.worker, row.process) for row in alive], url)
        was_arriving = before is not None and before.stage == "arriving"
        if after is None and was_arriving:
            for table in _TABLES:
                link.rows(f"remove_all_{table}")
            moving_streams.remove_rows(link)
        will_arrive = after is not None and after.stage == "arriving"
        if will_arrive and not was_arriving and link.rows("any_arrived")[0][0]:
            raise not_empty(url)
        link.rows("free_all_runs")
        link.rows("free_all_jobs")
        moving_streams.free_lanes(link)
        link.rows("remove_move_mark")
        if after is not None:
            link.rows("insert_move_mark", *after)

    # -- reading ---------------------------------------------------------------------------------

    def export_page(self, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
        """See `Store.export_page`."""
        if after.kind:
            return moving_streams.export_page(self._database, after, limit=limit, bytes_max=bytes_max)
        last, found = self._database.snapshot(("last_run",), ("moving_runs", after.run, limit))
        last_number: int = last[0][0]
        if found:
            chosen: list[int] = first_within(found, bytes_max)  # pyright: ignore[reportArgumentType]
            runs, damage = load_undamaged(chosen, self._load)
            return MovePage(runs, [], damage, last_number, MoveCursor(chosen[-1]))
        sizes: Any = self._database.rows("moving_replies", after.request, limit)
        requests: list[str] = first_within(sizes, bytes_max)
        if not requests:
            rows_next = after._replace(kind=1)
            return moving_streams.export_page(self._database, rows_next, limit=limit, bytes_max=bytes_max)
        replies, damage = load_undamaged(requests, self._load_replies)
        return MovePage([], replies, damage, last_number, MoveCursor(after.run, requests[-1]))

    def _load(self, runs: Sequence[int]) -> list[WholeRun]:
        array = numbers(runs)
        loaded = self._reader.load(runs)
        older, states, queued, noted = self._database.snapshot(
            ("older_of", array), ("states_of", array), ("jobs_of", array), ("requests_of", array)
        )
        tags = self._reader.tags_of(runs)
        not_latest = {number for (number,) in older}
        states_of: dict[int, list[StateRow]] = {}
        for row in map(StateRow._make, states):
            states_of.setdefault(row.run, []).append(row)
        jobs: dict[int, list[JobRow]] = {}
        for job in map(JobRow._make, queued):
            jobs.setdefault(job.run, []).append(job)
        requests: dict[int, list[str]] = {}
        for run, request in noted:
            requests.setdefault(run, []).append(request)
        return [
            WholeRun(
                row._replace(lease=0), row.number not in not_latest, sorted(tags[row.number].items()),
                records, attempts, jobs.get(row.number, []), states_of.get(row.number, []), messages,
                requests.get(row.number, []),
            )
            for row, records, attempts, messages in loaded
        ]  # fmt: skip

    def _load_replies(self, requests: Sequence[str]) -> list[Reply]:
        return [Reply._make(row) for row in self._database.rows("replies_of", texts(requests))]

    # -- writing ---------------------------------------------------------------------------------

    def import_page(self, mark: MoveMark, page: MovePage) -> None:
        """See `Store.import_page`."""
        self._database.write(lambda link: self._import(link, mark, page))

    def _import(self, link: Link, mark: MoveMark, page: MovePage) -> None:
        with link.transaction():
            asked = self._gate.ask(link)
        refuse_other_mark(found_mark(asked), mark, self._database.url)
        with link.sending():
            link.run("raise_last_run", page.last_number)
            if page.runs:
                _write_runs(link, page.runs)
            if page.replies:
                requests, oks, contents, times = zip(*page.replies, strict=True)
                link.run("insert_replies", texts(requests), numbers(oks), payloads(contents), numbers(times))
            if page.rows:
                moving_streams.write_rows(link, page)

    def arrived(self) -> MoveCursor:
        """See `Store.arrived`."""
        return moving_streams.arrived(self._database)


def _write_runs(link: Link, runs: Sequence[WholeRun]) -> None:
    _send_runs(link, runs)
    tags = [(run.row.number, key, value) for run in runs for key, value in run.tags]
    if tags:
        owners, keys, values = zip(*tags, strict=True)
        link.run("insert_tags", numbers(owners), texts(keys), texts(values))
    noted = [(run.row.number, request) for run in runs for request in run.requests]
    if noted:
        owners, requests = zip(*noted, strict=True)
        link.run("insert_any_requests", numbers(owners), texts(requests))
    if records := [row for run in runs for row in run.records]:
        _send_records(link, records)
    if attempts := [row for run in runs for row in run.attempts]:
        _send_attempts(link, attempts)
    if jobs := [row for run in runs for row in run.jobs]:
        queue_jobs(link, jobs)
    if states := [row for run in runs for row in run.states]:
        owners, names, versions, contents, times = zip(*states, strict=True)
        link.run(
            "put_states", numbers(owners), texts(names), numbers(versions), payloads(contents), numbers(times)
        )
    if messages := [message for run in runs for message in run.messages]:
        _send_messages(link, messages)


def _send_runs(link: Link, runs: Sequence[WholeRun]) -> None:
    (
        own, ids, generations, workflows, statuses, inputs, outputs, seeds, wakes, crashes, deadlines,
        parents, keys, closes, created, ended, pythons, leases,
    ) = zip(*(run.row for run in runs), strict=True)  # fmt: skip
    link.run(
        "insert_whole_runs", numbers(own), texts(ids), numbers(generations), texts(workflows),
        numbers(statuses), payloads(inputs), payloads(outputs), payloads(seeds), numbers(wakes),
        numbers(crashes), numbers(deadlines), numbers(parents), texts(keys), texts(closes), numbers(created),
        numbers(ended), texts(pythons), numbers(leases), numbers(run.is_latest for run in runs),
    )  # fmt: skip


def _send_records(link: Link, records: Sequence[Record]) -> None:
    places, kinds, keys, digests, times, contents, owners = zip(*records, strict=True)
    link.run(
        "insert_records", numbers(places), numbers(kinds), texts(keys), numbers(digests), numbers(times),
        payloads(contents), numbers(owners),
    )  # fmt: skip


def _send_attempts(link: Link, attempts: Sequence[AttemptRow]) -> None:
    owners, keys, places, failures, details, times = zip(*attempts, strict=True)
    link.run(
        "put_attempts", numbers(owners), texts(keys), numbers(places), payloads(failures), payloads(details),
        numbers(times),
    )  # fmt: skip


def _send_messages(link: Link, messages: Sequence[Message]) -> None:
    _, owners, kinds, names, contents, requests, times = zip(*messages, strict=True)
    link.run(
        "insert_any_messages", numbers(range(1, len(messages) + 1)), numbers(owners), numbers(kinds),
        texts(names), payloads(contents), texts(requests), numbers(times),
    )  # fmt: skip
