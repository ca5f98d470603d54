"""Who gets an id: what becomes of a start whose id is taken. A pure decision, the same in every store."""

from __future__ import annotations

import json
from typing import Final

from ..core.records import NewRun, RunRow, Status
from .base import StartOutcome

_FAILURES: Final = (Status.FAILED, Status.CANCELLED, Status.TERMINATED, Status.TIMED_OUT)


def decide_start(start: NewRun, latest: RunRow, origin: RunRow | None) -> StartOutcome | None:
    """Say what becomes of a start whose id `latest` has; None when it becomes the next generation.

    `origin` is the run that was once started under the id and that `latest`
    continues; None when it has been removed.
    """
    status = Status(latest.status)
    if status is Status.CONTINUED:
        return None
    if status.is_open:
        if start.on_conflict == "raise":
            return StartOutcome("conflict", latest, "running")
        if start.on_conflict == "cancel":
            return StartOutcome("conflict", latest, "cancelling")
    elif start.reuse == "always" or (start.reuse == "if_failed" and status in _FAILURES):
        return None
    if latest.workflow != start.workflow:
        return StartOutcome("conflict", latest, "workflow")
    if origin is not None and not _is_same(origin.input, start.input):
        return StartOutcome("conflict", latest, "input")
    return StartOutcome("existing", latest)


def _is_same(one: bytes, other: bytes) -> bool:
    """Whether two inputs say the same; what was started by SQL has spaces, and names in any order."""
    if one == other:
        return True
    try:
        first, second = (json.dumps(json.loads(data), sort_keys=True) for data in (one, other))
    except ValueError:  # it was damaged, or written by hand
        return False
    return first == second
