"""Row 62: row 12 on PostgreSQL: the connection is cut at a COMMIT, before the server hears it or after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from perdure.stores.postgres.connection import Database

from .fleet import Fleet, told_by
from .planted import replaced
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server
from .ways import Way, cutting

_RATES = (0.05, 0.1, 0.2)
_LOOKS, _EFFECTS_BETWEEN = 4, 8
_PATIENCE_OF_A_CONTROL_S = 8.0
_SEEDS_FOR_A_CONTROL = 5


def _run(work: Work, server: Server) -> Counted:
    cut = Counter[str]()

    def trial(seed: int, folder: Path) -> None:
        _cut_and_cut_again(server, seed, folder, cut)

    def controls(work: Work) -> Sequence[Control]:
        return [_control(work, server, is_written=is_written) for is_written in (False, True)]

    return work.counted(trial, controls=controls, figures=cut)


def _cut_and_cut_again(
    server: Server,
    seed: int,
    folder: Path,
    cut: Counter[str],
    *,
    store: str = "trial",
    patience_s: float = 40.0,
) -> None:
    draw = chance(seed)
    url = server.store_url(f"{store}_{seed}")
    way = Way(server, folder, answers=cutting(draw, draw.choice(_RATES)))
    through = way.url(f"{store}_{seed}")
    fleet = Fleet(folder, url, ways=[through, through], client=through, patience_s=patience_s)
    try:
        for _ in range(_LOOKS):
            fleet.live_until_effects(_EFFECTS_BETWEEN)
            fleet.witness.look()
        fleet.come_to_the_end()
    finally:
        cut["COMMITs cut"] += way.cuts
        fleet.end()
        way.end()


def _control(work: Work, server: Server, *, is_written: bool) -> Control:
    planted = f"a lost answer is taken for {'' if is_written else 'not '}written"
    store = "taken" if is_written else "refused"
    broken = ""
    for seed in range(_SEEDS_FOR_A_CONTROL):
        with work.fresh_folder() as folder, believing(is_written):
            play = partial(_cut_and_cut_again, server, seed, folder, Counter(), store=store)
            broken = told_by(partial(play, patience_s=_PATIENCE_OF_A_CONTROL_S))
        if broken:
            break
    return Control(planted, bool(broken), broken or "nothing")


def believing(is_written: bool) -> AbstractContextManager[None]:
    """A store that does not ask what became of a transaction whose COMMIT was not answered."""
    return replaced(Database, _was_written=lambda self, broken, error: is_written)


ROW = Row(
    number=62,
    name="ambiguous commit, PostgreSQL",
    fault="The connection breaks at a COMMIT: it was not heard, or it was, and its answer is lost.",
    how="Two workers and a client behind a proxy that cuts 5 to 20 % of the COMMITs: before the server hears "
    "them, after, or so that the server does not learn of it.",
    holds=(
        "nothing is lost, and nothing is written twice",
        "an id starts once, and a signal with an id is taken once",
        "a recorded step does not run again; one that does has the same idempotency key",
        "every run comes to its result",
    ),
    trials=Trials(push=1, long=300, release=10_000),
    run=with_a_server(_run),
)
