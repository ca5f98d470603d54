"""Payloads that are too large for a row: kept once for the same bytes, in chunks.

A payload column holds the bytes themselves (a BLOB) or the number of a blob (an
INTEGER): SQLite keeps the type with each value, so the two cannot be confused,
and rows without large payloads pay nothing. `uses` counts the columns that
refer to a blob. It is raised here, by whoever writes a reference, and lowered
by triggers when the reference goes; the last one takes the blob with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

import apsw

from ...errors import StoreCorrupt
from .checksums import with_checksums
from .connection import Row
from .statements import SQL

INLINE_BYTES_MAX: Final = 256 * 1024
_CHUNK_BYTES: Final = 256 * 1024

_USE = SQL["use_blob"]
_INSERT = SQL["insert_blob"]
_INSERT_CHUNK = SQL["insert_chunk"]
_DROP_USE = SQL["drop_blob_use"]
_CHUNKS = SQL["blob_chunks"]
_DIGEST = SQL["blob_digest"]


def put(connection: apsw.Connection, payload: bytes | None) -> bytes | int | None:
    """Give what a payload column is to hold, and count the use if that is a blob."""
    if payload is None or len(payload) <= INLINE_BYTES_MAX:
        return payload
    digest = sha256(payload).digest()
    known: Any = connection.execute(_USE, (digest,)).get
    if known is not None:
        return known
    number: Any = connection.execute(_INSERT, (digest, len(payload))).get
    starts = range(0, len(payload), _CHUNK_BYTES)
    chunks = ((number, part, payload[at : at + _CHUNK_BYTES]) for part, at in enumerate(starts))
    connection.executemany(_INSERT_CHUNK, chunks)
    return number


def drop(connection: apsw.Connection, held: bytes | int | None) -> None:
    """Take back a use that `put` counted, for a row that was not written after all."""
    if type(held) is int:
        connection.execute(_DROP_USE, (held,))


def write_rows(
    connection: apsw.Connection,
    sql: str,
    rows: Sequence[Row],
    payloads: Sequence[int],
    seal: Callable[[Sequence[Row]], list[Row]] = with_checksums,
) -> None:
    """Run `sql` for each row, whose columns `payloads` are payloads; `seal` adds the checksums."""
    if not any_large(rows, payloads):
        connection.executemany(sql, seal(rows))
        return
    for row in rows:
        columns = list(row)
        for place in payloads:
            columns[place] = put(connection, row[place])
        connection.execute(sql, seal([tuple(columns)])[0])
        if connection.changes() == 0:
            for place in payloads:
                drop(connection, columns[place])


def refer(rows: Sequence[Row], payloads: Sequence[int]) -> bool:
    """Whether any row as read refers to a blob."""
    return any(type(row[place]) is int for row in rows for place in payloads)


def whole(connection: apsw.Connection, row: Row, payloads: Sequence[int], *, url: str) -> list[Any]:
    """Give the columns of a row as read, with the payloads themselves in place of references."""
    columns = list(row)
    for place in payloads:
        if type(columns[place]) is int:
            columns[place] = fetch(connection, columns[place], url=url)
    return columns


def any_large(rows: Sequence[Row], payloads: Sequence[int]) -> bool:
    for place in payloads:
        for row in rows:
            payload = row[place]
            if payload is not None and len(payload) > INLINE_BYTES_MAX:
                return True
    return False


def fetch(connection: apsw.Connection, number: int, *, url: str) -> bytes:
    """The payload that a blob holds. Raises StoreCorrupt when that is not what was put there."""
    digest: Any = connection.execute(_DIGEST, (number,)).get
    chunks: Any = connection.execute(_CHUNKS, (number,))
    payload = b"".join(chunk for (chunk,) in chunks)
    if sha256(payload).digest() != digest:
        raise StoreCorrupt(
            f"Store '{url}' is damaged: blob {number} ({len(payload):,} bytes) does not fit its checksum.",
            hint="Restore a backup; `perdure doctor` says what else is wrong.",
        )
    return payload
