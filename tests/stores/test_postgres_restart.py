"""A server that is killed and started again, and one that is copied to a standby which takes over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from perdure.errors import CommitsLost, StoreReadOnly
from perdure.stores.base import Batch, Lease
from perdure.stores.postgres import PostgresStore
from tests.stores.build import end, new_run, record, start
from tests.stores.servers import Server, running_server, wait_until_has

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def test_what_was_acknowledged_is_there_once_after_each_crash_of_the_server(server: Server) -> None:
    store = PostgresStore(server.url)
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store, lease)
    acknowledged = 0
    stop = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            store.commit(lease, Batch(records=[record(run, acknowledged)]))
            acknowledged += 1

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[int] = []
    for _ in range(3):
        before = acknowledged
        while acknowledged < before + 20 and thread.is_alive():
            pass
        server.crash_and_start()
        seen.append(len(store.records(run)))
    stop.set()
    thread.join()

    assert [entry.seq for entry in store.records(run)] == list(range(acknowledged))
    assert 20 <= seen[0] < seen[1] < seen[2] <= acknowledged
    assert list(store.check()) == []
    store.close()


def test_workers_outlive_a_crash_of_the_server(server: Server) -> None:
    stores = [PostgresStore(server.url) for _ in range(3)]
    leases = [store.acquire(f"w{number}", now_ms=0, ttl_ms=60_000) for number, store in enumerate(stores)]
    runs = [start(store, lease, lease.worker) for store, lease in zip(stores, leases, strict=True)]

    server.crash_and_start()
    taken = stores[0].claim(leases[0], workflows=["checkout"], now_ms=10**13, limit=9)
    names = [row.worker for row in stores[0].workers(now_ms=0)]

    assert taken == []
    assert names == ["w0", "w1", "w2"]
    for store, lease, run in zip(stores, leases, runs, strict=True):
        store.commit(lease, Batch(records=[record(run, 0)]))
        store.close()


def test_a_standby_can_be_read_and_takes_over_when_it_is_promoted(server: Server) -> None:
    primary = PostgresStore(server.url)
    lease = primary.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(primary, lease)
    primary.close()
    standby = PostgresStore(server.make_standby())

    read = standby.run_by_number(run)
    listens = standby.listen(lambda: None)
    with pytest.raises(StoreReadOnly, match="standby"):
        standby.submit(Batch(starts=[new_run("new")]))
    server.promote()
    standby.commit(lease, Batch(records=[record(run, 0)]))

    assert read is not None
    assert listens is False
    assert len(standby.records(run)) == 1
    standby.close()


@pytest.fixture
def outlived(
    server: Server, request: pytest.FixtureRequest
) -> Iterator[tuple[PostgresStore, Lease, int, str]]:
    """A worker's store, lease and run of a record; and the server that took over, without its last commit."""
    PostgresStore(server.url).close()
    standby = server.make_standby()
    host = standby.rpartition("host=")[2]
    store = PostgresStore(f"{server.url},{host}&target_session_attrs=read-write")
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, 0)]))
    wait_until_has(standby, run)
    server.stop_standby()
    is_record = getattr(request, "param", "record") == "record"
    last = Batch(records=[record(run, 1)]) if is_record else Batch(ends=[end(run)])
    store.commit(lease, last)
    server.stop_primary()
    server.start_standby()
    server.promote()
    yield store, lease, run, standby
    store.close()


@pytest.mark.parametrize(
    ("outlived", "number_is_given_again"),
    [("record", False), ("record", True), ("end", True)],
    indirect=["outlived"],
)
def test_a_worker_writes_nothing_at_a_server_that_has_lost_its_last_commit(
    outlived: tuple[PostgresStore, Lease, int, str], number_is_given_again: bool
) -> None:
    store, lease, run, standby = outlived
    after = PostgresStore(standby)
    for number in range(5 if number_is_given_again else 0):
        after.submit(Batch(starts=[new_run(f"new-{number}")]))

    for _ in range(2):
        with pytest.raises(CommitsLost, match="has lost commits"):
            store.commit(lease, Batch(records=[record(run, 2)]))

    assert [entry.seq for entry in after.records(run)] == [0]
    after.close()


def test_a_worker_that_has_nothing_to_write_notices_lost_commits_too(
    outlived: tuple[PostgresStore, Lease, int, str],
) -> None:
    store, lease, _, _ = outlived

    with pytest.raises(CommitsLost, match="has lost commits"):
        _glance_on(store, lease)


def _glance_on(store: PostgresStore, lease: Lease) -> None:
    """As a worker does that has nothing to do. The first may hear only why its connection was ended."""
    for _ in range(3):
        store.glance(lease, workflows=[], after=0, now_ms=0, until_ms=0)


def test_a_worker_whose_last_commit_changed_nothing_is_not_told_that_it_was_lost(server: Server) -> None:
    store = PostgresStore(server.url)
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store, lease)

    store.commit(lease, Batch(taken=[17]))
    server.crash_and_start()
    store.commit(lease, Batch(records=[record(run, 0)]))

    assert len(store.records(run)) == 1
    store.close()
