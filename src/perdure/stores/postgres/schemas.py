"""The registry of the schemas of events, in the database.

Law: a schema is put beside those that were judged with it, or not at all; and one that
takes the place of another only while no event of its version is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...core.events import SchemaRow, SchemaStand
from .appending import stream_number
from .connection import Database
from .gate import Gate
from .link import Link

T = TypeVar("T")


class Schemas:
    """What a store does for the schemas of events: a part of its `Streams`."""

    _database: Database
    _gate: Gate

    def schemas(self, stream: str = "") -> list[SchemaRow]:
        """See `StreamStore.schemas`."""
        return self._database.read(lambda link: _rows(link, stream))

    def has_schema(
        self, stream: str, type: str, version: int, fingerprint: str, *, connection: Any = None
    ) -> bool:
        """See `StreamStore.has_schema`."""
        names = (stream, type, version, fingerprint)
        return bool(self._look(connection, lambda link: link.rows("has_schema", *names)))

    def schema_stand(self, stream: str, *, connection: Any = None) -> SchemaStand:
        """See `StreamStore.schema_stand`."""
        return self._look(connection, lambda link: SchemaStand(_rows(link, stream), _settled(link, stream)))

    def put_schema(self, row: SchemaRow, stand: SchemaStand, *, connection: Any = None) -> bool:
        """See `StreamStore.put_schema`."""

        def work(link: Link) -> bool:
            with link.transaction():
                asked = self._gate.ask(link)
            self._gate.check(asked)
            return _put(link, row, stand)

        lent = self._database.writing_by(connection)
        return self._database.write(work) if lent is None else _put(lent, row, stand)

    def keeps_version(self, row: SchemaRow, *, connection: Any = None) -> bool:
        """See `StreamStore.keeps_version`."""

        def look(link: Link) -> tuple[bool, int]:
            last = _settled(link, row.stream)  # first: what comes above it is looked at next time
            return _is_kept(link, row, after=row.gone_to), last

        is_kept, last = self._look(connection, look)
        if connection is None and not is_kept and last > row.gone_to:
            self._database.write(lambda link: _note_gone(link, row, last))
        return is_kept

    def _look(self, connection: Any, work: Callable[[Link], T]) -> T:
        """Read; by the connection that writes, if that is the one."""
        lent = self._database.writing_by(connection)
        return self._database.read(work) if lent is None else work(lent)


def _rows(link: Link, stream: str) -> list[SchemaRow]:
    return [SchemaRow._make(row) for row in link.rows("schemas_of", stream)]


def _settled(link: Link, stream: str) -> int:
    """The stream's last position, of those below which none can come any more."""
    ((horizon,),) = link.rows("stream_horizon")
    ((last,),) = link.rows("last_event", stream_number(stream), horizon)
    return last or 0


def _is_kept(link: Link, row: SchemaRow, *, after: int) -> bool:
    return bool(link.rows("any_of_version", stream_number(row.stream), after, row.type, row.version))


def _put(link: Link, row: SchemaRow, stand: SchemaStand) -> bool:
    link.rows("lock_schemas")
    if _rows(link, row.stream) != stand.rows:
        return False
    replaces = any(row[:3] == known[:3] for known in stand.rows)
    if replaces and _is_kept(link, row, after=stand.last):
        return False
    link.rows("put_schema", *row)
    return True


def _note_gone(link: Link, row: SchemaRow, last: int) -> None:
    with link.transaction():
        pass
    link.rows("schema_gone", *row[:3], last)
