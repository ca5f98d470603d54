"""The door: all of a batch or nothing, and only with the lease."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.core.records import Status
from perdure.errors import LeaseLost
from perdure.stores.base import AttemptRow, Batch, Lease, Reply, StateRow, Store
from tests.stores.build import LARGE, claim, end, new_run, record, signal, start


def full_batch(run: int) -> Batch:
    """A batch that touches everything."""
    return Batch(
        starts=[new_run("new", input=LARGE)],
        records=[record(run, 0, LARGE)],
        ends=[end(run)],
        states=[StateRow(run, "status", 1, LARGE, 5)],
        attempts=[AttemptRow(run, "0/charge", 1, b"1", LARGE, 5)],
        replies=[Reply("q", ok=True, payload=LARGE, at_ms=5)],
    )


def traces(store: Store, run: int) -> list[object]:
    """What a full batch would have changed."""
    row = store.run_by_number(run)
    assert row is not None
    return [
        row.status, store.run_by_id("new"), store.records(run), store.states(run), store.attempts(run),
        store.reply("q"), store.messages_for(run), list(store.check()),
    ]  # fmt: skip


NOTHING = [Status.RUNNING, None, [], {}, [], None, [], []]


def test_a_batch_that_fails_half_way_writes_nothing(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    batch = full_batch(run)
    batch.records.append(record(run, 0))

    with pytest.raises(AssertionError):
        store.commit(lease, batch)

    assert traces(store, run) == NOTHING


def test_a_value_that_cannot_be_kept_late_in_a_batch_undoes_all_before_it(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    batch = full_batch(run)
    batch.messages.append(signal(run)._replace(name=None))  # type: ignore[arg-type]
    batch.ends.clear()

    with pytest.raises(Exception, match="name"):
        store.commit(lease, batch)

    assert traces(store, run) == NOTHING


def test_a_worker_that_lost_its_lease_writes_nothing(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    run = start(store, lease)
    other = open_store()
    claim(other, other.acquire("second", now_ms=10_000, ttl_ms=10_000), now_ms=10_000)

    with pytest.raises(LeaseLost, match="'first'"):
        store.commit(lease, full_batch(run))

    assert traces(store, run) == NOTHING


def test_a_commit_works_again_after_one_that_failed(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    with pytest.raises(AssertionError):
        store.commit(lease, Batch(records=[record(run, 0), record(run, 0)]))

    store.commit(lease, Batch(records=[record(run, 0)]))

    assert len(store.records(run)) == 1


def test_a_commit_is_seen_by_other_clients_at_once(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    other = open_store()
    run = start(store, lease)

    store.commit(lease, Batch(records=[record(run, 0)]))

    assert len(other.records(run)) == 1


def test_submit_refuses_what_only_a_worker_may_write(store: Store, lease: Lease) -> None:
    run = start(store, lease)

    with pytest.raises(AssertionError, match="lease"):
        store.submit(Batch(records=[record(run, 0)]))

    assert store.records(run) == []
