"""Row 36: workers that handle events are killed at random instants, and so is who appends them."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .handled import counted_lives
from .row import Counted, Row, Trials, Work

_WORKERS = 2
_LONGEST_LIFE_S = 0.08


def _run(work: Work) -> Counted:
    return counted_lives(work, _new_store, workers=_WORKERS, longest_life_s=_LONGEST_LIFE_S)


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=36,
    name="handlers killed",
    fault="One of two workers that handle events, or who appends them, is killed by SIGKILL.",
    how="Forked processes on one file, and a real `kill -9` at a random instant, ten in each trial.",
    holds=(
        "each event is in the stream once, at one position",
        "each event is handled until its handler is done",
        "the next event of a key is not begun before; after it was, none before it is given again",
        "an event has one idempotency key, whichever worker handles it",
    ),
    trials=Trials(push=10, long=300, release=5_000),
    run=_run,
)
