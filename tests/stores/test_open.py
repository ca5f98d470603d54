"""Runs that have not ended, with their journals; and those of them that are parked."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.core.records import Status
from perdure.stores.base import Batch, Lease, RunEnd, Store
from tests.stores.build import LARGE, end, record, start


@pytest.fixture
def some(store: Store, lease: Lease) -> Store:
    """Active `a`, ended `b`, sleeping `c`, waiting `d`, parked `e` and `f`; a record each, `d` two."""
    a, b, c, d, e, f = (start(store, lease, name) for name in "abcdef")
    parked = [RunEnd(Status.PARKED, b"{}", None, None, number) for number in (e, f)]
    records = [record(number, 0) for number in (a, b, c, d, e, f)]
    store.commit(
        lease,
        Batch(
            records=[*records, record(d, 1, LARGE)],
            ends=[end(b), *parked],
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

    some.commit(lease, Batch(ends=[RunEnd(Status.RUNNING, None, None, 0, number)]))

    assert [row.id for row in some.parked_runs(after=0, limit=10)] == ["f"]


def test_looking_for_parked_runs_does_not_read_the_others(tmp_path: Path) -> None:
    import apsw

    from perdure.stores.sqlite.connection import MIGRATIONS
    from perdure.stores.sqlite.statements import SQL

    connection = apsw.Connection(str(tmp_path / "runs.db"))
    for migration in MIGRATIONS:
        connection.execute(migration.sql)

    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {SQL['parked_runs']}", (0, 5))]

    assert plan == ["SEARCH run USING INDEX run_open (status=? AND wake_at_ms=? AND rowid>?)"]
    connection.close()
