"""Starts a run on a connection of the user's to the store's own file, in the user's transaction.

It must be one of apsw: Python's own `sqlite3` is another copy of SQLite in the same process, and two of
them on one file lose each other's locks, since closing a file drops all that the process has on it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import apsw

from ...core.records import NewRun
from ...errors import StoreError
from ..base import StartOutcome
from ..borrowing import elsewhere, is_of, name_of, no_transaction, unfit
from ..moves import refuse_closed
from .marks import read_mark
from .starts import write_starts

_WANTED: Final = "an apsw.Connection to the store's file, with a transaction open"


def start_within(connection: Any, new: NewRun, *, path: str | None, url: str) -> StartOutcome:
    """See `Store.start_within`. `path` is the store's; None for its own connection, lent to a step."""
    with within(connection, path=path, url=url):
        (outcome,) = write_starts(connection, [new], lease=0, url=url)
    return outcome


@contextmanager
def within(connection: Any, *, path: str | None, url: str) -> Generator[None]:
    """Write on a connection of the user's, all or nothing. Raises StoreError for one that will not do."""
    if any(is_of(connection, package) for package in ("sqlite3", "aiosqlite", "sqlalchemy")):
        raise _other_library(connection, url)
    if not isinstance(connection, apsw.Connection) or connection.is_async:
        raise unfit(connection, url, wanted=_WANTED)
    if path is not None and not _is_same_file(connection.filename, path):
        raise elsewhere(url, f"'{connection.filename}'")
    if not connection.in_transaction:
        raise no_transaction(url, hint='Begin one first: connection.execute("BEGIN IMMEDIATE").')
    with _whole(connection):
        refuse_closed(read_mark(connection), url)
        yield


@contextmanager
def _whole(connection: apsw.Connection) -> Generator[None]:
    """Write all within or nothing, without what the user, or a step that it is lent to, has put on it."""
    authorizer, row_trace = connection.authorizer, connection.row_trace
    connection.authorizer = connection.row_trace = None
    try:
        with connection:  # a savepoint: the transaction can go on
            yield
    finally:
        connection.authorizer, connection.row_trace = authorizer, row_trace


def _is_same_file(found: str, path: str) -> bool:
    try:
        return found == path or os.path.samefile(found, path)
    except OSError:  # one in memory, or of a file system that a test brings
        return False


def _other_library(connection: object, url: str) -> StoreError:
    return StoreError(
        f"Store '{url}' cannot be written to on a {name_of(connection)}: Python's sqlite3 is another "
        "SQLite than Perdure's, and two of them in one process lose each other's locks on a file, which may "
        "damage it. Nothing was written.",
        hint='Open the file with apsw, which Perdure uses: apsw.Connection("shop.db"). Or write your rows in '
        "a @step(transaction=True).",
    )
