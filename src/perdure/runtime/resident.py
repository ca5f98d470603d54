"""A run in this worker's memory, and what the worker keeps beside it."""

from __future__ import annotations

import asyncio

from ..core.execution import Execution
from ..core.records import Record, RunRow
from ..stores.base import AttemptRow
from .clock import Clock


class Resident:
    """The worker's side of one run. Its execution is the pure side."""

    __slots__ = (
        "armed_at_ms", "asks_again", "attempts", "awaits_children", "cancel_reason", "closing", "crashes",
        "execution", "in_flight", "jobs", "last_at_ms", "number", "recorded", "row", "seq", "stored_wake_ms",
    )  # fmt: skip

    def __init__(self, row: RunRow, execution: Execution) -> None:
        self.row = row
        self.number = row.number
        self.execution = execution
        self.seq = 0
        """The seq of the next record to add."""
        self.last_at_ms = row.created_at_ms
        self.recorded = 0
        """Records that are added and not delivered yet."""
        self.in_flight: dict[str, asyncio.Task[None] | None] = {}
        """What the worker owes an answer for, by key: a step's task, or None for a child being started."""
        self.attempts: dict[str, list[AttemptRow]] | None = None
        """Of a run that was loaded: attempts of steps that are not done."""
        self.jobs: set[str] | None = None
        """Keys of steps that are queued for other workers; None: there never was one."""
        self.asks_again = False
        """Whether what the run asks for now may have been asked for in an earlier life."""
        self.stored_wake_ms: int | None = row.wake_at_ms
        self.crashes = row.crashes
        self.armed_at_ms: int | None = None
        self.closing = False
        """The end of the run is on its way to disk: nothing more is recorded."""
        self.awaits_children = False
        """Whether children must end before this run's own cancellation is delivered."""
        self.cancel_reason: str | None = None
        """Why it is being cancelled; None while it is not."""

    def next_record(self, kind: int, key: str, digest: int, payload: bytes | None, clock: Clock) -> Record:
        """The next record of this run; its time never goes back."""
        at_ms = clock.now_ms()
        if at_ms < self.last_at_ms:  # noqa: PLR1730 (max() costs more than the whole line)
            at_ms = self.last_at_ms
        self.last_at_ms = at_ms
        record = Record(self.seq, kind, key, digest, at_ms, payload, self.number)
        self.seq += 1
        self.recorded += 1
        return record

    def cancel_steps(self) -> None:
        """Stop what is in flight; nobody waits for it any more."""
        for task in self.in_flight.values():
            if task is not None:
                task.cancel()
        self.in_flight.clear()
        if self.jobs:
            self.jobs.clear()

    @property
    def is_idle(self) -> bool:
        """Whether only time or a message can get this run on."""
        return not self.in_flight and not self.recorded and not self.closing and not self.awaits_children
