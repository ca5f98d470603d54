"""Looks for what is wrong in a store: the file itself, then the rows that must agree, then every checksum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import apsw

from ...errors import StoreCorrupt
from . import blobs
from .checksums import TABLES, check_row, check_run
from .connection import Database, Row
from .dead import wrong_note
from .faults import DRIVER_ERRORS
from .places import PLACES, wrong_event
from .statements import SQL

_CHECKS = tuple(sql for name, sql in SQL.items() if name.startswith("check_"))


def find_wrongs(database: Database) -> Iterator[str]:
    """Give a sentence for each thing that is wrong. Reads the whole file, beside the work."""
    with database.second_reader() as connection:
        for wrongs in (_structure, _rows, _checksums, _blobs):
            try:
                yield from wrongs(connection, database.url)
            except DRIVER_ERRORS as error:  # what is damaged so that it cannot be read must not hide the rest
                yield f"SQLite says: {error}."


def _structure(connection: apsw.Connection, url: str) -> Iterator[str]:
    rows: Any = connection.execute("PRAGMA integrity_check")
    for (sentence,) in rows:
        if sentence != "ok":
            yield f"SQLite says: {sentence}."


def _rows(connection: apsw.Connection, url: str) -> Iterator[str]:
    for sql in _CHECKS:
        rows: Any = connection.execute(sql)
        for (sentence,) in rows:
            yield sentence


def _checksums(connection: apsw.Connection, url: str) -> Iterator[str]:
    from .windows import wrong_window

    rows: Any = connection.execute(SQL["all_runs"])
    for row in rows:
        wrong = check_run(row, url=url)
        if wrong is not None:
            yield wrong.what
    for table in TABLES:
        rows = connection.execute(SQL[f"all_{table.name}"])
        for row in rows:
            wrong = check_row(row, table, url=url)
            if wrong is not None:
                yield wrong.what
    streams: Any = connection.execute(SQL["stream_numbers"]).fetchall()
    wrong_of_stream = partial(_wrong_event, numbers=[number for (number,) in streams])
    notes_and_events = (("all_event", wrong_of_stream), ("all_notes", wrong_note))
    for name, wrong_row in (*notes_and_events, ("all_lane_time", wrong_window), ("all_window", wrong_window)):
        rows = connection.execute(SQL[name])
        for row in rows:
            damaged = wrong_row(row, url=url)
            if damaged is not None:
                yield damaged.what


def _wrong_event(row: Row, *, numbers: list[int], url: str) -> StoreCorrupt | None:
    """What is wrong with an event of any stream; `numbers` are those of all streams."""
    if wrong_event(row, 0, url=url) is None:
        return None
    number = max((one for one in numbers if one * PLACES < row[0]), default=0)
    return wrong_event(row, number * PLACES, url=url)


def _blobs(connection: apsw.Connection, url: str) -> Iterator[str]:
    numbers: Any = connection.execute(SQL["all_blobs"]).fetchall()
    for (number,) in numbers:
        try:
            blobs.fetch(connection, number, url=url)
        except StoreCorrupt as wrong:
            yield wrong.what
