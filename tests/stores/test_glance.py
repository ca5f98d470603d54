"""A glance says where it is worth looking, and may say so too often, but not too seldom."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Lease, Store
from perdure.stores.sight import Sight
from tests.stores.build import claim, signal, start, submit

NOTHING = Sight(runs=False, messages=False)


def glance(store: Store, lease: Lease, *, now_ms: int = 5_000, after: int = 0, until_ms: int = 0) -> Sight:
    return store.glance(lease, workflows=["checkout"], after=after, now_ms=now_ms, until_ms=until_ms)


def is_exact(store: Store) -> bool:
    """Whether it says no where there is nothing; a file says yes always."""
    return store.reads_block


def test_where_there_is_nothing_a_server_says_so(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(None, 0, run)]))

    found = glance(store, lease)

    assert found == (NOTHING if is_exact(store) else Sight(runs=True, messages=True, events=True))


def test_a_free_run_that_is_due_is_seen(store: Store, lease: Lease) -> None:
    submit(store)

    found = glance(store, lease)

    assert found.runs
    assert not found.messages or not is_exact(store)


def test_a_free_run_of_a_workflow_that_is_not_known_is_not_seen(store: Store, lease: Lease) -> None:
    submit(store, workflow="unknown")

    found = glance(store, lease)

    assert not found.runs or not is_exact(store)


def test_what_is_sent_to_a_run_of_the_lease_is_seen_until_it_has_been_found(
    store: Store, lease: Lease
) -> None:
    run = start(store, lease)
    ((position,)) = store.submit(Batch(messages=[signal(run)])).messages

    found, later = glance(store, lease), glance(store, lease, after=position)

    assert found.messages
    assert not later.messages or not is_exact(store)


def test_what_is_sent_to_a_free_run_is_seen_also_after_many_looks_at_nothing(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(None, 0, run)]))
    store.release(lease)
    for _ in range(3):
        glance(other, second)

    store.submit(Batch(messages=[signal(run)]))

    assert glance(other, second).runs
    assert claim(other, second, now_ms=5_000) == [run]


def test_a_message_from_before_its_run_was_free_is_seen_within_five_seconds(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(other, second)
    other.commit(second, Batch(wakes=[(None, 0, run)]))
    other.submit(Batch(messages=[signal(run)]))
    before = [glance(store, lease, now_ms=now_ms).runs for now_ms in (1_000, 1_500)]

    other.commit(second, Batch(freed=[run]))

    assert not any(before) or not is_exact(store)
    assert glance(store, lease, now_ms=6_501).runs


def test_a_message_from_before_the_lease_of_its_run_ended_is_seen_at_once(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(other, second)
    other.commit(second, Batch(wakes=[(None, 0, run)]))
    other.submit(Batch(messages=[signal(run)]))
    for now_ms in (1_000, 1_500):
        glance(store, lease, now_ms=now_ms)

    other.release(second)

    assert glance(store, lease, now_ms=1_600).runs


def test_a_lease_that_is_over_is_seen(store: Store, lease: Lease, other: Store, second: Lease) -> None:
    start(store, lease)

    before, after = glance(other, second), glance(other, second, now_ms=10_001)

    assert not before.runs or not is_exact(store)
    assert after.runs


def test_a_glance_renews_the_lease_if_it_is_told_to(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    glance(store, lease, now_ms=9_000, until_ms=20_000)

    assert next(row.until_ms for row in store.workers(now_ms=15_000)) == 20_000
    assert lease.number in {row.lease for row in other.workers(now_ms=15_000)}


@pytest.mark.parametrize("until_ms", [0, 90_000])
def test_a_worker_that_has_lost_its_lease_hears_of_it(open_store: Callable[[], Store], until_ms: int) -> None:
    store = open_store()
    if not is_exact(store) and not until_ms:
        pytest.skip("a file is told by the next commit")
    lease = store.acquire("first", now_ms=0, ttl_ms=10_000)
    store.release(lease)

    with pytest.raises(LeaseLost):
        glance(store, lease, until_ms=until_ms)
