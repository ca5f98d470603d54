"""Read models: what people and programs see of runs. Values only; made from the store's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from .codec.failures import describe_failure
from .core.records import RunRow, Status


class RunStatus(Enum):
    """Where a run stands."""

    RUNNING = "running"
    PARKED = "parked"
    """Stopped, and waits for a person: kept, visible, resumable."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed out"
    CONTINUED = "continued"
    """Ended by continue_as_new; the next generation of the id goes on."""

    @property
    def is_open(self) -> bool:
        """Whether the run may still do something."""
        return self in (RunStatus.RUNNING, RunStatus.PARKED)


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, as listed."""

    id: str
    generation: int
    """1, and one more for each time the id was reused or continued as new."""
    workflow: str
    status: RunStatus
    created_at: datetime
    ended_at: datetime | None
    error: str | None
    """Of a run that failed or is parked: the error's type and message."""
    tags: Mapping[str, str]
    number: int
    """The store's own number, unique for each generation."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of a listing, newest first."""

    runs: list[RunView]
    next: int | None
    """Give this as `before` for the next page; None at the end."""


def from_ms(ms: int) -> datetime:
    """A stored time as a datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def run_view(row: RunRow, tags: Mapping[str, str]) -> RunView:
    """A stored row as a view."""
    status = Status(row.status)
    has_error = status in (Status.PARKED, Status.FAILED, Status.CANCELLED, Status.TERMINATED, Status.TIMED_OUT)
    return RunView(
        id=row.id,
        generation=row.generation,
        workflow=row.workflow,
        status=RunStatus(status.word),
        created_at=from_ms(row.created_at_ms),
        ended_at=None if row.ended_at_ms is None else from_ms(row.ended_at_ms),
        error=describe_failure(row.output) if has_error and row.output else None,
        tags=dict(tags),
        number=row.number,
    )
