"""Removing ended runs, with all that is theirs."""

from __future__ import annotations

from perdure.core.records import Status
from perdure.stores.base import AttemptRow, Batch, Lease, RunQuery, StateRow, Store
from tests.stores.build import LARGE, end, new_run, record, signal, start


def fill(store: Store, lease: Lease, run: int) -> None:
    """Give a run one of everything."""
    batch = Batch(
        records=[record(run, 0, LARGE)],
        states=[StateRow(run, "status", 1, LARGE, 5)],
        attempts=[AttemptRow(run, "0/charge", 1, LARGE, LARGE, 5)],
        messages=[signal(run, LARGE, request="q")],
    )
    store.commit(lease, batch)


def test_a_removed_run_takes_with_it_all_that_is_its_own(store: Store, lease: Lease) -> None:
    gone = start(store, lease, "gone", tags=(("team", "red"),), input=LARGE)
    kept = start(store, lease, "kept", tags=(("team", "red"),), input=LARGE)
    for run in (gone, kept):
        fill(store, lease, run)
    store.commit(lease, Batch(ends=[end(gone, at_ms=10, output=LARGE)]))

    removed = store.remove_ended(before_ms=11, limit=10)

    assert removed == 1
    assert store.run_by_id("gone") is None
    assert (store.records(gone), store.states(gone), store.attempts(gone)) == ([], {}, [])
    assert (store.messages_for(gone), store.tags_of([gone])) == ([], {gone: {}})
    assert [len(store.records(kept)), len(store.states(kept)), len(store.attempts(kept))] == [1, 1, 1]
    assert store.records(kept)[0].payload == LARGE
    assert list(store.check()) == []


def test_only_runs_that_ended_before_are_removed_the_oldest_first(store: Store, lease: Lease) -> None:
    runs = [start(store, lease, name) for name in "abcde"]
    times = zip(runs, (30, 10, 20, 40), strict=False)
    parked = end(runs[4], Status.PARKED)._replace(ended_at_ms=None)
    store.commit(lease, Batch(ends=[*(end(run, at_ms=at_ms) for run, at_ms in times), parked]))

    counts = [store.remove_ended(before_ms=40, limit=2) for _ in range(3)]

    assert counts == [2, 1, 0]
    assert [row.id for row in store.list_runs(RunQuery())] == ["e", "d"]


def test_the_oldest_end_goes_first(store: Store, lease: Lease) -> None:
    late, early = start(store, lease, "late"), start(store, lease, "early")
    store.commit(lease, Batch(ends=[end(late, at_ms=20), end(early, at_ms=10)]))

    store.remove_ended(before_ms=40, limit=1)

    assert [row.id for row in store.list_runs(RunQuery())] == ["late"]


def test_a_removed_id_starts_afresh_under_a_new_number(store: Store, lease: Lease) -> None:
    old = start(store, lease, input=b"1")
    store.submit(Batch(messages=[signal(old, request="q")]))
    store.commit(lease, Batch(ends=[end(old, at_ms=10)]))
    store.remove_ended(before_ms=11, limit=1)

    new = start(store, lease, input=b"2")

    assert new > old
    (position,) = store.submit(Batch(messages=[signal(new, request="q")])).messages
    assert position > 0


def test_a_continued_run_outlives_its_first_generations(store: Store, lease: Lease) -> None:
    old = start(store, lease, input=b"1")
    store.commit(lease, Batch(starts=[new_run(input=b"2")], ends=[end(old, Status.CONTINUED, at_ms=10)]))
    store.remove_ended(before_ms=11, limit=1)

    (outcome,) = store.commit(lease, Batch(starts=[new_run(input=b"1")])).starts

    assert (outcome.verdict, outcome.run.generation) == ("existing", 2)
    assert store.run_by_id("order-17", generation=1) is None
    assert list(store.check()) == []
