"""What processes tell each other on PostgreSQL: soon, but not at each commit, and not to themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from perdure.stores.base import Batch, Lease, Reply
from perdure.stores.postgres import PostgresStore
from tests.stores.build import end, new_run, record, signal, start


class Hearing:
    """Counts what is heard, and waits for it."""

    def __init__(self, store: PostgresStore) -> None:
        self._heard = threading.Semaphore(0)
        self.listens = store.listen(self._heard.release)
        assert self._heard.acquire(timeout=10)  # it looks once when it has begun to listen

    def forget(self) -> None:
        """Begin to count anew."""
        while self._heard.acquire(blocking=False):
            pass

    def is_told(self, within_s: float = 10) -> bool:
        return self._heard.acquire(timeout=within_s)


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
def lease(store: PostgresStore) -> Lease:
    return store.acquire("w", now_ms=0, ttl_ms=60_000)


@pytest.fixture
def hearing(store: PostgresStore, lease: Lease) -> Hearing:
    return Hearing(store)


def test_a_start_and_a_message_of_another_process_are_told(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    run = start(store, lease)

    other.submit(Batch(starts=[new_run("new")]))
    started = hearing.is_told()
    other.submit(Batch(messages=[signal(run)]))

    assert hearing.listens
    assert started
    assert hearing.is_told()


def test_ends_and_replies_are_told(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    theirs = other.acquire("other", now_ms=0, ttl_ms=60_000)
    run = start(other, theirs)

    other.commit(theirs, Batch(replies=[Reply("q", ok=True, payload=None, at_ms=1)]))
    replied = hearing.is_told()
    other.commit(theirs, Batch(ends=[end(run)]))

    assert replied
    assert hearing.is_told()


def test_a_freed_run_and_a_message_to_a_run_of_another_worker_are_told(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    theirs = other.acquire("other", now_ms=0, ttl_ms=60_000)
    mine, run = start(store, lease, "mine"), start(other, theirs, "theirs")

    other.commit(theirs, Batch(messages=[signal(mine)]))
    sent = hearing.is_told()
    other.commit(theirs, Batch(freed=[run]))
    freed = hearing.is_told()
    other.release(theirs)

    assert (sent, freed) == (True, True)
    assert hearing.is_told()


_IS_THERE = "SELECT 1 FROM pg_stat_get_activity($1::int4)"


@pytest.mark.parametrize("by_name", [False, True])
def test_that_the_lease_of_a_dead_worker_was_ended_is_told(
    postgres_url: str,
    store: PostgresStore,
    lease: Lease,
    hearing: Hearing,
    other: PostgresStore,
    by_name: bool,
) -> None:
    heir = other.acquire("heir", now_ms=0, ttl_ms=60_000)
    dies = PostgresStore(postgres_url)
    run = start(dies, dies.acquire("dies", now_ms=0, ttl_ms=60_000))
    shown_by = dies._ear._link
    assert shown_by is not None
    dies.close()
    while other._database.read(lambda link: link.query(_IS_THERE, shown_by.pid)):
        pass
    hearing.forget()

    if by_name:
        claimed = other.claim_these(heir, [run], now_ms=10**13)
    else:
        claimed = set(other.claim(heir, workflows=["checkout"], now_ms=10**13, limit=9))

    assert claimed == {run}
    assert hearing.is_told()


def test_what_concerns_nobody_else_is_not_told(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    theirs = other.acquire("other", now_ms=0, ttl_ms=60_000)
    run = start(other, theirs)

    other.commit(theirs, Batch(records=[record(run, 0)], wakes=[(5, 0, run)]))
    other.commit(theirs, Batch(messages=[signal(run)]))
    store.submit(Batch(starts=[new_run("own")]))
    store.commit(lease, Batch(ends=[end(start(store, lease, "own end"))]))

    assert not hearing.is_told(within_s=0.2)


def test_a_busy_worker_does_not_tell_at_each_commit(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    theirs = other.acquire("other", now_ms=0, ttl_ms=60_000)
    runs = [start(other, theirs, str(number)) for number in range(60)]

    for run in runs:
        other.commit(theirs, Batch(ends=[end(run)]))

    times = 0
    while hearing.is_told(within_s=0.3):
        times += 1
    assert 1 <= times <= 20


def test_who_listens_hears_again_after_its_connection_was_cut(
    store: PostgresStore, lease: Lease, hearing: Hearing, other: PostgresStore
) -> None:
    assert store._ear._link is not None
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [store._ear._link.pid])

    looked_again = hearing.is_told()
    other.submit(Batch(starts=[new_run("new")]))

    assert looked_again
    assert hearing.is_told()
