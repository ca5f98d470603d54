"""The disk in memory on which workflows are crashed: a real store, which outlives the engines on it."""

from __future__ import annotations

import pytest

from perdure.core.records import NewRun
from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Store
from perdure.stores.opening import open_store
from perdure.testing.crashing.doomed import open_memory

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
