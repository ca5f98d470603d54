"""Row 31: events, messages and documents that name addresses, which nobody is to call."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .baited import HOLDS, counted_baits
from .row import Counted, Row, Trials, Work

FAULT = "Events, messages and documents name ports of this machine, hosts and files, wherever they can."


def _run(work: Work) -> Counted:
    return counted_baits(work, _new_store)


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=31,
    name="addresses in data",
    fault=FAULT,
    how="Fifteen addresses in data, keys, ids, sources, headers and references; something listens there, and "
    "what the process opens, looks up and connects to is overheard.",
    holds=HOLDS,
    trials=Trials(push=1, long=20, release=100),
    run=_run,
)
