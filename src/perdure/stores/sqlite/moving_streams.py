"""Streams that move: their rows read for another store, and rows of another store written.

Law: an event keeps its place, and a store that came from elsewhere has places that lie far
apart; the numbers of streams leave room for them. What runs wait for is compared with all
events before the store opens: here only an append gives, and what has arrived was none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from ...core.events import EventRow
from ...core.records import Message, MessageKind
from ...errors import StoreCorrupt, StoreError
from ..base import MoveCursor, MovePage
from ..correlation import event_as_text, value_of
from ..rows import Damage
from ..stream_rows import (
    DEAD_NOTE,
    EVENT,
    EVENT_NUMBER,
    EVENT_WINDOW,
    LANE_TIME,
    STREAM,
    Columns,
    RowKind,
    bytes_of,
    kind_at,
)
from . import blobs
from .awaiting import Correlation, correlations_of
from .checksums import checksum
from .connection import Database, Row
from .dead import count_crashes, wrong_note
from .messages import send_messages
from .places import PLACES, read_event, read_or_name
from .statements import SQL
from .streams import identity
from .windows import wrong_window

_READ = {name: sql for name, sql in SQL.items() if name.startswith("moving_")}
_ARRIVE = {name: sql for name, sql in SQL.items() if name.startswith("arrive_")}
_AFTER = SQL["events_after"]
_EVENT_AT = SQL["event_at"]
_INSERT_EVENT = SQL["insert_event"]
_ENTER = SQL["enter_event"]
_NEXT = SQL["next_correlated"]
_GIVE = SQL["give_awaited"]
_STREAM = SQL["stream_of"]
_STREAMS = SQL["streams_from"]
_ADD_BYTES = SQL["add_bytes"]
_ROOM = SQL["room_for_streams"]
_LAST = SQL["last_arrived"]
_LAST_RUN = SQL["last_arrived_run"]
_WAITING = SQL["waiting_for_moved"]
_SUBSCRIPTIONS = SQL["subscriptions"]
_FREE_LANES: Final = SQL["free_all_lanes"], SQL["forget_who_serves"]

_NUMBERS: Final = 1 << 23
"""So many numbers of streams there are: times 2^40 they are all positions."""
_STATE: Final = 9
"""The column of a window that is a payload."""
_ALL: Final = 1 << 30


def export_page(database: Database, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
    """The rows after a cursor: of the first kind that has any."""
    number, key = after.kind, after.key
    while (kind := kind_at(number)) is not None:
        with database.snapshot() as connection:
            rows, damage, key = _read(connection, kind, key or kind.first, limit, bytes_max, database.url)
        if rows or damage:
            return MovePage([], [], damage, 0, after._replace(kind=number, key=key), number, rows)
        number, key = number + 1, ()
    return MovePage([], [], [], 0, after)


def arrived(database: Database) -> MoveCursor:
    """See `Store.arrived`."""
    with database.snapshot() as connection:
        run: Any = connection.execute(_LAST_RUN).get
        last: Any = connection.execute(_LAST).fetchone()
    return MoveCursor(run) if last is None else MoveCursor(run, kind=EVENT_NUMBER, key=last)


def _read(
    connection: apsw.Connection, kind: RowKind, key: Columns, limit: int, bytes_max: int, url: str
) -> tuple[list[Columns], list[Damage], Columns]:
    """Rows above a key, what is in place of damaged ones, and the key of the last of both."""
    rows: list[Columns] = []
    damage: list[Damage] = []
    found = _events if kind is EVENT else _others
    for last, row in found(connection, kind, key, limit, url):
        key = last
        if isinstance(row, Damage):
            damage.append(row)
            continue
        rows.append(row)
        bytes_max -= bytes_of(row)
        if bytes_max <= 0:
            break
    return rows, damage, key


def _others(
    connection: apsw.Connection, kind: RowKind, key: Columns, limit: int, url: str
) -> Iterator[tuple[Columns, Columns | Damage]]:
    found: Any = connection.execute(_READ[f"moving_{kind.name}"], (*key, limit))
    try:
        for row in found:
            yield kind.key_of(row), _checked(connection, kind, row, url)
    finally:
        found.close()


def _checked(connection: apsw.Connection, kind: RowKind, row: Row, url: str) -> Columns | Damage:
    if kind is DEAD_NOTE:
        wrong = wrong_note(row[1:], url=url)
    elif kind in (LANE_TIME, EVENT_WINDOW):
        wrong = wrong_window(row, url=url)
    else:
        return row
    try:
        if wrong is not None:
            raise wrong
        payloads = (_STATE,) if kind is EVENT_WINDOW else ()
        return tuple(blobs.whole(connection, row[:-1], payloads, url=url))
    except StoreCorrupt as error:
        return Damage(0, error.what, can_stay=False)


def _events(
    connection: apsw.Connection, kind: RowKind, key: Columns, limit: int, url: str
) -> Iterator[tuple[Columns, Columns | Damage]]:
    streams: Any = connection.execute(_STREAMS, (key[0],)).fetchall()
    for name, number, _, last in streams:
        base, after = number * PLACES, key[1] if name == key[0] else 0
        found: Any = connection.execute(_AFTER, (base + after, base + last + 1, limit))
        try:
            for row in found:
                event = read_or_name(connection, row, base, url=url)
                is_resent = int(row[-2] is not None)
                whole = Damage(0, event.damage) if event.damage else (name, *event[:10], is_resent)
                yield (name, event.position), whole
                limit -= 1
        finally:
            found.close()
        if limit <= 0:
            return


# -- what is written -------------------------------------------------------------------------------


def write_rows(connection: apsw.Connection, page: MovePage, *, url: str) -> None:
    """Write the rows of a page; those that are there already are left alone, but for events."""
    kind = kind_at(page.kind)
    assert kind is not None, "a page of rows says of which kind they are"
    if kind is EVENT:
        _write_events(connection, page.rows)
        return
    sql = _ARRIVE[f"arrive_{kind.name}"]
    if kind is EVENT_WINDOW:
        blobs.write_rows(connection, sql, page.rows, (_STATE,))
    elif kind is LANE_TIME:
        blobs.write_rows(connection, sql, page.rows, ())
    elif kind is DEAD_NOTE:
        connection.executemany(sql, [(*row, checksum(row[1:])) for row in page.rows])
    else:
        connection.executemany(sql, page.rows)
    if kind is STREAM:
        _refuse_without_room(connection, url=url)


def _refuse_without_room(connection: apsw.Connection, *, url: str) -> None:
    needed: Any = connection.execute(_ROOM).get
    # Where they are far too many, SQLite adds them up to something that is no integer any more.
    if not isinstance(needed, int) or needed > _NUMBERS:
        raise StoreError(
            f"Store '{url}' has no room for these streams: their positions come from PostgreSQL, reach far, "
            "and are kept; together they reach further than the numbers of rows in SQLite.",
            hint="Stay, with `perdure move … --abandon`; or move to another PostgreSQL.",
        )


def _write_events(connection: apsw.Connection, rows: Sequence[Columns]) -> None:
    by_stream: dict[str, list[Columns]] = {}
    for row in rows:
        by_stream.setdefault(row[0], []).append(row)
    for stream, events in by_stream.items():
        found: Any = connection.execute(_STREAM, (stream,)).fetchone()
        number, _, gone = found
        base, known = number * PLACES, correlations_of(connection, number)
        for _, place, *columns, payload, is_resent in events:
            held = blobs.put(connection, payload)
            resent = identity(stream, columns[1], columns[0]) if is_resent else None
            written = (base + place, *columns, held, resent)
            connection.execute(_INSERT_EVENT, (*written, checksum(written)))
            _enter(connection, known, base + place, kind=columns[2], payload=payload)
        size = sum(len(row[-2]) for row in events if row[1] > gone)
        connection.execute(_ADD_BYTES, (number, size))


def _enter(
    connection: apsw.Connection, known: Sequence[Correlation], pos: int, *, kind: str, payload: bytes
) -> None:
    for correlation in known:
        if correlation.type == kind:
            value = value_of(payload, correlation.fields)
            connection.execute(_ENTER, (pos, correlation.number, value))


# -- before the store opens, or closes -------------------------------------------------------------


def free_lanes(connection: apsw.Connection) -> None:
    """No worker has any lane; what is known of those that died with one is kept."""
    rows: Any = connection.execute(_SUBSCRIPTIONS).fetchall()
    for number, *_ in rows:
        count_crashes(connection, number, _ALL)
    for sql in _FREE_LANES:
        connection.execute(sql)


def give_awaited(connection: apsw.Connection, *, url: str) -> None:
    """Send runs the events that they wait for and that have arrived."""
    rows: Any = connection.execute(_WAITING).fetchall()
    for run, correlation, value, signal, after, wanted, stream, last in rows:
        base, upto = stream * PLACES, after
        for _ in range(wanted):
            pos: Any = connection.execute(_NEXT, (correlation, value, base + upto)).get
            if pos is None or pos > base + last:
                break
            row: Any = connection.execute(_EVENT_AT, (pos,)).fetchone()
            event: EventRow = read_event(connection, row, base, url=url)
            upto = event.position
            told = event_as_text(event).encode()
            message = Message(0, run, MessageKind.SIGNAL, signal, told, "", event.at_ms)
            send_messages(connection, [message], lease=0)
            connection.execute(_GIVE, (run, correlation, value, upto))
