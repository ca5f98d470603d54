"""Journals: the order of records, and what takes them back."""

from __future__ import annotations

import pytest

from perdure.core.records import Record
from perdure.stores.base import Batch, Lease, Store
from tests.stores.build import LARGE, record, start


def test_records_come_back_as_they_were_written_in_the_order_of_seq(store: Store, lease: Lease) -> None:
    one, other = start(store, lease, "one"), start(store, lease, "other")
    rows = [record(one, 0), record(other, 0, b"2"), record(one, 2, None), record(one, 1, LARGE)]

    store.commit(lease, Batch(records=rows))

    journal = store.records(one)
    assert journal == [rows[0], rows[3], rows[2]]
    assert all(isinstance(entry, Record) for entry in journal)
    assert store.records(other) == [rows[1]]


def test_a_second_record_at_the_same_place_is_refused_by_name(store: Store, lease: Lease) -> None:
    number = start(store, lease)
    store.commit(lease, Batch(records=[record(number, 0)]))

    with pytest.raises(AssertionError, match=f"record 0 of run {number}"):
        store.commit(lease, Batch(records=[record(number, 1), record(number, 0, b"2")]))

    assert store.records(number) == [record(number, 0)]


def test_the_same_place_twice_in_a_batch_is_refused_by_name(store: Store, lease: Lease) -> None:
    number = start(store, lease)

    with pytest.raises(AssertionError, match=f"record 1 of run {number}"):
        store.commit(lease, Batch(records=[record(number, 0, LARGE), record(number, 1), record(number, 1)]))

    assert store.records(number) == []


def test_forgotten_records_are_taken_back_from_a_place_on(store: Store, lease: Lease) -> None:
    one, other = start(store, lease, "one"), start(store, lease, "other")
    store.commit(lease, Batch(records=[record(run, seq) for run in (one, other) for seq in range(3)]))

    store.commit(lease, Batch(forgotten=[(one, 1)]))

    assert [entry.seq for entry in store.records(one)] == [0]
    assert [entry.seq for entry in store.records(other)] == [0, 1, 2]


def test_a_forgotten_place_can_be_recorded_again(store: Store, lease: Lease) -> None:
    number = start(store, lease)
    store.commit(lease, Batch(records=[record(number, 0, b"1")]))

    store.commit(lease, Batch(forgotten=[(number, 0)]))
    store.commit(lease, Batch(records=[record(number, 0, b"2")]))

    assert [entry.payload for entry in store.records(number)] == [b"2"]


def test_what_is_forgotten_makes_room_for_records_of_the_same_batch(store: Store, lease: Lease) -> None:
    number = start(store, lease)
    store.commit(lease, Batch(records=[record(number, seq, b"%d" % seq) for seq in range(3)]))

    store.commit(lease, Batch(records=[record(number, 1, b"2")], forgotten=[(number, 1)]))

    assert [entry.payload for entry in store.records(number)] == [b"0", b"2"]


@pytest.mark.parametrize("count", [31, 32, 33, 100])
def test_many_records_of_a_batch_come_back_as_they_were_written(
    store: Store, lease: Lease, count: int
) -> None:
    run = start(store, lease)
    rows = [record(run, seq, str(seq).encode()) for seq in range(count)]

    store.commit(lease, Batch(records=rows))

    assert store.records(run) == rows


def test_a_second_record_among_many_is_refused_and_none_is_written(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    rows = [*(record(run, seq) for seq in range(70)), record(run, 5)]

    with pytest.raises(AssertionError, match=f"record 5 of run {run}"):
        store.commit(lease, Batch(records=rows))

    assert store.records(run) == []
