"""`replay`: an exported journal against the code as it stands, in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..blocks.workflow import Workflow
from ..codec.failures import decode_failure, describe_failure
from ..core.commands import Outcome, RunStep
from ..core.journal import line_of, standing_frame
from ..core.records import RunRow, Status
from ..errors import JournalMismatch, WorkflowNotRegistered
from ..runtime.registry import Registry
from .form import Journal
from .reading import Source, load_journal
from .replayer import Replayer

_ENDS = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT, Status.CONTINUED)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a run waits for."""

    key: str
    """Its place in the run: task path, number in that task, name."""
    kind: str
    """`step` or `child`."""
    text: str
    """`charge(Order(id='17', …))`."""
    line: str
    """`shop.py:41, in checkout`: where the code waits for it; empty if that cannot be told."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    run_id: str
    workflow: str
    status: str
    """`completed`, `failed`, `cancelled` …, or `running`: the code waits for what is not recorded."""
    result: Any
    """Of a run that completed."""
    error: BaseException | None
    """Of one that ended otherwise, or is parked."""
    waits_for: tuple[Call, ...]
    """In the order of asking. A run may also wait for time or a signal: then nothing stands here for it."""
    stands_at: Mapping[str, str]
    """The code line at which each task waits, by the task's path (`0` is the workflow's own)."""
    wake_at: datetime | None
    """When time alone would get it on."""
    states: Mapping[str, Any]
    """What the run has published, as plain JSON values."""
    records: int
    """How many records were delivered."""


def replay(journal: Source, workflow: Workflow[Any, Any] | None = None) -> Replayed:
    """Replay a journal against the code as it stands; no step runs, nothing is written.

    `journal` is what `perdure export` wrote: the path of its file, its bytes, or the dict
    that `json.load` makes of it. `workflow` is the code; by default the workflow of the
    recorded name among all that are defined in this process. A plain function: it needs no
    engine and no event loop, and may be called where one runs.

    Raises JournalMismatch as a worker would, naming record and code line, when the code no
    longer asks for what was recorded, or when a run that had ended now comes to another end;
    WorkflowNotRegistered when there is no such workflow, DefinitionError when there are
    two; NotDecodable for a file that is no journal.

    Of a redacted journal arguments are not compared, and of results only how the run ended.
    """
    read = load_journal(journal)
    definition = workflow or Registry().find(read.run.workflow)
    if definition is None:
        raise WorkflowNotRegistered(
            f"Run {read.run.id!r} is of workflow {read.run.workflow!r}, which this process does not define.",
            run_id=read.run.id,
            hint="Import the module that defines it, or give replay() the workflow.",
        )
    replayer = Replayer(read.run, read.records, definition, redacted=bool(read.redacted))
    try:
        replayer.begin()
        replayer.deliver(read.records)
        check_end(read, replayer)
        return _replayed(replayer)
    finally:
        replayer.close()


def check_end(journal: Journal, replayer: Replayer) -> None:
    """Raise JournalMismatch if a run that had ended comes to another end in its replay."""
    row, outcome = journal.run, replayer.execution.outcome
    recorded = Status(row.status)
    if recorded not in _ENDS:
        return
    if outcome is None:
        frame = standing_frame(replayer.execution.loop.tasks, "0")
        raise _other_end(row, f"the code now waits{f' ({line_of(frame)})' if frame is not None else ''}")
    if outcome.status is not recorded:
        error = "" if outcome.error is None else f": {type(outcome.error).__name__}: {outcome.error}"
        raise _other_end(row, f"the code now ends as {outcome.status.word}{error}")
    if journal.redacted or recorded in (Status.CANCELLED, Status.TIMED_OUT, Status.CONTINUED):
        return  # a worker adds the reason to those
    before, now = row.output or b"", outcome.output or b""
    if recorded is Status.COMPLETED:
        if msgspec.json.decode(before) != msgspec.json.decode(now):
            raise _other_end(row, f"the code now returns {_short(now)}")
    elif describe_failure(before) != describe_failure(now):
        raise _other_end(row, f"the code now raises {describe_failure(now)}")


def _other_end(row: RunRow, instead: str) -> JournalMismatch:
    status = Status(row.status)
    how = f"ended as {status.word}"
    if status is Status.COMPLETED and row.output is not None:
        how += f" with {_short(row.output)}"
    elif status is Status.FAILED and row.output is not None:
        how += f" with {describe_failure(row.output)}"
    return JournalMismatch(
        f"Run {row.id!r} {how}, but {instead}. Every record was asked for: the code that changed stands "
        "between them or after the last.",
        run_id=row.id,
        hint="If the change is meant, guard it with patched('…'), or let this journal go.",
    )


def _short(data: bytes, width: int = 200) -> str:
    text = data.decode(errors="replace")
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _replayed(replayer: Replayer) -> Replayed:
    execution = replayer.execution
    outcome: Outcome | None = execution.outcome
    result: Any = None
    error: BaseException | None = None
    if outcome is not None and outcome.status is Status.COMPLETED:
        result = replayer.definition.decode_result(outcome.output or b"null")
    elif outcome is not None and outcome.output is not None:
        error = decode_failure(outcome.output)
    wake_ms = None if outcome is not None else execution.next_deadline_ms()
    return Replayed(
        run_id=replayer.row.id,
        workflow=replayer.row.workflow,
        status="running" if outcome is None else outcome.status.word,
        result=result,
        error=error,
        waits_for=tuple(waiting_calls(replayer)),
        stands_at={path: line_of(frames[-1]) for path, frames in replayer.standing()},
        wake_at=None if wake_ms is None else datetime.fromtimestamp(wake_ms / 1000, tz=UTC),
        states={name: msgspec.json.decode(data) for name, data in replayer.published().items()},
        records=execution.seq,
    )


def waiting_calls(replayer: Replayer) -> list[Call]:
    """The calls that the run waits for, in the order of asking."""
    execution = replayer.execution
    found: list[Call] = []
    for pending in execution.pending:
        frame = standing_frame(execution.loop.tasks, pending.key.partition("/")[0])
        kind = "step" if isinstance(pending, RunStep) else "child"
        text = pending.call.describe() if pending.call is not None else pending.key.split("/", 2)[-1]
        found.append(Call(pending.key, kind, text, "" if frame is None else line_of(frame)))
    return found
