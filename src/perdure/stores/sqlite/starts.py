"""Starts runs: who gets an id, and what becomes of a start whose id is taken.

Starts of new ids, nearly all, are written in one sweep; the others are looked at
one by one, by the rule that is the same in every store (`stores/starts.py`).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import apsw

from ...core.records import Message, MessageKind, NewRun, RunRow, Status
from ..base import StartOutcome
from ..starts import decide_start
from . import blobs
from .checksums import RUN_PAYLOADS, checked_runs, checksum
from .connection import Row
from .messages import hand_on, reserve_numbers, send_messages
from .statements import SQL

_INSERT_FIRST = SQL["insert_first_run"]
_INSERT_NEXT = SQL["insert_next_run"]
_INSERT_TAG = SQL["insert_tag"]
_BETWEEN = SQL["runs_between"]
_MARK_OLDER = SQL["mark_older"]
_LATEST = SQL["latest_run"]
_OF_GENERATION = SQL["run_of_generation"]


def write_starts(
    connection: apsw.Connection, starts: Sequence[NewRun], *, lease: int, url: str
) -> list[StartOutcome]:
    """Start each as a run of that lease, or say what has its id; in order."""
    first = reserve_numbers(connection, "run", len(starts))
    written = _insert_first(connection, starts, first=first, lease=lease)
    outcomes = [
        StartOutcome("started", _row(start, number, generation=1, lease=lease))
        if number in written
        else _start_one(connection, start, number, lease=lease, url=url)
        for number, start in enumerate(starts, first)
    ]
    tags = [
        (outcome.run.number, key, value)
        for start, outcome in zip(starts, outcomes, strict=True)
        if start.tags and outcome.verdict == "started"
        for key, value in start.tags
    ]
    if tags:
        connection.executemany(_INSERT_TAG, tags)
    for start, outcome in zip(starts, outcomes, strict=True):
        if start.messages and outcome.verdict == "started":
            number = outcome.run.number
            hand_on(connection, [message._replace(run=number) for message in start.messages])
    return outcomes


def _insert_first(
    connection: apsw.Connection, starts: Sequence[NewRun], *, first: int, lease: int
) -> Container[int]:
    """Write those whose id is new; give the numbers of these."""
    if any(len(start.input) > blobs.INLINE_BYTES_MAX for start in starts):
        return ()
    before = connection.total_changes()
    begun = [_columns(start, number, start.input, generation=1) for number, start in enumerate(starts, first)]
    # The statement has the generation itself.
    rows = [(*columns[:-1], checksum(columns), lease) for columns in begun]
    connection.executemany(_INSERT_FIRST, rows)
    numbers = range(first, first + len(starts))
    if connection.total_changes() - before == len(starts):
        return numbers
    found: Any = connection.execute(_BETWEEN, (numbers[0], numbers[-1]))
    return {number for (number,) in found}


def _start_one(
    connection: apsw.Connection, start: NewRun, number: int, *, lease: int, url: str
) -> StartOutcome:
    latest = _find_run(connection, _LATEST, (start.id,), url=url)
    if latest is not None:
        origin = _find_origin(connection, latest, url=url)
        outcome = decide_start(start, latest, origin)
        if outcome is not None:
            if outcome.reason == "cancelling":
                _ask_to_cancel(connection, start, latest.number)
            return outcome
        connection.execute(_MARK_OLDER, (latest.number,))
    generation = 1 if latest is None else latest.generation + 1
    held = blobs.put(connection, start.input)
    columns = _columns(start, number, held, generation=generation)
    connection.execute(_INSERT_NEXT, (*columns, checksum(columns), lease))
    return StartOutcome("started", _row(start, number, generation=generation, lease=lease))


def _find_origin(connection: apsw.Connection, run: RunRow, *, url: str) -> RunRow | None:
    """Go back over the generations that `run` continues."""
    origin = run
    while origin.generation > 1:
        before = _find_run(connection, _OF_GENERATION, (origin.id, origin.generation - 1), url=url)
        if before is None:
            return None
        if before.status != Status.CONTINUED:
            break
        origin = before
    return origin


def _find_run(connection: apsw.Connection, sql: str, bindings: Row, *, url: str) -> RunRow | None:
    rows = connection.execute(sql, bindings).fetchall()
    if not rows:
        return None
    (row,) = checked_runs(rows, url=url)
    return RunRow._make(blobs.whole(connection, row, RUN_PAYLOADS, url=url))


def _ask_to_cancel(connection: apsw.Connection, start: NewRun, number: int) -> None:
    # The seed is the start's own: one that is tried again leaves no second message.
    request = f"start/{start.seed.hex()}"
    message = Message(0, number, MessageKind.CANCEL, "cancel", None, request, start.created_at_ms)
    send_messages(connection, [message], lease=0)


def _columns(start: NewRun, number: int, input_held: bytes | int | None, *, generation: int) -> Row:
    """What a run begins as, in the order that its checksum is made of."""
    return (
        number, start.id, start.workflow, start.deadline_ms, start.parent, start.parent_key,
        start.on_parent_close, start.created_at_ms, start.python, start.seed, input_held, generation,
    )  # fmt: skip


def _row(start: NewRun, number: int, *, generation: int, lease: int) -> RunRow:
    return RunRow(
        number, start.id, generation, start.workflow, Status.RUNNING, start.input, None, start.seed, 0, 0,
        start.deadline_ms, start.parent, start.parent_key, start.on_parent_close, start.created_at_ms, None,
        start.python, lease,
    )  # fmt: skip
