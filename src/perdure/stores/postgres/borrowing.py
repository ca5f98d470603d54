"""Starts a run, or appends, on a connection of the user's: psycopg, asyncpg, or SQLAlchemy over one of them.

Each is done by one statement, which calls a function of the store's schema (migrations/0003 and 0005): so a
driver need only be able to run one. SQLAlchemy and asyncpg are known by the names of their classes, and
never imported. Nothing here begins, commits or rolls back.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...core.events import Append, Clash, Placed
from ...core.records import NewRun, RunRow, Status
from ...errors import StoreError, StoreUnavailable
from ..base import MoveMark, StartOutcome
from ..borrowing import elsewhere, is_of, no_transaction, unfit
from ..moves import closed
from ..starts import decide_start
from .appending import rounds_of
from .connection import Database

_WANTED: Final = (
    "a psycopg.Connection or AsyncConnection, an asyncpg.Connection, or SQLAlchemy's Connection, Session, "
    "AsyncConnection or AsyncSession over psycopg or asyncpg"
)
_BEGIN: Final = (
    "Begin one: `with connection.transaction():` for psycopg, `async with` for asyncpg; for SQLAlchemy leave "
    "isolation_level='AUTOCOMMIT' out."
)

Row = Sequence[Any]
"""What a function of the schema answers, or is asked; see `_read`."""
Ask = Callable[["Statement", Any, Row], Awaitable[list[Row]]]
Outcome = list[Placed] | Clash
T = TypeVar("T")


class Statement:
    """The one statement, as different drivers want it written."""

    def __init__(self, text: str, url: str) -> None:
        self.numbered = text
        self.plain = re.sub(r"\$\d+", "%s", text)
        self.url = url


class Borrowing:
    """Starts runs of one store, and appends to it, on connections that are not the store's own."""

    def __init__(self, database: Database, sql: dict[str, str]) -> None:
        self._database = database
        self._url = database.url
        self._start_once = Statement(sql["start_once"], database.url)
        self._append_events = Statement(sql["append_events"], database.url)
        self._identity = ""
        """Which database the store is in; empty while nobody asked."""

    def start_within(self, connection: Any, new: NewRun) -> StartOutcome | Awaitable[StartOutcome]:
        """See `Store.start_within`."""
        ask, is_async = _way_to_ask(connection, self._url)
        starting = self._start(ask, connection, new, is_async=is_async)
        return starting if is_async else _finished(starting)

    def append_within(
        self, connection: Any, append: Append, prepare: Callable[[], object]
    ) -> Outcome | Awaitable[Outcome]:
        """See `StreamStore.append_within`; `prepare` sees to it that the store can take it."""
        ask, is_async = _way_to_ask(connection, self._url)
        appending = self._append(ask, connection, append, prepare, is_async=is_async)
        return appending if is_async else _finished(appending)

    async def _start(self, ask: Ask, connection: Any, new: NewRun, *, is_async: bool) -> StartOutcome:
        given = (
            new.id, new.workflow, new.input, new.seed, json.dumps(dict(new.tags)), new.created_at_ms,
            new.deadline_ms, new.python,
        )  # fmt: skip
        (row,) = await self._ask(ask, self._start_once, connection, given, is_async=is_async)
        return self._read(row, new)

    async def _append(
        self, ask: Ask, connection: Any, append: Append, prepare: Callable[[], object], *, is_async: bool
    ) -> Outcome:
        (round_,) = rounds_of([append])
        rows: list[Row] = []
        if round_.columns.ids:
            for _ in range(2):  # what is prepared may be that the clock of the streams is set
                await _beside(prepare, is_async=is_async)
                given = round_.columns
                rows = await self._ask(ask, self._append_events, connection, given, is_async=is_async)
                if rows:
                    break
            else:
                raise StoreUnavailable(
                    f"The transaction began before store '{self._url}' knew that its server is another one "
                    "now. Nothing was appended.",
                    hint="Do it again in a new transaction.",
                )
        if rows and rows[0][0] == "moved":
            raise closed(_mark_of(json.loads(rows[0][3])), self._url)
        ((outcome,), _) = round_.outcomes(rows)
        return outcome

    async def _ask(
        self, ask: Ask, statement: Statement, connection: Any, given: Row, *, is_async: bool
    ) -> list[Row]:
        """What the function of a statement answers; raises StoreError where that is of another store."""
        before = self._identity
        if not before:
            self._identity = await _beside(self._look_up_identity, is_async=is_async)
        rows = await self._ask_once(ask, statement, connection, given)
        if _is_elsewhere(rows) and before:
            # The server may have been replaced since: then both connections are to the new one.
            self._identity = await _beside(self._look_up_identity, is_async=is_async)
            rows = await self._ask_once(ask, statement, connection, given)
        if _is_elsewhere(rows):
            raise elsewhere(self._url, "another database, or to a copy of it")
        return rows

    def _look_up_identity(self) -> str:
        ((identity,),) = self._database.rows("store_identity")
        return identity

    async def _ask_once(self, ask: Ask, statement: Statement, connection: Any, given: Row) -> list[Row]:
        try:
            return await ask(statement, connection, (self._identity, *given))
        except Exception as error:
            ours = _explained(error, self._url)
            if ours is None:
                raise
            raise ours from error

    def _read(self, row: Row, new: NewRun) -> StartOutcome:
        outcome, mark, number, generation, workflow, status, first_input = row
        if outcome == "moved":
            raise closed(_mark_of(json.loads(mark)), self._url)
        run = RunRow(
            number, new.id, generation, workflow, Status(status), new.input, None, new.seed, 0, 0,
            new.deadline_ms, None, "", new.on_parent_close, new.created_at_ms, None, new.python,
        )  # fmt: skip
        if outcome == "started":
            return StartOutcome("started", run)
        origin = None if first_input is None else run._replace(input=bytes(first_input))
        decided = decide_start(new, run, origin)
        assert decided is not None, f"run {new.id!r} was neither started nor refused"
        return decided


def _way_to_ask(connection: Any, url: str) -> tuple[Ask, bool]:
    """How a statement is run on such a connection, and whether that is to be awaited."""
    if isinstance(connection, psycopg.Connection):
        return _ask_psycopg, False
    if isinstance(connection, psycopg.AsyncConnection):
        return _ask_async_psycopg, True
    if is_of(connection, "asyncpg") and hasattr(connection, "is_in_transaction"):
        return _ask_asyncpg, True
    if is_of(connection, "sqlalchemy"):
        if hasattr(connection, "sync_connection") or hasattr(connection, "sync_session"):
            return _ask_async_sqlalchemy, True
        if hasattr(connection, "exec_driver_sql") or hasattr(connection, "get_bind"):
            return _ask_sqlalchemy, False
    raise unfit(connection, url, wanted=_WANTED)


def _is_elsewhere(rows: Sequence[Row]) -> bool:
    return bool(rows) and rows[0][0] == "elsewhere"


async def _beside(work: Callable[[], T], *, is_async: bool) -> T:
    """Work on the store's own connections; where the caller awaits, beside the loop."""
    return await asyncio.to_thread(work) if is_async else work()


def _finished(asked: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        asked.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a connection that blocks was awaited")


# -- the drivers ---------------------------------------------------------------------------------


async def _ask_psycopg(statement: Statement, connection: psycopg.Connection[Any], bindings: Row) -> list[Row]:
    _refuse_autocommit(connection, statement.url)
    # Not the connection's own kind of cursor and of row: they are the user's.
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    return [*cursor.execute(statement.numbered.encode(), bindings).fetchall()]


async def _ask_async_psycopg(
    statement: Statement, connection: psycopg.AsyncConnection[Any], bindings: Row
) -> list[Row]:
    _refuse_autocommit(connection, statement.url)
    cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
    await cursor.execute(statement.numbered.encode(), bindings)
    return [*await cursor.fetchall()]


async def _ask_asyncpg(statement: Statement, connection: Any, bindings: Row) -> list[Row]:
    if not connection.is_in_transaction():
        raise no_transaction(statement.url, hint=_BEGIN)
    return [tuple(row) for row in await connection.fetch(statement.numbered, *bindings)]


async def _ask_sqlalchemy(statement: Statement, connection: Any, bindings: Row) -> list[Row]:
    connection = connection.connection() if hasattr(connection, "get_bind") else connection
    result = connection.exec_driver_sql(_text_for(connection, connection, statement), tuple(bindings))
    return [tuple(row) for row in result.all()]


async def _ask_async_sqlalchemy(statement: Statement, connection: Any, bindings: Row) -> list[Row]:
    if hasattr(connection, "sync_session"):
        connection = await connection.connection()
    if connection.sync_connection is None:
        await connection.start()
    text = _text_for(connection, connection.sync_connection, statement)
    result = await connection.exec_driver_sql(text, tuple(bindings))
    return [tuple(row) for row in result.all()]


def _text_for(connection: Any, blocking: Any, statement: Statement) -> str:
    """The statement for the driver below SQLAlchemy. Raises StoreError unless it is one of those known."""
    dialect = blocking.dialect
    if dialect.name != "postgresql" or dialect.driver not in ("psycopg", "psycopg_async", "asyncpg"):
        found = unfit(connection, statement.url, wanted=_WANTED)
        raise StoreError(f"{found.what} It is over {dialect.name}+{dialect.driver}.", hint=found.hint)
    if blocking.connection.dbapi_connection.autocommit:
        raise no_transaction(statement.url, hint=_BEGIN)
    return statement.numbered if dialect.driver == "asyncpg" else statement.plain


def _refuse_autocommit(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], url: str) -> None:
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise no_transaction(url, hint=_BEGIN)


# -- what comes back -----------------------------------------------------------------------------


def _mark_of(columns: dict[str, Any]) -> MoveMark:
    return MoveMark(columns["stage"], columns["move"], columns["turn"], columns["other"], columns["at_ms"])


def _explained(error: Exception, url: str) -> StoreError | None:
    """What an error of any driver means, where it is about the store; the others are the user's."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    if state in ("42883", "3F000"):  # no such function, no such schema
        return elsewhere(url, "a database that has no such store")
    if state == "42501":
        return StoreUnavailable(
            f"The user of the connection may not write to store '{url}': {error}.",
            hint="Have the owner of the store GRANT USAGE ON SCHEMA, and EXECUTE ON FUNCTION start_run_once "
            "to start runs, append_events to append events.",
        )
    return None
