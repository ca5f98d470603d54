"""Listing and counting runs, their tags and children."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.records import Status
from perdure.stores.base import Batch, Lease, RunQuery, Store
from tests.stores.build import LARGE, end, new_run, start


@pytest.fixture
def five(store: Store, lease: Lease) -> Store:
    """Runs a, b, c, d_1 and dx1; `b` in two generations."""
    start(store, lease, "a", created_at_ms=10, tags=(("team", "red"), ("size", "1")))
    old = start(store, lease, "b", created_at_ms=20)
    store.commit(lease, Batch(ends=[end(old, Status.FAILED)]))
    start(store, lease, "b", created_at_ms=30, reuse="always", tags=(("team", "red"),))
    start(store, lease, "c", created_at_ms=40, workflow="refund", parent=old)
    start(store, lease, "d_1", created_at_ms=50, input=LARGE)
    done = start(store, lease, "dx1", created_at_ms=60)
    store.commit(lease, Batch(ends=[end(done)]))
    return store


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["dx1", "d_1", "c", "b2", "a"]),
        ({"all_generations": True}, ["dx1", "d_1", "c", "b2", "b1", "a"]),
        ({"workflow": "refund"}, ["c"]),
        ({"statuses": (Status.COMPLETED, Status.FAILED)}, ["dx1"]),
        ({"statuses": (Status.FAILED,), "all_generations": True}, ["b1"]),
        ({"created_after_ms": 40}, ["dx1", "d_1", "c"]),
        ({"created_before_ms": 40}, ["b2", "a"]),
        ({"tags": (("team", "red"),)}, ["b2", "a"]),
        ({"tags": (("team", "red"), ("size", "1"))}, ["a"]),
        ({"tags": (("team", "blue"),)}, []),
        ({"id_prefix": "d"}, ["dx1", "d_1"]),
        ({"id_prefix": "d_"}, ["d_1"]),
        ({"parent": 2}, ["c"]),
        ({"limit": 2}, ["dx1", "d_1"]),
    ],
)
def test_a_query_lists_the_runs_that_fit_newest_first(
    five: Store, filters: dict[str, Any], expected: list[str]
) -> None:
    rows = five.list_runs(RunQuery(**filters))

    names = [f"{row.id}{row.generation}" if row.id == "b" else row.id for row in rows]
    assert names == expected


def test_the_next_page_begins_below_the_last_number(five: Store) -> None:
    first = five.list_runs(RunQuery(limit=3))

    second = five.list_runs(RunQuery(limit=3, before=first[-1].number))

    assert [row.id for row in first + second] == ["dx1", "d_1", "c", "b", "a"]


def test_tags_come_by_run(five: Store) -> None:
    a, c = five.run_by_id("a"), five.run_by_id("c")
    assert a is not None
    assert c is not None

    tags = five.tags_of([a.number, c.number])

    assert tags == {a.number: {"team": "red", "size": "1"}, c.number: {}}
    assert five.tags_of([]) == {}


def test_counts_are_of_the_latest_generations(five: Store) -> None:
    assert five.counts() == {Status.RUNNING: 4, Status.COMPLETED: 1}


def test_children_are_the_latest_generations_in_the_order_of_number(store: Store, lease: Lease) -> None:
    parent = start(store, lease, "parent")
    old = start(store, lease, "one", parent=parent)
    start(store, lease, "two", parent=parent, input=LARGE)
    next_one = new_run("one", parent=parent, input=b"2")
    store.commit(lease, Batch(starts=[next_one], ends=[end(old, Status.CONTINUED)]))

    children = store.children(parent)

    assert [(child.id, child.generation) for child in children] == [("two", 1), ("one", 2)]
    assert store.children(old) == []


def test_what_is_not_there_is_none(store: Store, lease: Lease) -> None:
    start(store, lease)

    assert store.run_by_id("other") is None
    assert store.run_by_id("order-17", generation=2) is None
    assert store.run_by_number(99) is None
