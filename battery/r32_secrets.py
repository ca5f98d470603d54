"""Row 32: secrets in events and in the addresses of brokers, and where they must not be."""

from __future__ import annotations

from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .row import Counted, Row, Trials, Work
from .secrets_looked_for import counted_secrets

FAULT = (
    "Events with secrets fail, cannot be read, are waited for and exported; messages with secrets in their "
    "headers are rejected; functions raise errors that have some; brokers with passwords are away."
)
HOLDS = (
    "an event's data, and its trace context, is not in the log, in lists, or in a redacted export",
    "a message's headers are nowhere but in the stream of what was rejected",
    "what a function raised is told in the log and with what it failed at, and not in a redacted export",
    "the password of a broker, or of the store, is nowhere: not in the log, nor in the store",
)


def _run(work: Work) -> Counted:
    return counted_secrets(work, _new_store)


def _new_store(name: str, folder: Path) -> str:
    store = folder / "runs.db"
    SqliteStore(store).close()
    return f"sqlite:///{store}"


ROW = Row(
    number=32,
    name="secrets",
    fault=FAULT,
    how="Drawn words that stand for secrets, looked for, also as base64, in all that is said and written.",
    holds=HOLDS,
    trials=Trials(push=1, long=20, release=100),
    run=_run,
)
