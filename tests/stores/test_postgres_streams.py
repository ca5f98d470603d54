"""Event streams on PostgreSQL: concurrent writers, the same event twice at once, the user's connections."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from perdure.core.events import Append, Clash, NewEvent, Placed
from perdure.core.standing import KeepRule
from perdure.errors import StoreError, StoreMoved
from perdure.stores.base import Batch, MoveMark
from perdure.stores.postgres import PostgresStore
from tests.stores.test_postgres_borrowing import at
from tests.stores.test_postgres_listen import Hearing
from tests.stores.test_stream import append, append_all, make, names

WRITERS = 16
TAKEN = MoveMark("moving", "m1", 1, "sqlite:////there.db", 5_000)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def other(postgres_url: str) -> Iterator[PostgresStore]:
    """The store as another process has it."""
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def connection(store: PostgresStore, postgres_server: str) -> Iterator[psycopg.Connection]:
    """The user's own."""
    with psycopg.connect(postgres_server) as opened:
        yield opened
        opened.rollback()


def within(store: PostgresStore, connection: Any, *events: NewEvent) -> list[Placed]:
    outcome = store.streams.append_within(connection, Append("orders", events))
    assert isinstance(outcome, list)
    return outcome


def read_naively(store: PostgresStore, after: int) -> list[str]:
    """As `WHERE id > last` would."""
    events = store._streams
    rows = events._database.rows("events_after", stream_of(store), after, 100)
    return [row[1] for row in rows]


def stream_of(store: PostgresStore) -> int:
    ((number,),) = store._database.read(
        lambda link: link.query(f"SELECT number FROM {link_schema(store)}.stream WHERE name = 'orders'")
    )
    return number


def link_schema(store: PostgresStore) -> str:
    return f'"{store._database.place.schema}"'


# -- positions -----------------------------------------------------------------------------------


def test_an_event_that_is_committed_late_at_a_lower_position_is_not_skipped(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection
) -> None:
    append(store, make("before"))
    (late,) = within(store, connection, make("late"))
    (quick,) = append_all(other, make("quick"))

    first = store.streams.events("orders", after=0, limit=10)
    naive = read_naively(store, 0)
    connection.commit()
    rest = store.streams.events("orders", after=first.after, limit=10)

    assert late.position < quick.position
    assert naive == ["before", "quick"]  # who goes on after the last of these never gets to `late`
    assert ([event.id for event in first.events], first.is_held_back) == (["before"], True)
    assert first.after < late.position
    assert ([event.id for event in rest.events], rest.is_held_back) == (["late", "quick"], False)


def test_an_event_whose_append_is_undone_holds_nothing_back(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection
) -> None:
    within(store, connection, make("undone"))
    append(other, make("quick"))

    connection.rollback()

    assert names(store) == ["quick"]


def test_of_sixteen_writers_at_once_no_event_is_skipped_and_each_keeps_its_order(
    store: PostgresStore, postgres_url: str
) -> None:
    each, stop = 40, threading.Event()
    read: list[tuple[int, str]] = []

    def follow() -> None:
        after = 0
        while True:
            was_over = stop.is_set()
            page = store.streams.events("orders", after=after, limit=50)
            read.extend((event.position, event.id) for event in page.events)
            after = page.after
            if was_over and not page.events:
                return

    def write(writer: int) -> None:
        with psycopg.connect(postgres_url.partition("?schema")[0].partition("&schema")[0]) as mine:
            for number in range(0, each, 2):
                # Two transactions that overlap: one of the writer's own, and one that commits before it.
                within(store, mine, make(f"{writer}/{number}", resent=False))
                append(store, make(f"{writer}/{number + 1}", resent=False))
                mine.commit()

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))
    stop.set()
    reader.join(30)

    assert [position for position, _ in read] == sorted(position for position, _ in read)
    assert sorted(name for _, name in read) == sorted(
        f"{writer}/{number}" for writer in range(WRITERS) for number in range(each)
    )


def test_events_of_one_transaction_have_their_own_positions_also_after_a_savepoint(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    first = within(store, connection, make("a"), make("b"))
    connection.execute("SAVEPOINT s")
    within(store, connection, make("undone"))
    connection.execute("ROLLBACK TO s")
    second = within(store, connection, make("c"))
    connection.commit()
    (third,) = within(store, connection, make("d"))
    connection.commit()

    positions = [one.position for one in (*first, *second, third)]
    assert positions == sorted(set(positions))
    assert names(store) == ["a", "b", "c", "d"]


def test_a_subscription_to_what_comes_next_has_no_event_that_was_there_and_all_that_come(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection
) -> None:
    append(store, make("old"))
    (late,) = within(store, connection, make("late", key="l"))
    (there,) = append_all(other, make("there", key="t"))

    row = store.streams.subscribe("orders", "h", lanes=4, from_start=False)
    connection.commit()
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    lanes = store.streams.claim_lanes(lease, [row.number], now_ms=0)

    assert {lane.cursor < late.position for lane in lanes} == {True}
    assert [done for lane in lanes for done in lane.done] == [there.position] * 2  # from it to it


# -- another life of the server ------------------------------------------------------------------


def forget_life(store: PostgresStore) -> None:
    """Have the store stand in a server that is not the one which its clock was set in."""
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as link:  # type: ignore[arg-type]
        link.execute(f"UPDATE {link_schema(store)}.stream_clock SET life = 'another'".encode())


@pytest.mark.parametrize("by", ["submit", "within", "opening"])
def test_in_another_life_of_the_server_positions_go_on_far_above_all_that_were_given(
    store: PostgresStore, connection: psycopg.Connection, postgres_url: str, by: str
) -> None:
    (before,) = append_all(store, make("before"))
    page = store.streams.events("orders", after=0, limit=10)

    forget_life(store)
    if by == "opening":
        PostgresStore(postgres_url).close()
    if by == "within":
        (after,) = within(store, connection, make("after"))
        connection.commit()
    else:
        (after,) = append_all(store, make("after"))
    (later,) = append_all(store, make("later"))

    assert after.position - before.position > 1 << 51
    assert later.position - after.position < 1 << 30
    rest = store.streams.events("orders", after=page.after, limit=10)
    assert [event.id for event in rest.events] == ["after", "later"]


def test_a_store_that_was_copied_to_a_server_with_lower_numbers_goes_on_above_its_cursors(
    store: PostgresStore,
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=1, from_start=True)
    schema, far = link_schema(store), 1 << 60
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as link:  # type: ignore[arg-type]
        link.execute(f"UPDATE {schema}.lane SET cursor = {far} WHERE subscription = {row.number}".encode())
    forget_life(store)

    (placed,) = append_all(store, make("a"))

    assert placed.position > far
    assert names(store, after=far) == ["a"]


# -- one event, appended twice at once ------------------------------------------------------------


@pytest.mark.parametrize(
    ("commits", "payload", "expected", "there"),
    [
        (True, b"1", Placed(0, True), ["x", "y"]),
        (True, b"2", Clash(0, 0), ["x"]),
        (False, b"2", Placed(0, False), ["y", "x"]),
    ],
)
def test_of_two_that_append_the_same_event_at_once_the_second_waits_and_goes_by_the_first(
    store: PostgresStore,
    other: PostgresStore,
    connection: psycopg.Connection,
    commits: bool,
    payload: bytes,
    expected: Placed | Clash,
    there: list[str],
) -> None:
    within(store, connection, make("x"))
    with ThreadPoolExecutor(1) as second:
        answer = second.submit(append, other, make("y"), make("x", payload))
        wait_for_lock(store)
        waited = not answer.done()
        connection.commit() if commits else connection.rollback()
        outcome = answer.result(10)

    found = outcome._replace(place=0, position=0) if isinstance(outcome, Clash) else outcome[1]
    assert waited
    assert found._replace(position=0) == expected
    assert names(store) == there


def test_what_a_subscription_begins_with_is_not_let_go_of_while_it_is_made(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection
) -> None:
    append_all(store, make("a"), make("b"))
    schema, rule = link_schema(store), KeepRule("orders", 0, None, waits=True)
    for statement in (
        "SELECT 1 FROM {}.stream FOR SHARE",
        "INSERT INTO {}.subscription (number, stream, name, lanes) SELECT 1, number, 'h', 1 FROM {}.stream",
        "INSERT INTO {}.lane (subscription, lane, lease, cursor, done) VALUES (1, 0, 0, 0, '{{}}')",
    ):
        connection.execute(statement.format(schema, schema).encode())

    with ThreadPoolExecutor(1) as second:
        answer = second.submit(other.streams.let_go, rule, now_ms=1 << 50, limit=10)
        wait_for_lock(store)
        connection.commit()

    assert answer.result(10) == 0
    assert names(store) == ["a", "b"]


def wait_for_lock(store: PostgresStore) -> None:
    """Until somebody waits for what another transaction does."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    while not store._database.read(lambda link: link.query(waiting))[0][0]:
        pass


def test_who_makes_a_stream_in_a_long_transaction_holds_up_nobody(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection
) -> None:
    within(store, connection, make("long"))

    append(other, make("short"))
    connection.commit()

    assert names(other) == ["long", "short"]


def test_two_batches_that_append_the_same_events_in_another_order_do_not_hang(
    store: PostgresStore, other: PostgresStore
) -> None:
    events = [make(f"{number}") for number in range(200)]

    with ThreadPoolExecutor(2) as both:
        answers = [
            both.submit(append_all, store, *events), both.submit(append_all, other, *reversed(events))
        ]  # fmt: skip
        outcomes = [answer.result(20) for answer in answers]

    assert sum(not one.is_duplicate for outcome in outcomes for one in outcome) == 200
    assert sorted(names(store, limit=300)) == sorted(event.id for event in events)


# -- connections of the user's ---------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
def test_sqlalchemy(store: PostgresStore, postgres_server: str, commits: bool) -> None:
    engine = create_engine(at(postgres_server, "psycopg"))
    with Session(engine) as session:
        within(store, session, make("a"), make("b", resent=False))
        if commits:
            session.commit()
    engine.dispose()

    assert names(store) == (["a", "b"] if commits else [])


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "sqlalchemy"])
async def test_awaited(store: PostgresStore, postgres_server: str, driver: str, commits: bool) -> None:
    async def work(connection: Any) -> None:
        outcome = store.streams.append_within(
            connection, Append("orders", [make("a"), make("b", resent=False)])
        )
        assert isinstance(await cast(Awaitable[Any], outcome), list)

    if driver == "psycopg":
        async with await psycopg.AsyncConnection.connect(postgres_server) as connection:
            await work(connection)
            await (connection.commit() if commits else connection.rollback())
    elif driver == "asyncpg":
        raw = await asyncpg.connect(postgres_server)
        transaction = raw.transaction()
        await transaction.start()
        await work(raw)
        await (transaction.commit() if commits else transaction.rollback())
        await raw.close()
    else:
        engine = create_async_engine(at(postgres_server, "asyncpg"))
        async with engine.connect() as opened:
            await work(opened)
            await (opened.commit() if commits else opened.rollback())
        await engine.dispose()

    assert names(store) == (["a", "b"] if commits else [])


def test_an_append_is_refused_without_a_transaction_or_in_another_database(
    store: PostgresStore, postgres_server: str
) -> None:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS elsewhere")
        connection.execute("CREATE DATABASE elsewhere")
        with pytest.raises(StoreError, match="transaction"):
            within(store, connection, make("a"))
        away = psycopg.connect(postgres_server, dbname="elsewhere")
        with away, pytest.raises(StoreError, match="has no such store"):
            within(store, away, make("a"))
        connection.execute("DROP DATABASE elsewhere")

    assert names(store) == []


def test_an_append_to_a_store_that_is_moved_is_refused(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    store.mark_move(None, TAKEN, now_ms=5)

    with pytest.raises(StoreMoved):
        within(store, connection, make("a"))
    with pytest.raises(StoreMoved):
        append(store, make("a"))


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_in_a_transaction_that_sees_one_moment_a_duplicate_is_found_or_it_fails(
    store: PostgresStore, connection: psycopg.Connection, level: str
) -> None:
    append(store, make("known"))
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
    connection.execute("SELECT 1")
    append(store, make("since"))

    known, new = within(store, connection, make("known"), make("new"))
    with pytest.raises(psycopg.errors.SerializationFailure):
        within(store, connection, make("since"))

    assert (known.is_duplicate, new.is_duplicate) == (True, False)


# -- telling, claiming, and what is lost on the way -----------------------------------------------


@pytest.mark.parametrize("by", ["submit", "commit", "within"])
def test_an_append_of_another_process_is_told(
    store: PostgresStore, other: PostgresStore, connection: psycopg.Connection, by: str
) -> None:
    lease = other.acquire("theirs", now_ms=0, ttl_ms=60_000)
    hearing = Hearing(store)
    hearing.forget()

    if by == "within":
        within(store, connection, make("a"))
        before = hearing.is_told(within_s=0.1)
        connection.commit()
    else:
        before = False
        batch = Batch(appends=[Append("orders", [make("a")])])
        other.submit(batch) if by == "submit" else other.commit(lease, batch)

    assert not before
    assert hearing.is_told()


def test_of_workers_that_claim_at_once_each_lane_goes_to_one(postgres_url: str, store: PostgresStore) -> None:
    row = store.streams.subscribe("orders", "h", lanes=64, from_start=True)
    stores = [PostgresStore(postgres_url) for _ in range(8)]
    leases = [one.acquire(f"w{number}", now_ms=0, ttl_ms=60_000) for number, one in enumerate(stores)]
    together = threading.Barrier(len(stores))

    def claim(number: int) -> list[int]:
        together.wait()
        lanes = stores[number].streams.claim_lanes(leases[number], [row.number], now_ms=0)
        return [lane.lane for lane in lanes]

    with ThreadPoolExecutor(len(stores)) as threads:
        claimed = [lane for lanes in threads.map(claim, range(len(stores))) for lane in lanes]
    for one in stores:
        one.close()

    assert sorted(claimed) == list(range(64))


def test_a_lane_of_a_lease_whose_row_has_gone_is_free(store: PostgresStore, other: PostgresStore) -> None:
    row = store.streams.subscribe("orders", "h", lanes=2, from_start=True)
    gone = store.acquire("gone", now_ms=0, ttl_ms=60_000)
    store.streams.claim_lanes(gone, [row.number], now_ms=0)
    store.release(gone)
    heir = other.acquire("heir", now_ms=0, ttl_ms=60_000)  # which forgets the other lease

    assert len(other.streams.claim_lanes(heir, [row.number], now_ms=0)) == 2


def test_appending_reads_no_table_from_end_to_end(
    store: PostgresStore, connection: psycopg.Connection
) -> None:
    """Nor on a connection of the user's, whose plans are its own."""
    events = [make(f"{number}") for number in range(2_000)]
    append(store, *events)
    schema = store._database.place.schema
    connection.execute(f'ANALYZE "{schema}".event'.encode())
    count = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'event'"
    flush = "SELECT pg_stat_force_next_flush()"

    connection.execute(flush)
    connection.commit()
    ((before,),) = connection.execute(count, (schema,)).fetchall()
    connection.commit()
    for _ in range(3):
        within(store, connection, *events[:3], make("new", resent=False), make("other"))
    outcome = store.streams.append_within(connection, Append("orders", [make("5"), make("6", b"2")]))
    connection.execute(flush)
    connection.commit()
    ((after,),) = connection.execute(count, (schema,)).fetchall()

    assert isinstance(outcome, Clash)
    assert after == before
