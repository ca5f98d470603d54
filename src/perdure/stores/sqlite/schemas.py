"""The registry of the schemas of events, in the file.

Law: a schema is put beside those that were judged with it, or not at all; and one that
takes the place of another only while no event of its version is kept.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import apsw

from ...core.events import SchemaRow, SchemaStand
from ..moves import refuse_closed
from .borrowing import within
from .connection import Database
from .marks import read_mark
from .places import PLACES
from .statements import SQL

_OF = SQL["schemas_of"]
_HAS = SQL["has_schema"]
_PUT = SQL["put_schema"]
_ANY = SQL["any_of_version"]
_GONE = SQL["schema_gone"]
_STREAM = SQL["stream_of"]


class Schemas:
    """What a store does for the schemas of events: a part of its `Streams`."""

    _database: Database

    def schemas(self, stream: str = "") -> list[SchemaRow]:
        """See `StreamStore.schemas`."""
        with self._database.snapshot() as connection:
            return _rows(connection, stream)

    def has_schema(
        self, stream: str, type: str, version: int, fingerprint: str, *, connection: Any = None
    ) -> bool:
        """See `StreamStore.has_schema`."""
        names = (stream, type, version, fingerprint)
        if connection is not None:
            return connection.execute(_HAS, names).get is not None
        with self._database.snapshot() as reader:
            return reader.execute(_HAS, names).get is not None

    def schema_stand(self, stream: str, *, connection: Any = None) -> SchemaStand:
        """See `StreamStore.schema_stand`."""
        if connection is not None:
            return _stand(connection, stream)
        with self._database.snapshot() as reader:
            return _stand(reader, stream)

    def put_schema(self, row: SchemaRow, stand: SchemaStand, *, connection: Any = None) -> bool:
        """See `StreamStore.put_schema`."""
        with self._write(connection) as writer:
            if _stand(writer, row.stream).rows != stand.rows:
                return False
            replaces = any(row[:3] == known[:3] for known in stand.rows)
            if replaces and _is_kept(writer, row, after=stand.last):
                return False
            writer.execute(_PUT, row)
        return True

    def keeps_version(self, row: SchemaRow, *, connection: Any = None) -> bool:
        """See `StreamStore.keeps_version`."""
        if connection is not None:
            return _is_kept(connection, row, after=row.gone_to)
        with self._database.second_reader() as reader:  # it may take long
            last = _stand(reader, row.stream).last
            if last == row.gone_to:
                return False
            if _is_kept(reader, row, after=row.gone_to):
                return True
        with self._write(None) as writer:
            writer.execute(_GONE, (*row[:3], last))
        return False

    @contextmanager
    def _write(self, connection: Any) -> Generator[apsw.Connection]:
        """A transaction of our own, or the one that a connection has open."""
        if connection is not None:
            path = None if self._database.writes_by(connection) else self._database.path
            with within(connection, path=path, url=self._database.url):
                yield connection
            return
        with self._database.transaction() as own:
            refuse_closed(read_mark(own), self._database.url)
            yield own


def _rows(connection: apsw.Connection, stream: str) -> list[SchemaRow]:
    rows: Any = connection.execute(_OF, (stream,)).fetchall()
    return [SchemaRow._make(row) for row in rows]


def _stand(connection: apsw.Connection, stream: str) -> SchemaStand:
    found: Any = connection.execute(_STREAM, (stream,)).fetchone()
    return SchemaStand(_rows(connection, stream), 0 if found is None else found[1])


def _is_kept(connection: apsw.Connection, row: SchemaRow, *, after: int) -> bool:
    found: Any = connection.execute(_STREAM, (row.stream,)).fetchone()
    if found is None:
        return False
    number, last, _ = found
    base = number * PLACES
    return connection.execute(_ANY, (base + after, base + last + 1, row.type, row.version)).get is not None
