"""Published states: the highest version stands."""

from __future__ import annotations

from perdure.stores.base import Batch, Lease, StateRow, Store
from tests.stores.build import LARGE, start


def test_a_state_is_read_back_by_name(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    rows = [StateRow(run, "status", 1, b'"paid"', 5), StateRow(run, "total", 3, LARGE, 6)]

    store.commit(lease, Batch(states=rows))

    assert store.states(run) == {"status": rows[0], "total": rows[1]}
    assert store.states(run + 1) == {}


def test_a_higher_version_replaces_a_lower_one(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(states=[StateRow(run, "status", 1, LARGE, 5)]))

    store.commit(lease, Batch(states=[StateRow(run, "status", 2, b"2", 6)]))

    assert store.states(run)["status"] == StateRow(run, "status", 2, b"2", 6)
    assert list(store.check()) == []


def test_a_version_that_is_not_higher_changes_nothing(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    kept = StateRow(run, "status", 2, b"2", 6)
    store.commit(lease, Batch(states=[kept]))

    rows = [StateRow(run, "status", 2, b"3", 7), StateRow(run, "status", 1, LARGE, 7)]
    store.commit(lease, Batch(states=rows))

    assert store.states(run) == {"status": kept}
    assert list(store.check()) == []
