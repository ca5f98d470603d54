"""Checksums: a row that the disk has changed is refused, and never believed.

Each row that matters ends with `crc`: the CRC-32 of its other columns, as a
MessagePack array, in the order in which they are read. It is made where the row
is written and looked at wherever it is read. NULL, in rows from before the
schema had it, is accepted.

A run's row has two, since it changes while the run goes on: `start_crc` covers
what the run began as, `end_crc` how it ended or parked. When it is to be woken is
covered by neither; an index holds that a second time. A large payload stands in
its row as a number, and its own SHA-256 covers the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from ...core.records import Status
from ...errors import RunDamaged, StoreCorrupt
from .connection import Row

_encode: Final = msgspec.msgpack.Encoder().encode

_HINT: Final = (
    "Restore a backup of the file, or terminate the run. `perdure doctor` names all that is damaged."
)


class Table(NamedTuple):
    """What reading a table needs to know of its rows. Columns are counted from 0."""

    name: str
    """What a row is."""
    label: int
    """The column that tells it from the others of its run."""
    run: int | None
    """The column that has the run's number."""
    payloads: tuple[int, ...]


RECORD: Final = Table("record", label=0, run=6, payloads=(5,))
MESSAGE: Final = Table("message", label=0, run=1, payloads=(4,))
STATE: Final = Table("state", label=1, run=0, payloads=(3,))
ATTEMPT: Final = Table("attempt", label=1, run=0, payloads=(3, 4))
JOB: Final = Table("job", label=1, run=0, payloads=(6,))
REPLY: Final = Table("reply", label=0, run=None, payloads=(2,))
TABLES: Final = (RECORD, MESSAGE, STATE, ATTEMPT, JOB, REPLY)

RUN_PAYLOADS: Final = (5, 6)
"""The columns of a `RunRow` that are payloads: input and output."""
_RUN_COLUMNS: Final = 18
LENGTH: Final = _RUN_COLUMNS
"""The column of a run's row, as read, that says how many records there were at least."""
_BEGAN_AS: Final = itemgetter(0, 1, 3, 10, 11, 12, 13, 14, 16, 7, 5, 2)
"""Those of a run's row that never change, in the order in which they are inserted."""
_ENDED_AS: Final = itemgetter(4, 6, 15, 0)
"""Those that say how it ended: status, output, ended_at_ms, number."""


def checksum(columns: Sequence[Any]) -> int:
    """The checksum of a row whose columns are these."""
    return crc32(_encode(columns))


def run_checksums(row: Row) -> tuple[int, int | None]:
    """Those of a run's row that is written whole: of how it began, and of how it ended, if it has."""
    return checksum(_BEGAN_AS(row)), None if row[4] == Status.RUNNING else checksum(_ENDED_AS(row))


def with_checksums(rows: Sequence[Row]) -> list[Row]:
    """The rows as they are written."""
    return [(*columns, crc32(_encode(columns))) for columns in rows]


def with_end_checksums(ends: Sequence[Row]) -> list[Row]:
    """Rows of `RunEnd`, and the lease, as they are written."""
    return [
        (status, output, at_ms, wake_at_ms, number, checksum((status, output, at_ms, number)), lease)
        for status, output, at_ms, wake_at_ms, number, lease in ends
    ]


def checked(rows: Sequence[Row], table: Table, *, url: str) -> list[Row]:
    """The rows as read, without their checksums. Raises RunDamaged, or StoreCorrupt for a reply."""
    parts = [row[:-1] for row in rows]
    for columns, row in zip(parts, rows, strict=True):
        # Written out, and not by check_row: this is done for each record of each journal.
        if crc32(_encode(columns)) != row[-1] and row[-1] is not None:
            raise _damage(columns, table, url=url)
    return parts


def check_row(row: Row, table: Table, *, url: str) -> StoreCorrupt | None:
    """What is wrong with a row; None when nothing is."""
    *columns, crc = row
    return None if crc is None or crc == checksum(columns) else _damage(columns, table, url=url)


def checked_runs(rows: Sequence[Row], *, url: str) -> list[Row]:
    """The rows of runs as read, without their checksums. Raises RunDamaged."""
    for row in rows:
        wrong = check_run(row, url=url)
        if wrong is not None:
            raise wrong
    return unchecked_runs(rows)


def unchecked_runs(rows: Sequence[Row], *, url: str = "") -> list[Row]:
    """The same as they are: for lists, where one that is damaged must not hide the others."""
    return [row[:_RUN_COLUMNS] for row in rows]


def check_run(row: Row, *, url: str) -> RunDamaged | None:
    """What is wrong with a run's row; None when nothing is."""
    start_crc, end_crc = row[_RUN_COLUMNS + 1 :]
    # One from before there were checksums has no first one; its end may be from after.
    began = start_crc is None or start_crc == checksum(_BEGAN_AS(row))
    if end_crc is None:
        ended = start_crc is None or row[4] == Status.RUNNING
    else:
        ended = end_crc == checksum(_ENDED_AS(row))
    if began and ended:
        return None
    return RunDamaged(
        f"Run {row[1]!r} (number {row[0]}) in store '{url}' is damaged: "
        f"its {'end' if began else 'start'} does not fit its checksum.",
        number=row[0],
        hint=_HINT,
    )


def check_journal(run: int, seqs: Sequence[int], length: int | None, *, url: str) -> None:
    """Raise RunDamaged for a journal in which records are missing, in its midst or at its end."""
    last = seqs[-1] if seqs else -1
    if last == len(seqs) - 1 and len(seqs) >= (length or 0):
        return
    raise RunDamaged(
        f"In store '{url}' the journal of run number {run} is damaged: it has {len(seqs)} records, and "
        f"should have {max(last + 1, length or 0)}.",
        number=run,
        hint=_HINT,
    )


def stray(run: int, *, url: str) -> StoreCorrupt:
    """The error for a record where there should be none: an index does not lead where it should."""
    return StoreCorrupt(
        f"Store '{url}' is damaged: it gives a record of run number {run} for that of another.", hint=_HINT
    )


def _damage(columns: Sequence[Any], table: Table, *, url: str) -> StoreCorrupt:
    what = f"In store '{url}' {table.name} {columns[table.label]!r}"
    why = "is damaged: it does not fit its checksum."
    if table.run is None:
        return StoreCorrupt(f"{what} {why}", hint=_HINT)
    number = columns[table.run]
    position = columns[table.label] if table is MESSAGE else 0
    return RunDamaged(f"{what} of run number {number} {why}", number=number, position=position, hint=_HINT)
