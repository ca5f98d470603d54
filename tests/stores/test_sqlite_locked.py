"""Another program holds a write transaction open on the file: nobody can write, and nobody is dead for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perdure.errors import StoreLocked
from perdure.stores.base import Batch, Lease
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import claim, new_run, start

RENEWED = 10_000
SPARED_MS = 15_000


@pytest.fixture
def intruder(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A connection of another program to the file `runs.db`."""
    connection = apsw.Connection(str(tmp_path / "runs.db"))
    yield connection
    connection.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[tuple[SqliteStore, Lease]]]:
    """Two workers that wait no more than a moment, with leases until `RENEWED`."""
    stores = [SqliteStore(tmp_path / "runs.db", busy_timeout_ms=10) for _ in range(2)]
    yield [(store, store.acquire("w", now_ms=0, ttl_ms=RENEWED)) for store in stores]
    for store in stores:
        store.close()


def keep_out(store: SqliteStore, lease: Lease, intruder: apsw.Connection) -> None:
    """Let the store try to write while the other program has the file."""
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked):
        store.commit(lease, Batch(leases=RENEWED))
    intruder.execute("ROLLBACK")


def test_a_write_that_another_program_keeps_out_says_so_and_can_be_done_later(
    workers: list[tuple[SqliteStore, Lease]], intruder: apsw.Connection
) -> None:
    (store, lease), _ = workers
    batch = Batch(starts=[new_run()])

    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match=r"another program has held a transaction open .* did not commit"):
        store.commit(lease, batch)
    intruder.execute("ROLLBACK")

    assert store.run_by_id("order-17") is None
    assert store.commit(lease, batch).starts[0].verdict == "started"


def test_a_lease_that_nobody_could_renew_is_not_ended_by_who_was_kept_out_too(
    workers: list[tuple[SqliteStore, Lease]], intruder: apsw.Connection
) -> None:
    (store, lease), (other, second) = workers
    run = start(store, lease)
    keep_out(other, second, intruder)

    claimed = claim(other, second, now_ms=20_000)
    these = other.claim_these(second, [run], now_ms=20_001)
    alive = [worker.lease for worker in other.workers(now_ms=20_002)]

    assert (claimed, these, alive) == ([], set(), [lease.number, second.number])
    store.commit(lease, Batch(leases=50_000))


def test_a_lease_that_is_not_renewed_after_all_is_ended_later(
    workers: list[tuple[SqliteStore, Lease]], intruder: apsw.Connection
) -> None:
    (store, lease), (other, second) = workers
    run = start(store, lease)
    keep_out(other, second, intruder)

    claimed = [claim(other, second, now_ms=20_000 + after_ms) for after_ms in (0, SPARED_MS - 1, SPARED_MS)]

    assert claimed == [[], [], [run]]


def test_a_worker_that_died_meanwhile_is_not_waited_for(
    workers: list[tuple[SqliteStore, Lease]], intruder: apsw.Connection
) -> None:
    (store, lease), (other, second) = workers
    run = start(store, lease)
    keep_out(other, second, intruder)
    store.close()

    assert claim(other, second, now_ms=20_000) == [run]
