"""The fence on PostgreSQL: a commit and the end of its lease exclude each other, and nobody has to wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Committed, Lease
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.arrays import numbers
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.write import write_batch
from tests.stores.build import new_run, record, signal, start


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[PostgresStore]]:
    """Two stores as two processes have them, which believe what time they are told."""
    opened = [PostgresStore(postgres_url, believes_caller=True) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def claim(store: PostgresStore, lease: Lease, *, now_ms: int) -> list[int]:
    return store.claim(lease, workflows=["checkout"], now_ms=now_ms, limit=10)


class StoppedCommit:
    """A commit that is stopped when all is written but the COMMIT, and then lets another worker act.

    Its batch must be one that needs answers, such as where a message went: or else it is one message.
    """

    def __init__(self, store: PostgresStore, lease: Lease, batch: Batch) -> None:
        self.store, self.lease, self.batch = store, lease, batch
        self.stopped = 0

    def run(self, meanwhile: list[object]) -> Committed:
        """`meanwhile`: what to do in the first try; each is called until it gives something."""
        self.meanwhile = meanwhile
        return self.store._database.write(self._work)

    def _work(self, link: Link) -> Committed:
        store = self.store
        fence = store._leases.fence(self.lease)
        written = write_batch(link, self.batch, fence, store._leases, store._streams)
        self.stopped += 1
        if self.stopped == 1:
            for act in self.meanwhile:
                assert callable(act)
                act()
        return written.committed


def test_a_lease_is_not_ended_while_a_commit_under_it_is_under_way(stores: list[PostgresStore]) -> None:
    first, second = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=10_000)
    heir = second.acquire("second", now_ms=9_000, ttl_ms=10_000)
    run = start(first, lease)
    claimed: list[list[int]] = []

    stopped = StoppedCommit(first, lease, Batch(records=[record(run, 0)], messages=[signal(run)]))
    stopped.run([lambda: claimed.append(claim(second, heir, now_ms=10_000))])

    assert claimed == [[]]
    assert len(first.records(run)) == 1


def test_a_worker_that_is_stopped_in_the_midst_of_a_commit_does_not_hold_up_its_heirs(
    stores: list[PostgresStore],
) -> None:
    first, second = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=10_000)
    heir = second.acquire("second", now_ms=9_000, ttl_ms=10_000)
    run = start(first, lease)
    taken: list[int] = []

    def take_over() -> None:
        for _ in range(200):
            taken.extend(claim(second, heir, now_ms=10_000))
            if taken:
                return

    stopped = StoppedCommit(first, lease, Batch(records=[record(run, 0)], messages=[signal(run)]))
    with pytest.raises(LeaseLost, match="'first'"):
        stopped.run([take_over])

    assert taken == [run]
    assert first.records(run) == []


def test_after_a_lease_has_ended_none_of_its_commits_comes_through(stores: list[PostgresStore]) -> None:
    first, second = stores
    heir = second.acquire("second", now_ms=0, ttl_ms=10_000_000)
    for turn in range(15):
        now_ms = turn * 20_000
        lease = first.acquire("first", now_ms=now_ms, ttl_ms=10_000)
        run = start(first, lease, f"run-{turn}")
        written = [0]

        thread = threading.Thread(target=write_until_lost, args=(first, lease, run, written))
        thread.start()
        taken: list[int] = []
        while run not in taken:
            taken = claim(second, heir, now_ms=now_ms + 10_000)
        seen = len(second.records(run))
        thread.join()

        assert len(second.records(run)) == seen == written[0]


def write_until_lost(store: PostgresStore, lease: Lease, run: int, written: list[int]) -> None:
    try:
        while True:
            store.commit(lease, Batch(records=[record(run, written[0])]))
            written[0] += 1
    except LeaseLost:
        pass


def test_the_fence_is_what_is_told_when_the_heir_has_written_the_same_place(
    stores: list[PostgresStore],
) -> None:
    first, second = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=10_000)
    heir = second.acquire("second", now_ms=9_000, ttl_ms=10_000)
    run = start(first, lease)
    claim(second, heir, now_ms=10_000)
    second.commit(heir, Batch(records=[record(run, 0)]))

    with pytest.raises(LeaseLost, match="released, or another"):
        first.commit(lease, Batch(records=[record(run, 0)]))


def test_a_commit_writes_nothing_to_the_row_of_its_lease(
    stores: list[PostgresStore], postgres_url: str
) -> None:
    first, _ = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=10_000)
    run = start(first, lease)
    schema = first._database.place.schema

    with psycopg.connect(**first._database.place.parameters) as connection:  # type: ignore[arg-type]
        query = f"SELECT xmin::text, ctid::text FROM {schema}.lease".encode()
        before = connection.execute(query).fetchall()
        for seq in range(3):
            first.commit(lease, Batch(records=[record(run, seq)]))
        after = connection.execute(query).fetchall()

    assert before == after
    assert len(before) == 1


def test_leases_last_by_the_clock_of_the_server(postgres_url: str) -> None:
    first, second = PostgresStore(postgres_url), PostgresStore(postgres_url)
    lease = first.acquire("behind", now_ms=0, ttl_ms=60_000)
    heir = second.acquire("ahead", now_ms=10**15, ttl_ms=60_000)

    names = [row.worker for row in second.workers(now_ms=10**15)]
    start(first, lease)
    taken = claim(second, heir, now_ms=10**15)

    assert names == ["behind", "ahead"]
    assert taken == []
    for store in (first, second):
        store.close()


def test_who_waits_for_a_worker_that_stands_still_between_two_messages_of_a_commit_has_it_broken_off(
    postgres_url: str,
) -> None:
    with closing(PostgresStore(postgres_url)) as stopped, closing(PostgresStore(postgres_url)) as other:
        lease = stopped.acquire("stopped", now_ms=0, ttl_ms=1)
        run = start(stopped, lease)
        other.submit(Batch(starts=[new_run("another")]))
        waits, holds = other._database._writer, stopped._database._writer
        assert waits is not None
        assert holds is not None
        waits.do("SET lock_timeout = '100ms'")

        found: list[int] = []

        def stand_still() -> None:
            with holds.transaction(stopped._leases.fence(lease)):
                holds.run("wake_runs", numbers([5]), numbers([0]), numbers([run]))
            with holds.sending():  # the server has heard the first message, and waits for the next
                holds.run("horizon")
                found.append(other.submit(Batch(starts=[new_run()])).starts[0].run.number)

        with pytest.raises(psycopg.OperationalError):
            stand_still()

        assert found == [run]
