"""Lending the connection that writes to a step's function, for a while, and with care.

What it does there is part of a commit that holds other runs' records too. So it may
not begin or end a transaction (a savepoint it may), and not write to Perdure's tables.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import apsw

from ...errors import StepError
from .faults import fault_of

OUR_TABLES: Final = frozenset({
    "attempt", "awaiting", "blob", "blob_chunk", "correlated", "correlation", "counter", "dead", "dead_note",
    "event", "event_window", "job", "lane", "lane_time", "lease", "message", "move_mark", "record", "reply",
    "request", "run", "schema", "seek", "serving", "state", "stream", "subscription", "tag",
})  # fmt: skip
_WRITES: Final = frozenset({
    apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE, apsw.SQLITE_DROP_TABLE,
})  # fmt: skip
_TABLE_IS_SECOND: Final = frozenset({apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_TRIGGER})
_NEVER: Final = frozenset(
    {apsw.SQLITE_TRANSACTION, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_PRAGMA}
)
_NOT_THE_STEPS: Final = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.NoMemError)


@contextmanager
def lent(connection: apsw.Connection) -> Generator[None]:
    """Within the block, refuse what a step may not do on this connection."""
    connection.authorizer = _authorize
    try:
        yield
    finally:
        connection.authorizer = None


@contextmanager
def savepoint(connection: apsw.Connection, *, url: str) -> Generator[None]:
    """Undo what is written in the block if it fails; errors of the disk are not the step's."""
    try:
        with connection:
            yield
    except apsw.AuthError as error:
        raise StepError(
            "The step did something that is not allowed on its connection: it may not begin or end a "
            "transaction, ATTACH, use PRAGMA, or write to Perdure's own tables.",
            hint="Its writes are committed together with its result; a savepoint is allowed.",
        ) from error
    except _NOT_THE_STEPS as error:
        raise fault_of(error, url) from error


def _authorize(
    operation: int, first: str | None, second: str | None, database: str | None, source: str | None
) -> int:
    table = second if operation in _TABLE_IS_SECOND else first
    if operation in _NEVER or (
        operation in _WRITES | _TABLE_IS_SECOND and (table or "").lower() in OUR_TABLES
    ):
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK
