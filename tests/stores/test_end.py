"""Ends and wakes: where a run stands, and when it must be in memory."""

from __future__ import annotations

import pytest

from perdure.core.records import Status
from perdure.stores.base import AttemptRow, Batch, Lease, RunEnd, Store
from tests.stores.build import LARGE, end, open_again, park, row_of, start


@pytest.mark.parametrize("output", [b'"ok"', LARGE])
def test_an_end_sets_status_output_and_time(store: Store, lease: Lease, output: bytes) -> None:
    run = start(store, lease)

    store.commit(lease, Batch(ends=[end(run, Status.FAILED, at_ms=77, output=output)]))

    row = row_of(store, run)
    assert (row.status, row.output, row.ended_at_ms, row.wake_at_ms) == (Status.FAILED, output, 77, None)


def test_a_parked_run_can_be_opened_again(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(ends=[park(run, LARGE)]))

    store.commit(lease, Batch(ends=[open_again(run)]))

    row = row_of(store, run)
    assert (row.status, row.output, row.wake_at_ms) == (Status.RUNNING, None, 0)
    assert list(store.check()) == []


def test_a_run_that_is_opened_again_has_no_attempts_and_no_crashes(store: Store, lease: Lease) -> None:
    run, other = start(store, lease, "one"), start(store, lease, "other")
    attempts = [AttemptRow(number, "0/0/charge", 1, b'"failed"', None, 5) for number in (run, other)]
    store.commit(lease, Batch(attempts=attempts, wakes=[(0, 5, run)]))
    store.commit(lease, Batch(ends=[park(run)]))
    parked = row_of(store, run).crashes, store.attempts(run)

    store.commit(lease, Batch(ends=[open_again(run)]))

    assert parked == (5, attempts[:1])
    assert (row_of(store, run).crashes, store.attempts(run)) == (0, [])
    assert store.attempts(other) == attempts[1:]


def test_a_run_that_has_ended_stays_as_it_ended(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(ends=[end(run)]))
    before = row_of(store, run)

    store.commit(lease, Batch(ends=[end(run, Status.CANCELLED, output=LARGE)], wakes=[(5, 1, run)]))

    assert row_of(store, run) == before
    assert list(store.check()) == []


def test_a_wake_sets_time_and_crashes(store: Store, lease: Lease) -> None:
    run = start(store, lease)

    store.commit(lease, Batch(wakes=[(5_000, 2, run)]))

    row = row_of(store, run)
    assert (row.wake_at_ms, row.crashes) == (5_000, 2)


def test_sleeping_runs_come_in_the_order_of_their_time(store: Store, lease: Lease) -> None:
    a, b, c, d, e, f = (start(store, lease, name) for name in "abcdef")
    wakes = [(300, 0, a), (100, 0, b), (300, 0, c), (None, 0, d), (400, 0, f)]
    store.commit(lease, Batch(wakes=wakes))

    first = store.sleeping_runs(lease, after=(0, 0), until_ms=300, limit=2)
    second = store.sleeping_runs(lease, after=first[-1], until_ms=300, limit=2)

    assert first == [(100, b), (300, a)]
    assert second == [(300, c)]
    assert e not in [run for _, run in first + second]


def test_a_run_that_ended_asleep_is_not_woken(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(100, 0, run)]))

    store.commit(lease, Batch(ends=[RunEnd(Status.TERMINATED, None, 50, None, run)], wakes=[(100, 0, run)]))

    assert store.sleeping_runs(lease, after=(0, 0), until_ms=1_000, limit=9) == []


def test_of_many_runs_those_that_have_stopped_or_are_not_there_are_found(store: Store, lease: Lease) -> None:
    runs, ended, parked = (start(store, lease, name) for name in ("runs", "ended", "parked"))
    store.commit(lease, Batch(ends=[end(ended, output=LARGE), park(parked)]))

    found = store.stopped_runs([runs, ended, parked, 999])

    assert found == {ended: row_of(store, ended), parked: row_of(store, parked), 999: None}
    assert store.stopped_runs([runs]) == {}
