"""The two connections to the file, and the gate that decides whether it is ours.

One connection writes, by one thread at a time; the other reads meanwhile, and
sees the last commit. Neither waits for the other: that is what WAL gives. FULL
makes each commit survive a loss of power.

The gate looks before anything is changed: a file that is not ours is left as
it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import apsw

from ...errors import StoreError, StoreNotOurs, StoreUnavailable, StoreVersionError
from ..migrate import Migration, load_migrations, migrate, pending_migrations
from .faults import DRIVER_ERRORS, failed_sync, fault_of, is_failed_sync, read_only
from .naming import refuse_taken_names

APPLICATION_ID: Final = 0x50455244
"""`PERD`, in the file's header: this file is ours."""
_TRIES_MAX: Final = 20
_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
MIGRATIONS: Final = load_migrations(Path(__file__).with_name("migrations"))

Row: TypeAlias = tuple[Any, ...]
"""Columns as SQLite gives them; what each is stands in the statement."""


class Place(NamedTuple):
    """Where a store is."""

    path: str
    url: str


def find_place(path_or_url: str | os.PathLike[str]) -> Place:
    """Read a path, or a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`."""
    path = os.fspath(path_or_url)
    if path.startswith("sqlite:"):
        if not path.startswith("sqlite:///"):
            raise StoreError(
                f"'{path}' does not name a file.", hint="Write sqlite:///name.db, or sqlite:////path/name.db."
            )
        path = path.removeprefix("sqlite:///")
    elif "://" in path:
        raise StoreError(f"'{path}' is not an SQLite store.", hint="Write sqlite:///name.db.")
    if path.startswith("file:/"):
        return Place(path, f"sqlite:///{path}")  # SQLite's own URI, for tests that bring a file system
    if path in ("", ":memory:"):
        raise StoreError(
            "An SQLite store cannot be kept in memory: its runs would not survive the process.",
            hint="Name a file; for a test, one in a temporary directory.",
        )
    return Place(str(Path(path).absolute()), f"sqlite:///{path}")


def refuse_broken_library(version: str) -> None:
    """Raise StoreVersionError for an SQLite that can lose commits when it resets its log."""
    numbers = tuple(int(part) for part in version.split("."))
    if (3, 7, 0) <= numbers < (3, 51, 3):
        raise StoreVersionError(
            f"SQLite {version} can corrupt a file in WAL mode (fixed in 3.51.3), so no store is opened.",
            hint="Install a newer apsw from PyPI: it brings its own SQLite.",
        )


class Database:
    """The file's two connections. Raises our errors only."""

    def __init__(self, place: Place, *, busy_timeout_ms: int, only_look: bool = False) -> None:
        refuse_broken_library(apsw.sqlite_lib_version())
        self.path, self.url = place
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._data_version = -1
        self.was_locked_out = False
        """Whether a write has given up waiting for another program; who looks at it sets it back."""
        self._failed_sync: StoreUnavailable | None = None
        """Once a sync has failed nothing more is written: what it lost stays lost, though all can read it."""
        with self.faults():
            self._writer = _connect(self.path)
            try:
                self._writer.set_busy_timeout(busy_timeout_ms)
                self.is_read_only = only_look or self._writer.readonly("main")
                _pass_gate(self._writer, self.url)
                if only_look:
                    _refuse_migration(self._writer, self.url)
                _prepare(self._writer, url=self.url, read_only=self.is_read_only)
                self._reader = _connect(self.path)
                self._reader.set_busy_timeout(busy_timeout_ms)
                self._reader.execute("PRAGMA query_only = 1")
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def faults(self) -> Generator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except DRIVER_ERRORS as error:
            raise fault_of(error, self.url) from error

    @contextmanager
    def transaction(self) -> Generator[apsw.Connection]:
        """Write all, or nothing when an error leaves the block."""
        connection = self._writer
        with self._writing:
            if self.is_read_only:
                raise read_only(self.url, "the file is not writable")
            if self._failed_sync is not None:
                raise self._failed_sync
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                # SQLite has rolled back by itself after some errors (a full disk, for one).
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, DRIVER_ERRORS):
                    if is_failed_sync(error):
                        self._failed_sync = failed_sync(error, self.url)
                        raise self._failed_sync from error
                    self.was_locked_out |= isinstance(error, apsw.BusyError)
                    raise fault_of(error, self.url) from error
                raise

    def writes_by(self, connection: object) -> bool:
        """Whether that is the connection that writes; it may have been lent."""
        return connection is self._writer

    def changed(self) -> bool:
        """Whether another connection, in any process, has written since this was asked last."""
        before = self._data_version
        with self.faults(), self._reading:
            self._data_version = self._reader.pragma("data_version")
        return self._data_version != before

    @contextmanager
    def snapshot(self) -> Generator[apsw.Connection]:
        """Read several times from one and the same commit."""
        connection = self._reader
        with self._reading:
            try:
                connection.execute("BEGIN")
                yield connection
            except DRIVER_ERRORS as error:
                raise fault_of(error, self.url) from error
            finally:
                # Where the file is damaged this fails too, and what is raised already says so.
                with suppress(*DRIVER_ERRORS):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

    def query(self, sql: str, bindings: Sequence[Any] = ()) -> list[Row]:
        """Read once."""
        with self._reading:
            try:
                return self._reader.execute(sql, bindings).fetchall()
            except DRIVER_ERRORS as error:
                raise fault_of(error, self.url) from error

    def pragma(self, name: str) -> object:
        """Read a setting or figure of the file."""
        return self.query(f"PRAGMA {name}")[0][0]

    @contextmanager
    def second_reader(self) -> Generator[apsw.Connection]:
        """Read for long from one commit, on a connection of one's own."""
        with self.faults():
            connection = _connect(self.path)
            try:
                connection.execute("PRAGMA query_only = 1")
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.close()

    def close(self) -> None:
        """Close both; a second time does nothing."""
        with self._writing, self._reading, self.faults():
            self._reader.close()
            self._writer.close()


def _connect(path: str) -> apsw.Connection:
    connection = apsw.Connection(path, flags=_FLAGS)
    # Else SQLite plans many statements anew at each run, in case what is bound now makes another plan
    # better. It never does here, and planning is most of what a short statement costs.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


class FileSchema:
    """The tables of one file, for `migrate`."""

    def __init__(self, connection: apsw.Connection, url: str) -> None:
        self._connection = connection
        self.url = url

    @contextmanager
    def alone(self) -> Generator[int]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            number = schema_number(connection)
            refuse_taken_names(connection, MIGRATIONS, schema=number, url=self.url)
            yield number
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def apply(self, migration: Migration) -> None:
        self._connection.execute(migration.sql)
        self._connection.execute(f"PRAGMA user_version = {migration.number}")


def schema_number(connection: apsw.Connection) -> int:
    """The number of the last migration that was applied; 0 in a new file."""
    return connection.pragma("user_version")


def _pass_gate(connection: apsw.Connection, url: str) -> None:
    """Raise StoreNotOurs unless the file is ours, or empty."""
    # In one transaction: another process may be making the store at this moment.
    connection.execute("BEGIN")
    application = connection.pragma("application_id")
    schema = schema_number(connection)
    tables: Any = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").get
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (application or schema or tables):
        raise StoreNotOurs(
            f"The file at '{url}' is an SQLite database, but not a Perdure store: it has {tables} tables of "
            "something else.",
            hint="Name another file; this one was left as it is.",
        )


def _refuse_migration(connection: apsw.Connection, url: str) -> None:
    """Raise StoreVersionError for a file that whoever uses it would have to change first."""
    schema = schema_number(connection)
    if pending_migrations(MIGRATIONS, schema=schema, url=url):
        raise StoreVersionError(
            f"Store '{url}' has schema {schema}, and this release needs {MIGRATIONS[-1].number}: it would "
            "have to be changed, and this only looks.",
            hint="Copy the file, bring the copy up to date (`perdure doctor --store COPY`), and look there.",
        )


def _prepare(connection: apsw.Connection, *, url: str, read_only: bool) -> None:
    """Set what each connection must set anew, and bring the schema up to date."""
    pending = pending_migrations(MIGRATIONS, schema=schema_number(connection), url=url)
    if read_only:
        _refuse_old_schema(pending, url)
        return
    # Only a new file takes the page size: larger pages hold more of the index of records each.
    connection.execute("PRAGMA page_size = 8192")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    # The log shrinks to this after a burst.
    connection.execute("PRAGMA journal_size_limit = 67108864")
    _settle_log(connection)
    if pending:
        migrate(FileSchema(connection, url), MIGRATIONS)


def _switch_to_wal(connection: apsw.Connection) -> None:
    """Set WAL mode, which the file then keeps."""
    for _ in range(_TRIES_MAX):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except apsw.BusyError:
            # Another process switches too, and SQLite does not wait here by itself. It does wait to write.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        else:
            return
    connection.execute("PRAGMA journal_mode = WAL")


def _settle_log(connection: apsw.Connection) -> None:
    """Write what the log holds into the file, and begin a new log.

    The log may be that of a process whose sync failed before it died: then it shows
    commits that are not on the disk, and what is appended to them would be lost with
    them. Where others are at work already nothing is done: they came through here.
    """
    waited_ms: Any = connection.execute("PRAGMA busy_timeout").get
    connection.set_busy_timeout(0)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.set_busy_timeout(waited_ms)


def _refuse_old_schema(pending: tuple[Migration, ...], url: str) -> None:
    if pending:
        raise read_only(url, f"it must be brought to schema {MIGRATIONS[-1].number} before it can be used")
