"""Runs with their journals: those that have not ended, that are parked, or that are asked for."""

from __future__ import annotations

import pytest

from perdure.stores.base import AttemptRow, Batch, Lease, Store
from tests.stores.build import LARGE, end, open_again, park, record, signal, start


@pytest.fixture
def some(store: Store, lease: Lease) -> Store:
    """Active `a`, ended `b`, sleeping `c`, waiting `d`, parked `e` and `f`; a record each, `d` two."""
    a, b, c, d, e, f = (start(store, lease, name) for name in "abcdef")
    records = [record(number, 0) for number in (a, b, c, d, e, f)]
    store.commit(
        lease,
        Batch(
            records=[*records, record(d, 1, LARGE)],
            ends=[end(b), park(e), park(f)],
            wakes=[(9_999, 0, c), (None, 0, d)],
        ),
    )
    return store


def test_runs_that_have_not_ended_come_with_their_journals_by_number(some: Store) -> None:
    found = some.open_runs(after=0, limit=10)

    assert [(row.id, len(records)) for row, records in found] == [
        ("a", 1), ("c", 1), ("d", 2), ("e", 1), ("f", 1)
    ]  # fmt: skip
    assert all(row.number == one.run for row, records in found for one in records)


def test_a_large_value_comes_whole(some: Store) -> None:
    found = {row.id: records for row, records in some.open_runs(after=0, limit=10)}

    assert found["d"][1].payload == LARGE


def test_the_next_page_of_open_runs_begins_after_the_last_number(some: Store) -> None:
    first = some.open_runs(after=0, limit=2)

    second = some.open_runs(after=first[-1][0].number, limit=2)

    assert [row.id for row, _ in [*first, *second]] == ["a", "c", "d", "e"]


def test_only_parked_runs_are_listed_as_parked_by_number(some: Store) -> None:
    first = some.parked_runs(after=0, limit=1)

    second = some.parked_runs(after=first[-1].number, limit=10)

    assert [row.id for row in [*first, *second]] == ["e", "f"]
    assert some.parked_runs(after=second[-1].number, limit=10) == []


def test_a_run_that_was_resumed_is_no_longer_parked(some: Store, lease: Lease) -> None:
    number = some.parked_runs(after=0, limit=1)[0].number

    some.commit(lease, Batch(ends=[open_again(number)]))

    assert [row.id for row in some.parked_runs(after=0, limit=10)] == ["f"]


def test_runs_are_loaded_with_all_that_a_worker_needs_by_number(store: Store, lease: Lease) -> None:
    a, b, c = (start(store, lease, name) for name in "abc")
    records = [record(run, seq, LARGE if seq else b"1") for run in (c, a) for seq in range(2)]
    attempts = [
        AttemptRow(run, key, number, b"{}", LARGE, 5)
        for run in (a, c) for key in ("0/x", "0/y") for number in (1, 2)
    ]  # fmt: skip
    messages = [signal(c, LARGE), signal(a), signal(c)]
    store.commit(lease, Batch(records=records, attempts=attempts[::-1], messages=messages))

    loaded = store.load([c, 12_345, a])

    assert [each.row for each in loaded] == [store.run_by_number(a), store.run_by_number(c)]
    assert [each.records for each in loaded] == [store.records(a), store.records(c)]
    assert [each.attempts for each in loaded] == [attempts[:4], attempts[4:]]
    assert [each.messages for each in loaded] == [store.messages_for(a), store.messages_for(c)]
    assert [len(each.messages) for each in loaded] == [1, 2]
    assert store.load([b])[0][1:] == ([], [], [])


def test_runs_are_loaded_whatever_their_status_and_whosever_they_are(some: Store, lease: Lease) -> None:
    some.release(lease)

    loaded = some.load(range(1, 1_000))

    assert [each.row.id for each in loaded] == ["a", "b", "c", "d", "e", "f"]
    assert some.load([]) == []
