"""Leases: each worker has one of its own, and whose has ended writes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Lease, Store, WorkerRow
from tests.stores.build import claim, row_of, start


def test_each_worker_has_a_lease_of_its_own_and_writes(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()

    second = other.acquire("second", now_ms=1, ttl_ms=10_000)

    assert (lease.worker, second.worker) == ("first", "second")
    assert 0 < lease.number < second.number
    start(store, lease, "of the first")
    start(other, second, "of the second")


def test_a_number_is_given_to_no_other_lease_whether_it_was_released_or_found_over(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    numbers = [lease.number]

    for now_ms in (10_000, 30_000, 50_000):
        released = store.acquire("released", now_ms=now_ms, ttl_ms=10_000)
        store.release(released)
        left = other.acquire("left", now_ms=now_ms + 1, ttl_ms=10_000)
        numbers += [released.number, left.number]

    assert numbers == sorted(set(numbers))


def test_a_released_lease_writes_nothing(store: Store, lease: Lease) -> None:
    store.release(lease)

    with pytest.raises(LeaseLost, match=r"'first'.*released.*Nothing was written"):
        start(store, lease)

    assert store.run_by_id("order-17") is None


def test_a_lease_that_another_worker_found_over_writes_nothing_and_never_comes_back(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    start(store, lease, "held")
    second = other.acquire("second", now_ms=10_000, ttl_ms=10_000)
    claim(other, second, now_ms=10_000)

    for attempt in (
        lambda: start(store, lease),
        lambda: store.renew(lease, now_ms=10_001, ttl_ms=10_000),
        lambda: store.commit(lease, Batch(leases=30_000)),
        lambda: store.renew(lease, now_ms=5_000, ttl_ms=10_000),
    ):
        with pytest.raises(LeaseLost, match="'first'"):
            attempt()

    assert [worker.lease for worker in other.workers(now_ms=10_001)] == [second.number]
    assert store.run_by_id("order-17") is None


def test_a_worker_that_is_late_goes_on_if_nobody_has_found_it_over(store: Store, lease: Lease) -> None:
    run = start(store, lease)

    store.renew(lease, now_ms=50_000, ttl_ms=10_000)

    assert [worker.until_ms for worker in store.workers(now_ms=50_000)] == [60_000]
    row = row_of(store, run)
    assert (row.lease, row.crashes) == (lease.number, 0)


def test_renewing_and_committing_extend_the_lease(store: Store, lease: Lease) -> None:
    store.renew(lease, now_ms=5_000, ttl_ms=10_000)
    renewed = store.workers(now_ms=14_999)

    store.commit(lease, Batch(leases=20_000))

    assert [worker.until_ms for worker in renewed] == [15_000]
    assert [worker.until_ms for worker in store.workers(now_ms=19_999)] == [20_000]
    assert store.workers(now_ms=20_000) == []


def test_releasing_a_lease_that_is_lost_does_nothing(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    run = start(store, lease)
    second = other.acquire("second", now_ms=10_000, ttl_ms=10_000)
    claim(other, second, now_ms=10_000)

    store.release(lease)

    other.commit(second, Batch(wakes=[(0, 0, run)]))
    assert row_of(other, run).lease == second.number
    assert [worker.worker for worker in other.workers(now_ms=10_001)] == ["second"]


def test_the_same_store_can_take_a_lease_again_after_it_was_lost(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    run = start(store, lease)
    second = other.acquire("second", now_ms=10_000, ttl_ms=10_000)
    claim(other, second, now_ms=10_000)

    again = store.acquire("first", now_ms=10_001, ttl_ms=10_000)

    assert again.number > second.number
    start(store, again, "anew")
    assert claim(store, again, now_ms=10_001) == []
    assert row_of(store, run).lease == second.number


def test_workers_are_named_oldest_first_while_their_leases_last(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    second = other.acquire("second", now_ms=500, ttl_ms=10_000)

    both, one = store.workers(now_ms=9_999), other.workers(now_ms=10_000)
    store.release(lease)
    after = other.workers(now_ms=5_000)

    assert both == [
        (lease.number, "first", os.getpid(), 0, 10_000, ()),
        (second.number, "second", os.getpid(), 500, 10_500, ()),
    ]
    assert one == both[1:]
    assert after == both[1:]


def test_a_worker_that_came_after_a_paused_one_is_not_mistaken_for_dead(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    second, third = open_store(), open_store()
    taken = second.acquire("second", now_ms=10_000, ttl_ms=10_000)
    run = start(second, taken)
    store.close()

    found = claim(third, third.acquire("third", now_ms=10_001, ttl_ms=10_000), now_ms=10_001)

    assert found == []
    second.commit(taken, Batch(wakes=[(5, 0, run)]))


def test_a_worker_that_was_killed_is_known_to_be_dead_before_its_lease_ends(store: Store) -> None:
    program = (
        "import sys; from perdure.stores.opening import open_store; from tests.stores.build import start;"
        "store = open_store(sys.argv[1]);"
        "start(store, store.acquire('killed', now_ms=0, ttl_ms=1 << 50)); print('begun', flush=True);"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, store.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        lease = store.acquire("first", now_ms=1, ttl_ms=10_000)

        alive, kept = store.workers(now_ms=1), claim(store, lease, now_ms=1)
        child.kill()
        child.wait()
        dead, freed = workers_but_the_killed(store), claim(store, lease, now_ms=1)

    row = store.run_by_id("order-17")
    assert [(worker.worker, worker.process) for worker in alive] == [
        ("killed", child.pid), ("first", os.getpid())
    ]  # fmt: skip
    assert [worker.worker for worker in dead] == ["first"]
    assert row is not None
    assert (kept, freed) == ([], [row.number])
    assert (row.lease, row.crashes) == (lease.number, 1)


def workers_but_the_killed(store: Store) -> list[WorkerRow]:
    """Who is alive, as soon as a server has heard that one of two is not."""
    until_s = time.monotonic() + 10
    while len(alive := store.workers(now_ms=1)) > 1 and time.monotonic() < until_s:
        pass
    return alive
