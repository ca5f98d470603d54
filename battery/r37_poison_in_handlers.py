"""Row 37: events that make who handles them raise, hang, spin, crash or exit, beside events that are well."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .poisoned import CASES, counted_poisons
from .row import Counted, Row, Trials, Work

HOLDS = (
    "the poisoned event is parked, after three deaths at most, and later ones of its key behind it",
    "events of other keys are handled, each key in its order, and no worker ends for good",
    "every event is done, parked, discarded or pending, and in one place only",
    "an event starts a run once, and a parked one starts none",
    "what was parked behind the poison goes on when a person has discarded that",
)


def _run(work: Work) -> Counted:
    return counted_poisons(work, _new_store)


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=37,
    name="poison in handlers",
    fault="An event cannot be read, or makes its handler raise, hang, spin, recurse, crash or exit.",
    how=f"{len(CASES)} poisons and kinds of handler, in forked workers that are begun again, or killed when "
    "they stand still.",
    holds=HOLDS,
    trials=Trials(push=8, long=3 * len(CASES), release=30 * len(CASES)),
    run=_run,
)
