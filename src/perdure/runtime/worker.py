"""What the parts of a worker may use of the driver that they belong to.

The driver is made of them, so they cannot name it: they are given it as this
protocol. It lists no more than `children` and `closing` need; what comes after
the driver (inbox, recovery) names the driver itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..core.records import RunRow
from ..stores.base import Store
from .clock import Clock, Source
from .committer import Committer
from .definitions import WorkflowDefinition
from .reads import Reads
from .registry import Registry
from .resident import Resident


class Worker(Protocol):
    """The driver, as its parts see it."""

    store: Store
    clock: Clock
    source: Source
    registry: Registry
    committer: Committer
    reads: Reads
    ending: set[int]
    """Runs whose end, or parking, is on its way to disk."""

    def begin(self, row: RunRow, definition: WorkflowDefinition) -> None:
        """Start a run that has just been written to disk."""
        ...

    def make_resident(self, row: RunRow) -> Resident:
        """The worker's side of a run, not begun yet."""
        ...

    def record(
        self, resident: Resident, kind: int, key: str, digest: int, payload: bytes | None, value: Any = ...
    ) -> None:
        """Add a record; it is delivered to the run when it is on disk."""
        ...

    def withdraw_jobs(self, run: int) -> None:
        """Nobody waits any more for the steps of a run that were queued for others."""
        ...

    def carry_out(self, resident: Resident) -> None:
        """Do what a run asked for, and look what it waits for now."""
        ...

    def forget(self, resident: Resident) -> None:
        """Take a run off the books: evicted, ended or parked."""
        ...

    @property
    def look_for_messages(self) -> Callable[[], None]:
        """Look now for messages that were written by others than this worker's senders."""
        ...

    @property
    def retry_messages(self) -> Callable[[int], None]:
        """Look again at messages that a run could not take."""
        ...
