"""Row 2: worker and clients are killed at random instants, again and again, on one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from . import orders
from .lives import Life, Witness
from .planted import delivering_early, first_caught
from .row import Control, Counted, Row, Trials, Work, chance

_KILLS = 12
_LONGEST_LIFE_S = 0.06
_SEEDS_FOR_A_CONTROL = 20
_PLANTED = "results are delivered before they are on disk"


def _run(work: Work) -> Counted:
    kills: list[int] = []

    def trial(seed: int, folder: Path) -> None:
        kills.append(_live_and_die(seed, folder))

    counted = work.counted(trial, controls=_controls)
    return replace(counted, figures={"kills": sum(kills)})


def _live_and_die(seed: int, folder: Path) -> int:
    """One file, until all its orders are done. Gives how many processes were killed."""
    draw = chance(seed)
    SqliteStore(folder / "runs.db").close()
    witness = Witness(folder)
    worker = client = None
    kills = 0
    try:
        worker, client = _worker(witness), _client(witness)
        while not (client.ends_within(draw.random() * _LONGEST_LIFE_S) and client.end()):
            if worker.ends_within(0):
                worker.end()  # says why
                raise AssertionError("a worker ended by itself")
            if kills == _KILLS:
                continue  # from now on they are let be, and must come to their end
            kills += 1
            if draw.random() < 0.3:
                client.kill()
                client = _client(witness)
            else:
                worker.kill()
                witness.look()
                worker = _worker(witness)
        worker.kill()
        witness.look()
        orders.assert_all_was_done(witness)
    finally:
        for process in (worker, client):
            if process is not None:
                process.kill()
        witness.close()
    return kills


def _worker(witness: Witness) -> Life:
    return Life(partial(orders.serve, witness), errors=witness.errors)


def _client(witness: Witness) -> Life:
    return Life(partial(orders.ask, witness), errors=witness.errors)


def _controls(work: Work) -> Sequence[Control]:
    """A worker that delivers what is not on disk."""
    with delivering_early():  # the processes are forks: they have it too
        return [first_caught(work, _PLANTED, _live_and_die, seeds=_SEEDS_FOR_A_CONTROL)]


ROW = Row(
    number=2,
    name="kill -9 at random",
    fault="A worker and its client, two processes on one file, are killed by SIGKILL at random instants.",
    how="Forked processes, and a real `kill -9`, a dozen in each trial; then they must come to their end.",
    holds=(
        "nothing acknowledged is lost",
        "a step on record is not done again, and one that is interrupted has the same idempotency key",
        "the store is whole after each death",
        "every run comes to its right end",
    ),
    trials=Trials(push=70, long=1_000, release=17_000),
    run=_run,
)
