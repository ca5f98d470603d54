"""Runs that are started on the user's own connections to PostgreSQL, by whatever driver, and by SQL."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from perdure.core.records import Status
from perdure.errors import StoreError, StoreMoved, StoreUnavailable
from perdure.stores.base import Batch, Lease, MoveMark, StartOutcome
from perdure.stores.postgres import PostgresStore
from tests.stores.build import end, new_run, submit

MAKES_AWAITED: list[Callable[[Any], Any]] = [AsyncSession, lambda engine: engine.connect()]
MOVING = MoveMark("moving", "m1", 1, "sqlite:////there.db", 5_000)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def connection(store: PostgresStore, postgres_server: str) -> Iterator[psycopg.Connection]:
    """The user's own."""
    with psycopg.connect(postgres_server) as opened:
        yield opened
        opened.rollback()


def at(server: str, driver: str) -> str:
    """The server's URL for SQLAlchemy."""
    parts = urlsplit(server)
    return parts._replace(scheme=f"postgresql+{driver}", netloc=parts.netloc or "postgres@").geturl()


def begin(store: PostgresStore, connection: Any, run_id: str = "order-17", **changes: Any) -> StartOutcome:
    outcome = store.start_within(connection, new_run(run_id, **changes))
    assert isinstance(outcome, StartOutcome)
    return outcome


async def begin_later(store: PostgresStore, connection: Any) -> None:
    outcome = await cast(Awaitable[StartOutcome], store.start_within(connection, new_run()))
    assert outcome.verdict == "started"


def run_sql(server: str, query: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(query.encode())


def is_there(store: PostgresStore) -> bool:
    return store.run_by_id("order-17") is not None


# -- drivers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
async def test_psycopg_awaited(store: PostgresStore, postgres_server: str, commits: bool) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_server) as connection:
        await begin_later(store, connection)
        before = is_there(store)
        await (connection.commit() if commits else connection.rollback())

        assert (before, is_there(store)) == (False, commits)


@pytest.mark.parametrize("commits", [True, False])
async def test_asyncpg(store: PostgresStore, postgres_server: str, commits: bool) -> None:
    connection = await asyncpg.connect(postgres_server)
    transaction = connection.transaction()
    await transaction.start()
    await begin_later(store, connection)
    before = is_there(store)
    await (transaction.commit() if commits else transaction.rollback())
    await connection.close()

    assert (before, is_there(store)) == (False, commits)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("make", [Session, lambda engine: engine.connect()], ids=["session", "connection"])
def test_sqlalchemy(
    store: PostgresStore, postgres_server: str, make: Callable[[Any], Any], commits: bool
) -> None:
    engine = create_engine(at(postgres_server, "psycopg"))
    with make(engine) as connection:
        begin(store, connection)
        before = is_there(store)
        if commits:
            connection.commit()
    engine.dispose()

    assert (before, is_there(store)) == (False, commits)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize(
    "make", [AsyncSession, lambda engine: engine.connect()], ids=["session", "connection"]
)
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_sqlalchemy_awaited(
    store: PostgresStore, postgres_server: str, make: Callable[[Any], Any], driver: str, commits: bool
) -> None:
    engine = create_async_engine(at(postgres_server, driver))
    async with make(engine) as connection:
        await begin_later(store, connection)
        before = is_there(store)
        if commits:
            await connection.commit()
    await engine.dispose()

    assert (before, is_there(store)) == (False, commits)


def test_a_savepoint_that_is_undone_takes_its_run_with_it(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    begin(store, connection, "kept")
    with connection.transaction(force_rollback=True):
        begin(store, connection)

    connection.commit()

    assert not is_there(store)
    assert store.run_by_id("kept") is not None


def test_the_rows_of_a_connection_may_be_of_any_kind(store: PostgresStore, postgres_server: str) -> None:
    with psycopg.connect(
        postgres_server, row_factory=dict_row, cursor_factory=psycopg.ClientCursor
    ) as connection:
        begin(store, connection, tags=(("shop", "ä"),))

    row = store.run_by_id("order-17")
    assert row is not None
    assert (row.input, row.lease, row.wake_at_ms) == (b'{"cents":4200}', 0, 0)
    assert store.tags_of([row.number]) == {row.number: {"shop": "ä"}}


# -- what is refused -----------------------------------------------------------------------------


async def test_a_connection_that_commits_each_statement_is_refused(
    store: PostgresStore, postgres_server: str
) -> None:
    blocking = create_engine(at(postgres_server, "psycopg"), isolation_level="AUTOCOMMIT")
    awaited = create_async_engine(at(postgres_server, "asyncpg"), isolation_level="AUTOCOMMIT")
    plain = await asyncpg.connect(postgres_server)

    with blocking.connect() as connection, pytest.raises(StoreError, match="no transaction open"):
        begin(store, connection)
    async with awaited.connect() as connection:
        with pytest.raises(StoreError, match="no transaction open"):
            await begin_later(store, connection)
    with pytest.raises(StoreError, match="no transaction open"):
        await begin_later(store, plain)

    await plain.close()
    await awaited.dispose()
    blocking.dispose()
    assert not is_there(store)


def test_a_block_of_a_connection_in_autocommit_is_a_transaction(
    store: PostgresStore, postgres_server: str
) -> None:
    with psycopg.connect(postgres_server, autocommit=True) as connection, connection.transaction():
        begin(store, connection)

    assert is_there(store)


def test_sqlalchemy_over_another_database_is_refused(store: PostgresStore) -> None:
    engine = create_engine("sqlite://")

    with engine.connect() as connection, pytest.raises(StoreError, match=r"over sqlite\+pysqlite"):
        begin(store, connection)
    engine.dispose()


def test_a_database_that_has_no_such_store_is_refused(store: PostgresStore, postgres_server: str) -> None:
    connection = psycopg.connect(postgres_server, dbname="template1")

    with connection, pytest.raises(StoreError, match="has no such store"):
        begin(store, connection)


def test_a_store_of_the_same_name_in_another_database_is_refused_and_the_transaction_goes_on(
    store: PostgresStore, postgres_server: str, postgres_url: str
) -> None:
    database = postgres_url.rpartition("=")[2]
    run_sql(postgres_server, f"CREATE DATABASE {database}")
    PostgresStore(urlsplit(postgres_url)._replace(path=f"/{database}").geturl()).close()

    with psycopg.connect(postgres_server, dbname=database) as connection:
        with pytest.raises(StoreError, match="copy of it"):
            begin(store, connection)
        goes_on = connection.execute("SELECT 1").fetchone() == (1,)

    assert goes_on
    run_sql(postgres_server, f"DROP DATABASE {database} WITH (FORCE)")


def test_who_may_not_is_told_what_to_grant(
    store: PostgresStore, connection: psycopg.Connection, postgres_url: str
) -> None:
    schema = postgres_url.rpartition("=")[2]
    connection.execute(f"CREATE ROLE {schema}_app; GRANT USAGE ON SCHEMA {schema} TO {schema}_app".encode())
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL ROLE {schema}_app".encode())
        with pytest.raises(StoreUnavailable, match="EXECUTE ON FUNCTION start_run_once"):
            begin(store, connection)

    connection.execute(f"GRANT EXECUTE ON FUNCTION {schema}.start_run_once TO {schema}_app".encode())
    connection.execute(f"SET LOCAL ROLE {schema}_app".encode())

    assert begin(store, connection).verdict == "started"


# -- others at the same time ---------------------------------------------------------------------


def test_workers_are_told_when_it_commits(store: PostgresStore, connection: psycopg.Connection) -> None:
    heard = threading.Semaphore(0)
    store.acquire("w", now_ms=0, ttl_ms=60_000)
    assert store.listen(heard.release)
    assert heard.acquire(timeout=10)  # it looks once when it has begun to listen

    begin(store, connection)
    before = heard.acquire(timeout=0.1)
    connection.commit()

    assert not before
    assert heard.acquire(timeout=10)


def test_an_id_that_an_open_transaction_has_is_waited_for(
    store: PostgresStore, connection: psycopg.Connection, postgres_server: str
) -> None:
    begin(store, connection)
    outcomes: list[StartOutcome] = []
    with psycopg.connect(postgres_server) as second:
        waiting = threading.Thread(target=lambda: outcomes.append(begin(store, second)))
        waiting.start()
        query = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
        while not store._database.read(lambda link: link.query(query, second.info.backend_pid)):
            assert waiting.is_alive()
        connection.commit()
        waiting.join()

    assert [outcome.verdict for outcome in outcomes] == ["existing"]


@pytest.mark.parametrize("temporary", ["run", "move_mark", "move_gate"])
def test_a_temporary_table_of_the_callers_is_not_taken_for_the_stores(
    store: PostgresStore, connection: psycopg.Connection, temporary: str
) -> None:
    connection.execute(f"CREATE TEMP TABLE {temporary} (x int)".encode())

    begin(store, connection)
    connection.commit()

    assert is_there(store)


# -- moves ---------------------------------------------------------------------------------------


def test_a_store_that_was_moved_takes_no_start(store: PostgresStore, connection: psycopg.Connection) -> None:
    store.mark_move(None, MOVING, now_ms=0)

    with pytest.raises(StoreMoved, match=r"being moved to 'sqlite:////there.db'"):
        begin(store, connection)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        connection.execute(f"SELECT {store._database.place.schema}.start_run('checkout', '{{}}')".encode())


def test_a_mark_waits_for_the_transaction_of_a_start(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    begin(store, connection)
    marking = threading.Thread(target=lambda: store.mark_move(None, MOVING, now_ms=0))
    marking.start()
    query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not store._database.read(lambda link: link.query(query)):
        assert marking.is_alive()
    before = store.move_mark()
    connection.commit()
    marking.join()

    assert before is None
    assert store.move_mark() == MOVING
    assert is_there(store)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_that_sees_the_moment_before_the_move_starts_nothing(
    store: PostgresStore, connection: psycopg.Connection, level: str
) -> None:
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
    connection.execute("SELECT count(*) FROM pg_class")
    store.mark_move(None, MOVING, now_ms=0)

    with pytest.raises(psycopg.errors.SerializationFailure):
        begin(store, connection)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_of_any_level_starts_runs(
    store: PostgresStore, connection: psycopg.Connection, level: str
) -> None:
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())

    begin(store, connection)
    connection.commit()

    assert is_there(store)


# -- by SQL --------------------------------------------------------------------------------------


def by_sql(store: PostgresStore, connection: psycopg.Connection, arguments: str) -> str:
    query = f"SELECT {store._database.place.schema}.start_run({arguments})"
    ((run_id,),) = connection.execute(query.encode()).fetchall()
    connection.commit()
    return run_id


def test_a_run_is_started_by_sql(store: PostgresStore, connection: psycopg.Connection) -> None:
    given = (
        """'checkout', '{"cents": 4200}', id => 'order-17', tags => '{"shop": "a"}', timeout => '1 hour'"""
    )

    run_id = by_sql(store, connection, given)

    row = store.run_by_id("order-17")
    assert row is not None
    assert (run_id, row.workflow, row.input, row.lease) == ("order-17", "checkout", b'{"cents": 4200}', 0)
    assert (len(row.seed), (row.deadline_ms or 0) - row.created_at_ms) == (16, 3_600_000)
    assert store.tags_of([row.number]) == {row.number: {"shop": "a"}}


def test_a_run_that_is_started_by_sql_without_an_id_gets_one(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    first, second = (by_sql(store, connection, "'checkout', '{}'") for _ in range(2))

    assert first != second
    assert store.run_by_id(first) is not None


def test_inputs_that_differ_in_spaces_and_order_are_the_same(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    by_sql(store, connection, """'checkout', '{"b": [1, 2], "a": {}}', id => 'order-17'""")

    outcome = begin(store, connection, input=b'{"a":{},"b":[1,2]}')
    again = by_sql(store, connection, """'checkout', '{"a":{},  "b":[1,2]}', id => 'order-17'""")

    assert outcome.verdict == "existing"
    assert again == "order-17"


@pytest.mark.parametrize("other", ["""'other', '{"cents":4200}'""", "'checkout', '{}'"])
def test_an_id_of_another_run_is_an_error_in_sql(
    store: PostgresStore, connection: psycopg.Connection, other: str
) -> None:
    submit(store)

    with pytest.raises(psycopg.errors.UniqueViolation, match="order-17"):
        by_sql(store, connection, f"{other}, id => 'order-17'")


@pytest.mark.parametrize(
    "wrong", ["'', '{}'", "'checkout', '[]'", "'checkout', NULL", "'checkout', '{}', ''"]
)
def test_what_is_no_start_is_an_error_in_sql(
    store: PostgresStore, connection: psycopg.Connection, wrong: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="JSON object"):
        by_sql(store, connection, wrong)


def test_an_id_whose_run_continued_is_compared_with_what_was_once_started(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    submit(store)
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    continue_as_new(store, lease)

    outcomes = [begin(store, connection, input=data).verdict for data in (b'{"cents":4200}', b'{"next":1}')]

    assert outcomes == ["existing", "conflict"]


def continue_as_new(store: PostgresStore, lease: Lease) -> None:
    """End the run as one that goes on with another input."""
    row = store.run_by_id("order-17")
    assert row is not None
    store.claim_these(lease, [row.number], now_ms=0)
    ended = end(row.number, Status.CONTINUED)
    store.commit(lease, Batch(ends=[ended], starts=[new_run(input=b'{"next":1}')]))
