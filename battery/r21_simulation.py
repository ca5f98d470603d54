"""Row 21: the whole engine in one thread, with virtual time and every fault at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .planted import caught_by
from .row import Control, Counted, Row, Trials, Work
from .simulating.planted import EVENTS, PLANTED, Planted
from .simulating.world import Simulated, simulate

_PLAYED_TWICE = 4
"""In the longer tiers one seed in so many is played twice; in the short one all are."""
_SEEDS_FOR_A_CONTROL = 120


def _run(work: Work) -> Counted:
    seen: list[Simulated] = []
    # Longer runs in the longer tiers: the same faults, more of the program between them.
    runs, size = work.size(push=5, long=6, release=6), work.size(push=12, long=60, release=60)
    with_events = work.size(push=6, long=2, release=2)  # one seed of so many
    twice = 1 if work.tier == "push" or not work.is_whole else _PLAYED_TWICE

    def trial(seed: int, folder: Path) -> None:
        events = EVENTS if seed % with_events == 0 else 0
        workers = 1 + seed // 2 % 2  # of both kinds with events and without
        seen.append(simulate(seed, runs=runs, size=size, events=events, workers=workers))
        if seed % twice == 0:
            again = simulate(seed, runs=runs, size=size, events=events, workers=workers)
            assert again == seen[-1], f"the same seed gave another trace: {again} after {seen[-1]}"

    counted = work.counted(trial, controls=_controls)
    figures = {
        "steps recorded": sum(one.steps for one in seen),
        "commits": sum(one.commits for one in seen),
        "faults": sum(one.faults for one in seen),
        "deaths of a worker": sum(one.deaths for one in seen),
        "events handled": sum(one.handled for one in seen),
    }
    often = "Each seed" if twice == 1 else f"One seed of {twice}"
    notes = [
        f"{often} was played twice, with the same trace.",
        f"Every second had two workers, and one of {with_events} event streams.",
    ]
    return Counted(counted.trials, counted.failures, counted.controls, notes, figures)


def _controls(work: Work) -> Sequence[Control]:
    return [_control(planted) for planted in PLANTED]


def _control(planted: Planted) -> Control:
    for tries in range(1, _SEEDS_FOR_A_CONTROL + 1):
        seen = caught_by(lambda seed=tries: planted.simulate(seed))
        if seen:
            return Control(planted.what, True, f"seed {tries}: {seen}")
    return Control(planted.what, False, f"nothing, in {_SEEDS_FOR_A_CONTROL} simulations")


ROW = Row(
    number=21,
    name="simulation",
    fault="Workers die, in commits and between, lose answers, find the disk full, are stopped past their "
    "lease; the clock is set; clients insist; all of it together.",
    how="The real engine and SQLite on an event loop with virtual time; programs, events, faults and delays "
    "follow from one seed. One worker; or two that share the runs, and whose reads take a while too, as at a "
    "server, and are told in another order. Streams have handlers of each order, one in transactions, one "
    "that starts runs, a window, a join, and a person who redrives what is parked.",
    holds=(
        "nothing acknowledged is lost",
        "a record never changes, and a recorded step is never done again",
        "each call has one idempotency key",
        "a replay sees what the run saw",
        "who has lost the lease writes nothing",
        "no timer is early",
        "when the faults end, every run comes to its end",
        "each event is done, parked or discarded, in the order of its key, and once in a transaction",
        "windows and joins are those of a plain computation",
        "the same seed gives the same trace",
    ),
    trials=Trials(push=40, long=1_000, release=20_000),
    run=_run,
)
