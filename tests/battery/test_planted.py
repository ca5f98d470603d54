"""Bugs planted into the engine: the battery catches each, every time; and without them it finds nothing.

Also the seeds of simulations that have found a bug, kept for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from battery import r25_changed_code
from battery.planted import caught_by, counting_calls, replaced, without_the_fence
from battery.r25_changed_code import EDITS
from battery.simulating.planted import EVENTS, OF_EVENTS, Planted, delivering_early, looking_ahead
from battery.simulating.witness import Witness
from battery.simulating.world import simulate
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import start

pytestmark = pytest.mark.slow

SEEDS = range(1, 9)
"""Together they catch each bug; not every seed comes to the place where it shows."""

FOUND = {
    (
        37,
        5,
        12,
        1,
        0,
    ): "a child that ended while the engine was opening was begun once more, its end told twice",
    (148, 5, 12, 1, 0): "the same, with a signal in between",
    (218, 5, 12, 1, 0): "the same, in a task group",
    (1437, 6, 60, 1, 0): "a timer fired while suspects were brought back, and one of them was never woken",
    (95, 6, 40, 2, 0): "a run that was claimed under a lease that was lost since was read again and again",
    (299, 6, 40, 2, 0): "the same",
    (654, 6, 60, 2, EVENTS): "a join whose lane was on its way to another worker was looked at without end",
}


def caught(planted: Callable[[], AbstractContextManager[object]]) -> list[str]:
    """What the simulations say of an engine with that bug."""
    said: list[str] = []
    with planted():
        for seed in SEEDS:
            try:
                simulate(seed)
            except AssertionError as broken:  # the witness's, or the store's own
                said.append(str(broken))
    return said


def test_a_commit_that_skips_the_fence_is_caught() -> None:
    said = caught(without_the_fence)

    assert any(law.startswith("I6: a worker wrote under lease") for law in said)


def test_a_run_that_is_written_by_a_worker_that_did_not_claim_it_is_seen(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    first, second = (store.acquire(name, now_ms=0, ttl_ms=10_000) for name in ("first", "second"))
    run, witness = start(store, first), Witness()
    batch = Batch(wakes=[(0, 0, run)])

    for lease in (first, second):
        store.commit(lease, batch)
        witness.committed(batch, lease=lease.number, store=store)

    assert witness.broken == [
        f"I6: a worker wrote run {run} under lease {second.number}, but it belongs to {first.number}"
    ]
    store.close()


def test_a_result_that_is_acknowledged_before_its_commit_is_caught() -> None:
    said = caught(delivering_early)

    assert any("went past a step" in law and "not on disk" in law for law in said)


def test_a_replay_that_hands_out_results_before_their_turn_is_caught() -> None:
    said = caught(looking_ahead)

    assert any(law.startswith("I4") for law in said)


@pytest.mark.parametrize(
    "edit", [edit for edit in EDITS if edit.fits and "branches" in edit.what], ids=lambda edit: edit.what
)
def test_keys_that_count_the_calls_of_a_run_are_caught(edit: r25_changed_code.Edit, tmp_path: Path) -> None:
    with counting_calls(), pytest.raises(r25_changed_code.RunParked, match="the code now"):
        asyncio.run(r25_changed_code.deploy(edit, tmp_path))


def test_an_engine_with_no_bug_planted_keeps_every_law() -> None:
    results = [simulate(seed) for seed in SEEDS]

    assert sum(result.steps for result in results) > 200
    assert sum(result.deaths for result in results) > 50


@pytest.mark.parametrize("planted", OF_EVENTS, ids=lambda planted: planted.what)
def test_a_bug_in_the_delivery_of_events_is_caught(planted: Planted) -> None:
    found = (caught_by(lambda seed=seed: planted.simulate(seed)) for seed in SEEDS)

    said = next(filter(None, found), "")

    assert said.startswith("I8")


def test_without_a_bug_the_laws_of_events_are_kept_and_the_same_seed_gives_the_same_trace() -> None:
    first, again = simulate(1, events=EVENTS), simulate(1, events=EVENTS)

    assert first == again
    assert first.handled > 3 * EVENTS


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    first, again, other = simulate(1), simulate(1), simulate(2)

    assert first == again
    assert first.trace != other.trace


def test_two_workers_keep_every_law_and_give_the_same_trace_too() -> None:
    results = [simulate(seed, workers=2) for seed in SEEDS]

    assert results == [simulate(seed, workers=2) for seed in SEEDS]
    assert sum(result.deaths for result in results) > 50


@pytest.mark.parametrize(("seed", "runs", "size", "workers", "events"), FOUND)
def test_a_seed_that_found_a_bug_finds_it_no_more(
    seed: int, runs: int, size: int, workers: int, events: int
) -> None:
    result = simulate(seed, runs=runs, size=size, workers=workers, events=events)

    assert result.steps > 0


def test_a_bug_that_takes_other_arguments_is_refused_as_it_would_be_caught_for_that() -> None:
    other = replaced(Witness, breaks=lambda self: None)

    with pytest.raises(AssertionError, match=r"Witness\.breaks takes other arguments"):
        other.__enter__()
