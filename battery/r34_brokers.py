"""Row 34: brokers that are away, die, stand still or answer with errors, beside workers that are killed."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .bridged import counted_bridges
from .row import Counted, Row, Trials, Work

FAULT = "The broker is away, is killed, stopped, cut off, or answers with errors; workers are killed."
HOLDS = (
    "each message that the broker has acknowledged becomes one event, each key in its order",
    "no more messages are acknowledged to the broker than are on disk as events",
    "each event goes out, and for the first time in the order of its key",
)


def _run(work: Work) -> Counted:
    return counted_bridges(work, _new_store)


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=34,
    name="brokers",
    fault=FAULT,
    how="A real NATS server, which syncs always, and librdkafka's Kafka cluster in turn; a worker takes in "
    "from it, into one file, and relays to it.",
    holds=HOLDS,
    trials=Trials(push=4, long=100, release=1_000),
    run=_run,
)
