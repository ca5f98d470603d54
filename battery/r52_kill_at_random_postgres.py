"""Row 52: row 2 on PostgreSQL: several workers and a client are killed at random instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from .fleet import Fleet, told_by
from .planted import delivering_early
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server

_KILLS = 12
_WORKERS = 3
_LONGEST_LIFE_S = 0.12
_SEEDS_FOR_A_CONTROL = 10
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 40.0, 5.0


def _run(work: Work, server: Server) -> Counted:
    def trial(seed: int, folder: Path) -> None:
        _live_and_die(server, seed, folder)

    def controls(work: Work) -> Sequence[Control]:
        """Workers that deliver what is not on disk."""
        with delivering_early():  # the processes are forks: they have it too
            for seed in range(_SEEDS_FOR_A_CONTROL):
                with work.fresh_folder() as folder:
                    broken = told_by(
                        partial(
                            _live_and_die,
                            server,
                            seed,
                            folder,
                            store="control",
                            patience_s=_PATIENCE_OF_A_CONTROL_S,
                        )
                    )
                if broken:
                    break
        return [Control("results are delivered before they are on disk", bool(broken), broken)]

    counted = work.counted(trial, controls=controls)
    return replace(counted, figures={"kills": _KILLS * counted.trials})


def _live_and_die(
    server: Server, seed: int, folder: Path, *, store: str = "trial", patience_s: float = _PATIENCE_S
) -> None:
    draw = chance(seed)
    fleet = Fleet(folder, server.store_url(f"{store}_{seed}"), workers=_WORKERS, patience_s=patience_s)
    try:
        for _ in range(_KILLS):
            fleet.live_for(draw.random() * _LONGEST_LIFE_S)
            if draw.random() < 0.2:
                fleet.replace_client()
            else:
                fleet.replace_worker(draw.randrange(_WORKERS))
            fleet.witness.look()
        fleet.come_to_the_end()
    finally:
        fleet.end()


ROW = Row(
    number=52,
    name="kill -9 at random, PostgreSQL",
    fault="One of three workers on one PostgreSQL store, or their client, is killed by SIGKILL.",
    how="Forked processes, and a real `kill -9` at a random instant, a dozen in each trial; others go on.",
    holds=(
        "nothing acknowledged is lost",
        "a step on record is not done again, and one that is interrupted has the same idempotency key",
        "the rows agree after each death",
        "every run comes to its right end",
    ),
    trials=Trials(push=1, long=200, release=4_000),
    run=with_a_server(_run),
)
