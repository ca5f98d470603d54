"""Row 33: steady load on a stream for long, while processes are killed."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .row import Counted, Row, Trials, Work
from .soaked import counted_soak

HOLDS = (
    "memory and open files of a worker that lives do not grow, nor does the log beside the file",
    "each event is handled, and in one place only",
)


def seconds_of(work: Work) -> float:
    """Of one trial."""
    return work.size(push=12, long=600, release=3_600)


def _run(work: Work) -> Counted:
    return counted_soak(work, _new_store, seconds=seconds_of(work))


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=33,
    name="soak",
    fault="A stream has steady load for long; a worker beside, or who appends, is killed every few seconds.",
    how="100 events a second to a handler and to windows; 10 minutes, and an hour before a release.",
    holds=HOLDS,
    trials=Trials(push=1, long=1, release=1),
    run=_run,
)
