"""Commits that are one message, beginning and end: how they are refused, and what if none answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from urllib.parse import quote

import psycopg
import pytest

from perdure.core.events import LaneMark
from perdure.errors import CommitsLost, LeaseLost, StoreError
from perdure.stores.base import Batch, Lease, Transaction
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from tests.stores.build import end, record, signal, start
from tests.stores.cutting import Way, way_to

GIVEN_UP = LaneMark(7, (), 1, 0, is_given_up=True)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: PostgresStore) -> Lease:
    return store.acquire("w", now_ms=0, ttl_ms=60_000)


@pytest.fixture
def way(postgres_server: str) -> Iterator[Way]:
    with way_to(postgres_server) as way:
        yield way


@pytest.fixture
def far(way: Way, store: PostgresStore) -> Iterator[PostgresStore]:
    """The same store, at the end of a way that can be cut."""
    opened = PostgresStore(way.url(store._database.place.schema))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("batch", "trips"),
    [
        (lambda run: Batch(records=[record(run, 1)]), 1),
        (lambda run: Batch(records=[record(run, 1)], wakes=[(1, 0, run)], taken=[17], leases=1), 1),
        (lambda run: Batch(wakes=[(1, 0, run)]), 2),  # nothing would show whether it was written
        (lambda run: Batch(records=[record(run, 0)], forgotten=[(run, 0)]), 2),
        (lambda run: Batch(records=[record(run, 1)], messages=[signal(run)]), 2),
        (lambda run: Batch(records=[record(run, 1)], lanes=[LaneMark(7, (), 1, 0)]), 1),
        (lambda run: Batch(records=[record(run, 1)], lanes=[GIVEN_UP]), 2),  # others are told
    ],
    ids=["records", "more", "no record", "forgotten", "messages", "lanes", "a lane is given up"],
)
def test_what_needs_no_answer_is_written_in_one_round_trip(
    far: PostgresStore, way: Way, batch: object, trips: int
) -> None:
    assert callable(batch)
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    far.commit(lease, Batch(records=[record(run, 0)]))

    before = way.syncs
    far.commit(lease, batch(run))

    assert way.syncs - before == trips


def test_a_lease_that_has_ended_refuses_it_and_nothing_of_it_is_written(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    store._database.rows("end_lease", lease.number)

    with pytest.raises(LeaseLost, match="Nothing was written"):
        store.commit(lease, Batch(records=[record(run, 0)], ends=[end(run)]))

    row = store.run_by_number(run)
    assert row is not None
    assert (row.status, store.records(run)) == (1, [])


@pytest.mark.parametrize("setting", ["isolation=repeatable\\ read", "read_only=on"])
def test_how_transactions_begin_by_default_does_not_matter(
    store: PostgresStore, postgres_url: str, setting: str
) -> None:
    options = quote(f"-c default_transaction_{setting}")
    with closing(PostgresStore(f"{postgres_url}&options={options}")) as other:
        lease = other.acquire("other", now_ms=0, ttl_ms=60_000)
        run = start(other, lease)
        other.commit(lease, Batch(records=[record(run, 0)]))
        writer = other._database._writer

    assert writer is not None
    assert writer.is_sent, "it was one message"
    assert len(store.records(run)) == 1


def test_it_sees_what_was_committed_while_it_waited_whatever_a_step_has_set(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    writer = store._database._writer
    assert writer is not None
    writer.do("SET default_transaction_isolation = 'repeatable read'")  # as a step may that it was lent to
    locked = store._database.connect()
    with locked.transaction():
        locked.run("lock_lease", store._leases._space, lease.number)
    thread, refused = committing(store, lease, Batch(records=[record(run, 0)]))
    while not store._database.read(lambda link: link.query(_WAITS_FOR_A_LEASE))[0][0]:
        pass
    locked.run("end_lease", lease.number)
    locked.do("COMMIT")
    thread.join()
    locked.close()

    assert [type(error) for error in refused] == [LeaseLost]
    assert store.records(run) == []


_WAITS_FOR_A_LEASE = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"


def committing(store: PostgresStore, lease: Lease, batch: Batch) -> tuple[threading.Thread, list[Exception]]:
    """A thread that commits, and how it was refused."""
    refused: list[Exception] = []

    def commit() -> None:
        try:
            store.commit(lease, batch)
        except Exception as error:
            refused.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    return thread, refused


def test_of_one_that_cannot_be_put_together_nothing_is_written(store: PostgresStore, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, 0)]))
    unfit = record(run, 2)._replace(key="\0")

    with pytest.raises(StoreError, match="a NUL character"):
        store.commit(lease, Batch(ends=[end(run)], records=[record(run, 1), unfit]))

    row = store.run_by_number(run)
    assert row is not None
    assert (row.status, len(store.records(run))) == (1, 1)
    store.commit(lease, Batch(records=[record(run, 1)]))
    assert len(store.records(run)) == 2


def test_a_lease_is_not_ended_while_it_is_under_way(store: PostgresStore, lease: Lease) -> None:
    run = start(store, lease)
    schema = store._database.place.schema
    thread = threading.Thread(target=store.commit, args=(lease, Batch(records=[record(run, 0)])))
    with psycopg.connect(**store._database.place.parameters) as other:  # type: ignore[arg-type]
        other.execute(f"LOCK TABLE {schema}.record IN SHARE MODE".encode())
        thread.start()
        wait_until_blocked(store)

        alone = store._database.rows("try_lock_lease", store._leases._space, lease.number)
    thread.join()

    assert alone == [(False,)]
    assert len(store.records(run)) == 1


def wait_until_blocked(store: PostgresStore, sessions: int = 1) -> None:
    """Until so many sessions wait for a lock of a table."""
    schema = store._database.place.schema
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass"
    while store._database.read(lambda link: link.query(waiting, f"{schema}.record")) != [(sessions,)]:
        pass


def test_one_that_the_server_still_carries_out_when_it_is_asked_for_is_ended_and_written_once(
    store: PostgresStore, far: PostgresStore, way: Way
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    schema = store._database.place.schema
    way.cut_at_commit("after")
    thread = threading.Thread(target=far.commit, args=(lease, Batch(records=[record(run, 0)])))
    with psycopg.connect(**store._database.place.parameters) as other:  # type: ignore[arg-type]
        other.execute(f"LOCK TABLE {schema}.record IN ACCESS EXCLUSIVE MODE".encode())
        thread.start()
        while way.cuts == 0:
            pass
        wait_until_blocked(store)
    thread.join()

    assert len(store.records(run)) == 1
    assert list(store.check()) == []


def test_one_that_is_just_being_committed_when_it_is_asked_for_is_waited_for(
    store: PostgresStore, way: Way
) -> None:
    slow = "&options=-c%20commit_delay%3D100000%20-c%20commit_siblings%3D0"  # each COMMIT takes 0.1 s
    far = PostgresStore(way.url(store._database.place.schema) + slow)
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)

    for seq in range(6):
        way.cut_at_commit("after")
        far.commit(lease, Batch(records=[record(run, seq)]))

    assert way.cuts == 6
    assert len(store.records(run)) == 6
    far.close()


def test_after_waiting_for_its_end_a_session_has_gone(store: PostgresStore) -> None:
    left: list[object] = []
    for _ in range(10):
        old, new = store._database.connect(), store._database.connect()
        with old.transaction():
            old.run("pause", 0)

        new.wait_for_end(old)

        left += new.query("SELECT 1 FROM pg_stat_get_activity($1::int4)", old.pid)
        for link in (old, new):
            link.close()

    assert left == []


@pytest.fixture
def asked(store: PostgresStore, lease: Lease) -> Iterator[Link]:
    """A connection that broke before its last message was answered: record 0 of run 1."""
    start(store, lease)
    link = store._database.connect()
    link.is_sent, link.fence = True, store._leases.fence(lease)
    link.witness = "witness_record", 1, 0
    yield link
    link.close()


def test_a_record_that_is_there_shows_that_it_was_written(
    store: PostgresStore, lease: Lease, asked: Link
) -> None:
    before = store._database._ask_after(asked)
    store.commit(lease, Batch(records=[record(1, 0)]))
    after = store._database._ask_after(asked)

    assert (before, after) == (False, True)


def test_a_record_that_may_be_another_workers_shows_nothing(
    store: PostgresStore, lease: Lease, asked: Link
) -> None:
    store._database.rows("end_lease", lease.number)

    before = store._database._ask_after(asked)
    heir = store.acquire("heir", now_ms=0, ttl_ms=60_000)
    store.claim(heir, workflows=["checkout"], now_ms=10**13, limit=9)
    store.commit(heir, Batch(records=[record(1, 0)]))

    assert before is False
    with pytest.raises(LeaseLost, match="may have been written or not"):
        store._database._ask_after(asked)


def test_where_another_process_of_the_server_answers_than_was_thought_it_goes_the_longer_way(
    far: PostgresStore, way: Way
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    writer = far._database._writer
    assert writer is not None
    pid, since = writer._session
    writer._session = pid + 1, since

    before = way.syncs
    far.commit(lease, Batch(records=[record(run, 0)]))

    assert len(far.records(run)) == 1
    assert way.syncs - before > 2


def test_an_id_may_be_one_of_an_enumeration(store: PostgresStore, lease: Lease) -> None:
    class Order(StrEnum):
        FIRST = "order-1"

    run = start(store, lease, Order.FIRST)

    found = store.run_by_id(Order.FIRST)
    assert found is not None
    assert found.number == run


@pytest.mark.parametrize(
    ("question", "bindings"),
    [
        ("SELECT date '2026-01-31' = %s", ["2026-01-31"]),
        ("SELECT make_interval(days => %s) = '3 days'", [3]),
        ("SELECT %s @> '{}'::jsonb", ['{"seat": "12A"}']),
    ],
    ids=["a text for a date", "a small number", "a text for JSON"],
)
def test_a_step_binds_values_as_on_any_connection_of_the_driver(
    store: PostgresStore, lease: Lease, question: str, bindings: list[object]
) -> None:
    def ask(connection: psycopg.Connection) -> bytes:
        return str(connection.execute(question.encode(), bindings).fetchall()).encode()

    run = start(store, lease)
    step = Transaction(0, "0/0/ask", 0, ask, lambda failed: None)
    store.commit(lease, Batch(records=[record(run, 1)], transactions=[step]))

    assert step.failed is None
    assert store.records(run)[-1].payload == b"[(True,)]"


def test_a_server_that_was_told_to_forget_what_is_prepared_is_told_it_again(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    for seq in range(3):
        writer = store._database._writer
        assert writer is not None
        writer.do("DEALLOCATE ALL")  # as a step may do that the connection was lent to

        store.commit(lease, Batch(records=[record(run, seq)]))

    assert len(store.records(run)) == 3


def test_a_commit_whose_number_never_came_is_missed_at_a_server_that_has_lost_it(
    store: PostgresStore, far: PostgresStore, way: Way
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    while far._database._acknowledged is None or far._database._acknowledged[0]:
        way.cut_at_commit("after")  # the server is nearly always done before it is asked
        far.commit(lease, Batch(records=[record(run, len(store.records(run)))]))

    with psycopg.connect(**store._database.place.parameters) as other:  # type: ignore[arg-type]
        other.execute(f"DELETE FROM {store._database.place.schema}.record".encode())
    writer = far._database._writer
    assert writer is not None
    writer.close()

    with pytest.raises(CommitsLost, match="has lost commits"):
        far.commit(lease, Batch(records=[record(run, 0)]))
