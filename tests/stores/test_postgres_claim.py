"""Claims on PostgreSQL: two at once, workers that are gone, and connections that come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest

from perdure.stores.base import Batch, Lease
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from tests.stores.build import end, new_run, signal, start

HOLDER = """
import sys
from perdure.core.records import NewRun
from perdure.stores.base import Batch
from perdure.stores.opening import open_store

store = open_store(sys.argv[1])
lease = store.acquire("holder", now_ms=0, ttl_ms=60_000)
store.commit(lease, Batch(starts=[NewRun("held", "checkout", b"1", b"s" * 16, 1, "3.11")]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[PostgresStore]]:
    """Two stores as two processes have them."""
    opened = [PostgresStore(postgres_url) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def claim(store: PostgresStore, lease: Lease, *, limit: int = 100) -> list[int]:
    return store.claim(lease, workflows=["checkout"], now_ms=10**13, limit=limit)


def test_two_that_claim_at_once_share_what_is_there_and_neither_waits(stores: list[PostgresStore]) -> None:
    first, second = stores
    submitted = first.submit(Batch(starts=[new_run(str(number)) for number in range(8)])).starts
    one, other = (store.acquire("w", now_ms=0, ttl_ms=60_000) for store in stores)
    taken: list[int] = []

    def work(link: Link) -> list[int]:
        mine, _ = first._claims._claim(link, one, [], look(first))
        taken.extend(claim(second, other))
        return mine

    mine = first._database.write(work)

    assert (len(mine), len(taken)) == (4, 4)
    assert not set(mine) & set(taken)
    assert set(mine) | set(taken) == {outcome.run.number for outcome in submitted}


def look(store: PostgresStore) -> object:
    from perdure.stores.postgres.arrays import texts
    from perdure.stores.postgres.claims import _Look

    return _Look(texts(["checkout"]), 10**13, 0, 100, len(store.workers(now_ms=0)))


def test_what_a_killed_worker_had_in_hand_is_claimed_long_before_its_lease_ends(
    stores: list[PostgresStore], postgres_url: str
) -> None:
    store = stores[0]
    lease = store.acquire("heir", now_ms=0, ttl_ms=60_000)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, postgres_url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        alive = [row.process for row in store.workers(now_ms=0)]
        before = claim(store, lease)
        child.kill()

    (run,) = wait_for_claim(store, lease)

    row = store.run_by_number(run)
    assert row is not None
    assert alive == [os.getpid(), child.pid]
    assert before == []
    assert (row.id, row.crashes, row.lease) == ("held", 1, lease.number)
    assert [held.worker for held in store.workers(now_ms=0)] == ["heir"]


def wait_for_claim(store: PostgresStore, lease: Lease) -> list[int]:
    """The server hears that a process is gone a moment after it is."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if found := claim(store, lease):
            return found
    raise AssertionError("nothing could be claimed")


def test_a_worker_whose_connections_were_cut_is_not_taken_for_dead(stores: list[PostgresStore]) -> None:
    first, second = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=60_000)
    heir = second.acquire("heir", now_ms=0, ttl_ms=60_000)
    run = start(first, lease)

    for _ in range(5):
        cut(second, but=second)
        taken = claim(second, heir)
        names = [row.worker for row in second.workers(now_ms=0)]

        assert taken == []
        assert names == ["first", "heir"]

    first.commit(lease, Batch(ends=[end(run)]))


def cut(store: PostgresStore, *, but: PostgresStore) -> None:
    """Cut all connections to the server but those of one store."""
    own = {but._database.writer_pid, *(link.pid for link in but._database._readers)}
    ear = but._ear._link
    assert ear is not None
    own.add(ear.pid)
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perdure' "
            "AND pid <> ALL (%s) AND pid <> pg_backend_pid()",
            [list(own)],
        )


def test_runs_of_unknown_workflows_stay_where_they_are(stores: list[PostgresStore]) -> None:
    store = stores[0]
    store.submit(Batch(starts=[new_run("a", workflow="unknown"), new_run("b")]))
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)

    taken = claim(store, lease)

    rows = [store.run_by_number(number) for number in taken]
    assert [row.id for row in rows if row] == ["b"]
    assert store.free_workflows(now_ms=10**13) == ["unknown"]


def test_a_look_at_nothing_takes_no_number_of_a_transaction(stores: list[PostgresStore]) -> None:
    store = stores[0]
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    start(store, lease)
    claim(store, lease)
    counted = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8"

    ((before,),) = store._database.read(lambda link: link.query(counted))
    for _ in range(100):
        assert claim(store, lease) == []
    ((after,),) = store._database.read(lambda link: link.query(counted))

    assert after - before < 10  # the server itself takes one now and then, to clean up


def test_a_free_run_to_which_something_is_sent_is_claimed(stores: list[PostgresStore]) -> None:
    first, second = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=60_000)
    run = start(first, lease)
    first.commit(lease, Batch(wakes=[(None, 0, run)]))
    first.release(lease)
    heir = second.acquire("heir", now_ms=0, ttl_ms=60_000)
    before = claim(second, heir)

    first.submit(Batch(messages=[signal(run)]))
    after = claim(second, heir)

    assert (before, after) == ([], [run])
