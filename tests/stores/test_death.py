"""Leases that end: what their workers had in hand is claimed, they write nothing more, and crashes count."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Lease, Store
from tests.stores.build import claim, row_of, signal, start, submit


def test_runs_of_a_worker_whose_time_is_over_are_claimed_and_it_writes_nothing_more(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)

    before, after = claim(other, second, now_ms=9_999), claim(other, second, now_ms=10_000)

    assert (before, after) == ([], [run])
    for write in (
        lambda: store.commit(lease, Batch(wakes=[(77, 0, run)])),
        lambda: store.renew(lease, now_ms=1, ttl_ms=10_000),
        lambda: store.claim_these(lease, [run], now_ms=1),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert (row_of(store, run).wake_at_ms, row_of(store, run).lease) == (0, second.number)


def test_a_worker_whose_lease_has_ended_claims_nothing(store: Store, lease: Lease) -> None:
    store.release(lease)
    run = submit(store)

    with pytest.raises(LeaseLost, match="'first'"):
        claim(store, lease, now_ms=1)
    with pytest.raises(LeaseLost, match="'first'"):
        store.claim_these(lease, [run], now_ms=1)

    assert row_of(store, run).lease == 0


def test_a_worker_that_is_late_claims_without_ending_its_own_lease(store: Store, lease: Lease) -> None:
    runs = [submit(store, run_id) for run_id in "ab"]

    claimed = claim(store, lease, now_ms=50_000, limit=1)
    these = store.claim_these(lease, runs, now_ms=50_000)

    assert (claimed, these) == ([runs[0]], {runs[1]})
    store.commit(lease, Batch(wakes=[(60_000, 0, run) for run in runs]))


def test_a_released_lease_frees_its_runs_and_nothing_has_crashed(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.release(lease)

    assert claim(other, second, now_ms=20_000) == [run]
    assert row_of(store, run).crashes == 0


@pytest.mark.parametrize(
    ("wake_at_ms", "renewed_at_ms", "crashes"),
    [(0, 0, 1), (0, 4_000, 1), (4_000, 4_000, 1), (4_001, 4_000, 0), (5_000, 0, 0), (None, 4_000, 0)],
)
def test_a_crash_is_counted_on_a_run_that_was_due_when_its_dead_worker_last_renewed(
    store: Store,
    lease: Lease,
    other: Store,
    second: Lease,
    wake_at_ms: int | None,
    renewed_at_ms: int,
    crashes: int,
) -> None:
    run, other_run = start(store, lease, "one"), start(store, lease, "other")
    wakes = [(wake_at_ms, 2, run), (wake_at_ms, 0, other_run)]
    messages = [signal(run), signal(other_run)]
    store.commit(lease, Batch(wakes=wakes, messages=messages, leases=renewed_at_ms + 10_000))

    claimed = claim(other, second, now_ms=20_000, limit=1)
    these = other.claim_these(second, [run, other_run], now_ms=20_000)

    assert (claimed, these) == ([run], {other_run})
    assert row_of(store, run).crashes == 2 + crashes
    assert row_of(store, other_run).crashes == crashes


def test_a_crash_is_counted_once_for_each_worker_that_died(
    open_store: Callable[[], Store], store: Store, lease: Lease, other: Store
) -> None:
    run = start(store, lease)
    second = other.acquire("second", now_ms=20_000, ttl_ms=10_000)
    claim(other, second, now_ms=20_000)
    other.release(second)
    counted = [row_of(store, run).crashes]

    for now_ms in (20_001, 40_001):  # the first of these dies as well
        worker = open_store()
        assert claim(worker, worker.acquire("next", now_ms=now_ms, ttl_ms=10_000), now_ms=now_ms) == [run]
        counted.append(row_of(store, run).crashes)

    assert counted == [1, 1, 2]


def test_a_run_that_its_worker_freed_before_it_died_has_no_crash(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(freed=[run]))

    assert claim(other, second, now_ms=20_000) == [run]
    assert row_of(store, run).crashes == 0
