"""The disk in memory on which workflows are crashed: a real store, which outlives the engines on it."""

from __future__ import annotations

import apsw
import pytest

from perdure.core.events import Append, NewEvent
from perdure.core.records import NewRun, Status
from perdure.errors import LeaseLost
from perdure.stores.base import Batch, RunEnd, RunQuery, Store
from perdure.stores.opening import open_store
from perdure.testing.crashing.disks import Disk, give_back, open_memory, take_disk

AT_MS = 1_800_000_000_000


def start(store: Store, name: str) -> None:
    lease = store.acquire("worker", now_ms=AT_MS, ttl_ms=1_000)
    store.commit(lease, Batch(starts=[NewRun(name, "shop", b"{}", bytes(16), AT_MS, "3.11")]))
    store.release(lease)


def test_a_second_connection_sees_what_the_first_has_written() -> None:
    store = open_memory()
    again = open_store(store.url)

    start(store, "one")

    assert again.run_by_id("one") is not None
    assert list(again.check()) == []
    again.close()
    store.close()


def test_it_is_gone_when_the_last_has_closed_it() -> None:
    store = open_memory()
    start(store, "one")

    store.close()

    again = open_store(store.url)
    assert again.run_by_id("one") is None
    again.close()


def test_each_is_a_disk_of_its_own() -> None:
    store, other = open_memory(), open_memory()

    start(store, "one")

    assert other.run_by_id("one") is None
    store.close()
    other.close()


def test_a_worker_that_lost_its_lease_writes_nothing_there_either() -> None:
    store = open_memory()
    old = store.acquire("old", now_ms=AT_MS, ttl_ms=1_000)
    store.acquire("new", now_ms=AT_MS + 1_000, ttl_ms=1_000)

    with pytest.raises(LeaseLost):
        store.commit(old, Batch(starts=[NewRun("one", "shop", b"{}", bytes(16), AT_MS, "3.11")]))

    assert store.run_by_id("one") is None
    store.close()


def end_all(disk: Disk) -> None:
    store = disk.store
    lease = store.acquire("worker", now_ms=AT_MS, ttl_ms=1_000)
    runs = store.list_runs(RunQuery())
    store.commit(lease, Batch(ends=[RunEnd(Status.COMPLETED, b"1", AT_MS, None, row.number) for row in runs]))
    store.release(lease)


def test_the_next_crash_run_gets_the_same_disk_with_nothing_on_it() -> None:
    disk = take_disk()
    start(disk.store, "one")
    end_all(disk)

    give_back(disk)
    again = take_disk()

    assert again is disk
    assert again.store.list_runs(RunQuery(all_generations=True)) == []
    assert list(again.store.check()) == []
    give_back(again)


def test_the_next_crash_run_gets_the_same_disk_with_no_stream_on_it() -> None:
    disk = take_disk()
    lease = disk.store.acquire("worker", now_ms=AT_MS, ttl_ms=1_000)
    event = NewEvent("1", "", "placed", 1, "a", AT_MS, AT_MS, "", b"{}", is_resent=True)
    disk.store.streams.subscribe("orders", "ship", lanes=16, from_start=True)
    before = disk.store.commit(lease, Batch(appends=[Append("orders", [event])]))
    disk.store.release(lease)

    give_back(disk)
    again = take_disk()

    assert again is disk
    assert (again.streams(), again.store.streams.subscriptions()) == ([], [])
    lease = again.store.acquire("worker", now_ms=AT_MS, ttl_ms=1_000)
    assert again.store.commit(lease, Batch(appends=[Append("orders", [event])])).appends == before.appends
    assert list(again.store.check()) == []
    again.store.release(lease)
    give_back(again)


def test_a_disk_with_a_run_that_is_not_over_is_not_used_again() -> None:
    disk = take_disk()
    start(disk.store, "one")

    give_back(disk)
    again = take_disk()

    assert again is not disk
    assert again.store.run_by_id("one") is None
    give_back(again)


def test_a_disk_on_which_a_step_made_a_table_is_not_used_again() -> None:
    disk = take_disk()
    with disk.store._database.transaction() as connection:  # type: ignore[attr-defined]
        connection.execute("CREATE TABLE ledger (cents INTEGER)")

    give_back(disk)
    again = take_disk()

    assert again is not disk
    with pytest.raises(apsw.SQLError, match="ledger"):
        again.store._database._writer.execute("SELECT * FROM ledger")  # type: ignore[attr-defined]
    give_back(again)
