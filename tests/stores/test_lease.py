"""The lease: one worker writes, and who lost it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from perdure.errors import LeaseLost, StoreInUse
from perdure.stores.base import Batch, Lease, Store
from tests.stores.build import end, start


def crashes_of(store: Store) -> list[int]:
    rows = (store.run_by_id(run_id) for run_id in ("active", "asleep", "ended"))
    return [row.crashes for row in rows if row is not None]


def start_three(store: Store, lease: Lease) -> None:
    start(store, lease, "active")
    wake = (50_000, 0, start(store, lease, "asleep"))
    store.commit(lease, Batch(wakes=[wake], ends=[end(start(store, lease, "ended"))]))


def test_a_live_holder_is_named_to_who_comes_second(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    start_three(store, lease)

    with pytest.raises(StoreInUse, match=r"'first' \(process \d+\).* since 1970-01-01 00:00:00"):
        open_store().acquire("second", now_ms=9_999, ttl_ms=10_000)

    store.commit(lease, Batch())
    assert crashes_of(store) == [0, 0, 0]


def test_a_lease_whose_time_is_over_is_taken_and_crashes_are_counted(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    start_three(store, lease)

    taken = open_store().acquire("second", now_ms=10_000, ttl_ms=10_000)

    assert taken.crashed_before
    assert taken.epoch > lease.epoch
    assert crashes_of(store) == [1, 0, 0]


def test_a_crash_counts_for_runs_that_had_become_due_but_not_for_those_due_since(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    start_three(store, lease)

    open_store().acquire("due since", now_ms=50_000, ttl_ms=10_000)
    not_in_hand = crashes_of(store)
    open_store().acquire("due before", now_ms=60_000, ttl_ms=10_000)

    assert not_in_hand == [1, 0, 0]
    assert crashes_of(store) == [2, 1, 0]


def test_a_released_lease_is_free_and_nothing_crashed(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    start_three(store, lease)
    store.release(lease)

    taken = open_store().acquire("second", now_ms=1, ttl_ms=10_000)

    assert not lease.crashed_before
    assert not taken.crashed_before
    assert taken.epoch > lease.epoch
    assert crashes_of(store) == [0, 0, 0]


def test_a_released_lease_writes_nothing(store: Store, lease: Lease) -> None:
    store.release(lease)

    with pytest.raises(LeaseLost, match="released"):
        start(store, lease)

    assert store.run_by_id("order-17") is None


def test_renewing_and_committing_extend_the_lease(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()

    store.renew(lease, now_ms=5_000, ttl_ms=10_000)
    with pytest.raises(StoreInUse):
        other.acquire("second", now_ms=14_999, ttl_ms=10_000)
    store.commit(lease, Batch(leases=20_000))
    with pytest.raises(StoreInUse):
        other.acquire("second", now_ms=19_999, ttl_ms=10_000)

    assert other.acquire("second", now_ms=20_000, ttl_ms=10_000).crashed_before


def test_a_lost_lease_cannot_be_renewed_and_releasing_it_does_nothing(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    taken = other.acquire("second", now_ms=10_000, ttl_ms=10_000)

    with pytest.raises(LeaseLost):
        store.renew(lease, now_ms=10_001, ttl_ms=10_000)
    store.release(lease)

    other.commit(taken, Batch())
    with pytest.raises(StoreInUse, match="'second'"):
        store.acquire("first", now_ms=10_001, ttl_ms=10_000)


def test_a_holder_that_took_over_from_a_paused_one_is_not_mistaken_for_dead(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    second, third = open_store(), open_store()
    taken = second.acquire("second", now_ms=10_000, ttl_ms=10_000)
    store.close()

    with pytest.raises(StoreInUse, match="'second'"):
        third.acquire("third", now_ms=10_001, ttl_ms=10_000)

    second.renew(taken, now_ms=10_002, ttl_ms=10_000)


def test_the_same_store_can_take_the_lease_again_after_it_was_lost(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    other.release(other.acquire("second", now_ms=10_000, ttl_ms=10_000))

    again = store.acquire("first", now_ms=10_001, ttl_ms=10_000)

    assert again.epoch > lease.epoch
    start(store, again)


def test_the_holder_is_named_while_its_lease_lasts(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()

    during, after = other.worker(now_ms=9_999), other.worker(now_ms=10_000)
    store.release(lease)
    released = other.worker(now_ms=5_000)

    assert during is not None
    assert during == ("first", os.getpid(), 0, 10_000)
    assert after is None
    assert released is None


def test_a_holder_that_was_killed_is_known_to_be_dead_before_its_lease_ends(
    open_store: Callable[[], Store], store: Store
) -> None:
    program = (
        "import sys; from perdure.stores.opening import open_store; store = open_store(sys.argv[1]);"
        "store.acquire('first', now_ms=0, ttl_ms=10_000); print('taken', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()

        alive = store.worker(now_ms=1)
        child.kill()
        child.wait()
        dead = store.worker(now_ms=1)

    assert alive is not None
    assert alive.process == child.pid
    assert dead is None
