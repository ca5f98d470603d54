"""Attempts of steps: the last word on each stands."""

from __future__ import annotations

from perdure.stores.base import AttemptRow, Batch, Lease, Store
from tests.stores.build import LARGE, start


def test_attempts_come_in_the_order_of_key_then_number(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    places = [("b", 1), ("a", 10), ("a", 2)]
    rows = [AttemptRow(run, key, number, b'"failed"', None, 5) for key, number in places]

    store.commit(lease, Batch(attempts=rows))

    assert store.attempts(run) == [rows[2], rows[1], rows[0]]


def test_it_is_known_which_runs_of_a_range_have_attempts(store: Store, lease: Lease) -> None:
    runs = [start(store, lease, f"run-{number}") for number in range(4)]
    rows = [
        AttemptRow(run, "a", number, None, None, 5)
        for run in (runs[0], runs[1], runs[3])
        for number in (1, 2)
    ]

    store.commit(lease, Batch(attempts=rows))

    assert store.attempted(after=runs[0], until=runs[3]) == {runs[1], runs[3]}
    assert store.attempted(after=runs[1], until=runs[2]) == set()


def test_an_attempt_is_replaced_by_what_is_said_of_it_later(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(attempts=[AttemptRow(run, "a", 1, None, LARGE, 5)]))
    last = AttemptRow(run, "a", 1, LARGE, b'"half"', 6)

    store.commit(lease, Batch(attempts=[last]))

    assert store.attempts(run) == [last]
    assert list(store.check()) == []
