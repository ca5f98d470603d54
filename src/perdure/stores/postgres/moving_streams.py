"""Streams that move: their rows read for another store, and rows of another store written.

Law: an event keeps its place. Before one arrives, the clock of the streams is set past all
that come: what is appended here has a place above them, and nobody waits to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from ..base import MoveCursor, MovePage
from ..stream_rows import (
    CORRELATION,
    DEAD_NOTE,
    EVENT,
    EVENT_NUMBER,
    KINDS,
    SEEK,
    STREAM,
    SUBSCRIPTION,
    Columns,
    RowKind,
    bytes_of,
    kind_at,
)
from .appending import identity_of, stream_number
from .arrays import numbers, payloads, texts
from .awaiting import correlation_number
from .connection import Database
from .dead import count_crashes
from .link import Link

_ARRAYS: Final[dict[str, Callable[[Iterable[Any]], object]]] = {"n": numbers, "t": texts, "b": payloads}
_COUNTED: Final = (SUBSCRIPTION, SEEK, DEAD_NOTE)
"""Those whose numbers come from a sequence."""


def export_page(database: Database, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
    """The rows after a cursor: of the first kind that has any."""
    number, key = after.kind, after.key
    while (kind := kind_at(number)) is not None:
        rows = _read(database, kind, key or kind.first, limit, bytes_max)
        if rows:
            after = after._replace(kind=number, key=kind.key_of(rows[-1]))
            return MovePage([], [], [], 0, after, number, rows)
        number, key = number + 1, ()
    return MovePage([], [], [], 0, after)


def arrived(database: Database) -> MoveCursor:
    """See `Store.arrived`."""
    runs, last = database.snapshot(("last_arrived_run",), ("last_arrived",))
    ((run,),) = runs
    return MoveCursor(run, kind=EVENT_NUMBER, key=tuple(last[0])) if last else MoveCursor(run)


def _read(database: Database, kind: RowKind, key: Columns, limit: int, bytes_max: int) -> list[Columns]:
    if kind is EVENT:
        return _read_events(database, key, limit, bytes_max)
    bounds = (limit, bytes_max) if "b" in kind.types else (limit,)
    return [tuple(row) for row in database.rows(f"moving_{kind.name}", *key, *bounds)]


def _read_events(database: Database, key: Columns, limit: int, bytes_max: int) -> list[Columns]:
    rows: list[Columns] = []
    for name, number in database.rows("streams_from", key[0]):
        after = key[1] if name == key[0] else 0
        found = database.rows("moving_event", number, after, limit - len(rows), bytes_max)
        rows += [(name, *row) for row in found]
        bytes_max -= sum(map(bytes_of, found))
        if len(rows) >= limit or bytes_max <= 0:
            break
    return rows


# -- what is written -------------------------------------------------------------------------------


def write_rows(link: Link, page: MovePage) -> None:
    """Send the rows of a page; those that are there already are left alone, but for events."""
    kind = kind_at(page.kind)
    assert kind is not None, "a page of rows says of which kind they are"
    columns = [
        _ARRAYS[of](column) for of, column in zip(kind.types, zip(*page.rows, strict=True), strict=True)
    ]
    if kind is EVENT:
        columns[0] = numbers(stream_number(row[0]) for row in page.rows)
        columns[-1] = payloads(_identity(row) for row in page.rows)
    elif kind is STREAM:
        link.run("set_stream_clock")
        link.run("raise_stream_clock", max(last for *_, last in page.rows))
        columns.insert(0, numbers(stream_number(row[0]) for row in page.rows))
    elif kind is CORRELATION:
        columns.insert(0, numbers(correlation_number(*row) for row in page.rows))
    link.run(f"arrive_{kind.name}", *columns)
    if kind in _COUNTED:
        link.run(f"count_{kind.name}")


def _identity(row: Columns) -> bytes | None:
    stream, _, event_id, source, *_, is_resent = row
    return identity_of(stream, source, event_id) if is_resent else None


def remove_rows(link: Link) -> None:
    """Remove all that has arrived."""
    for kind in KINDS:
        link.rows(f"remove_all_{kind.name}")


def free_lanes(link: Link) -> None:
    """No worker has any lane; what is known of those that died with one is kept."""
    rows: Sequence[Any] = link.rows("lanes_with_leases")
    for lease, lanes in groupby(rows, key=lambda row: row[0]):
        count_crashes(link, [tuple(row[1:]) for row in lanes], lease=lease)
    link.rows("free_all_lanes")
    link.rows("forget_who_serves")
