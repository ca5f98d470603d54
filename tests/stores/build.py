"""Makes the values that the tests of stores write: short to say, with nothing left to chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from perdure.core.records import Kind, Message, MessageKind, NewRun, Record, RunRow, Status
from perdure.stores.base import Batch, Lease, RunEnd, Store

LARGE = b'"' + b"x" * 600_000 + b'"'
"""A payload that no row holds inline."""


def new_run(run_id: str = "order-17", **changes: Any) -> NewRun:
    """A run to start."""
    run = NewRun(run_id, "checkout", b'{"cents":4200}', run_id.encode().ljust(16)[:16], 1_000, "3.11")
    return replace(run, **changes)


def start(store: Store, lease: Lease, run_id: str = "order-17", **changes: Any) -> int:
    """Start a run; give its number."""
    (outcome,) = store.commit(lease, Batch(starts=[new_run(run_id, **changes)])).starts
    assert outcome.verdict == "started"
    return outcome.run.number


def claim(
    store: Store, lease: Lease, *, now_ms: int, limit: int = 100, workflows: Sequence[str] = ("checkout",)
) -> list[int]:
    """Claim runs, by default of the workflow that `start` starts."""
    return store.claim(lease, workflows=workflows, now_ms=now_ms, limit=limit)


def submit(store: Store, run_id: str = "order-17", **changes: Any) -> int:
    """Start a run that is free; give its number."""
    (outcome,) = store.submit(Batch(starts=[new_run(run_id, **changes)])).starts
    assert outcome.verdict == "started"
    return outcome.run.number


def row_of(store: Store, run: int) -> RunRow:
    """The row of a run that is there."""
    row = store.run_by_number(run)
    assert row is not None
    return row


def record(run: int, seq: int, payload: bytes | None = b"1") -> Record:
    """A step's result."""
    return Record(seq, Kind.STEP, f"0/charge/{seq}", 7, 1_000 + seq, payload, run)


def end(run: int, status: int = Status.COMPLETED, *, at_ms: int = 2_000, output: bytes = b'"ok"') -> RunEnd:
    """An end of a run."""
    return RunEnd(status, output, at_ms, None, run)


def park(run: int, output: bytes | None = b"{}") -> RunEnd:
    """A run that parks."""
    return RunEnd(Status.PARKED, output, None, None, run)


def open_again(run: int) -> RunEnd:
    """A parked run that is opened again."""
    return RunEnd(Status.RUNNING, None, None, 0, run)


def signal(run: int, payload: bytes | None = b'"ann"', *, request: str = "") -> Message:
    """A signal to a run."""
    return Message(0, run, MessageKind.SIGNAL, "approval", payload, request, 1_500)
