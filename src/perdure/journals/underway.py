"""What a run is in the middle of, against new code: calls without an answer, messages not taken yet.

A journal has answers only. What was asked for shows where it has left something
else on disk: a step's failed attempts or heartbeat, a child's own row, a message that
waits. A step that runs for the first time has left nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from ..core.journal import key_parts
from ..core.records import Kind, Message, MessageKind, Record, RunRow, Status
from ..runtime.closing import decode_end
from ..runtime.jobs import decode_outcome
from ..stores.base import AttemptRow
from .parting import Parting
from .replayer import Replayer


def stranded_step(replayer: Replayer, attempts: Iterable[AttemptRow]) -> Parting | None:
    """A step that was begun, has no answer yet, and that the code would not ask for again."""
    answered = {record.key for record in replayer.records}
    for attempt in attempts:
        instead = None if attempt.key in answered else _instead_of(replayer, attempt.key)
        if instead is not None:
            return _stranded(replayer, "Step", attempt.key, "was begun", instead)
    return None


def stranded_child(replayer: Replayer, children: Iterable[RunRow]) -> Parting | None:
    """A child whose end the run awaits, and that the code would not ask for again, or not so."""
    for child in children:
        pending = replayer.execution.pending_call(child.parent_key)
        instead = _instead_of(replayer, child.parent_key)
        if pending is not None and child.generation == 1 and pending.digest != zlib.crc32(child.input):
            instead = "the code now calls it with other arguments"
        if instead is not None:
            return _stranded(replayer, "Child", child.parent_key, "was started", instead)
    return None


def _stranded(replayer: Replayer, noun: str, key: str, begun: str, instead: str) -> Parting:
    return Parting(
        "stranded", replayer.row.workflow,
        f"{noun} {key_parts(key)[2]!r} at {key!r} {begun} and has no answer yet, but {instead}. "
        "What comes of it would not be heard, or be taken for something else.",
        proposal="Let these runs get the answer with the old code, and deploy then.",
    )  # fmt: skip


def _instead_of(replayer: Replayer, key: str) -> str | None:
    """What the code does in place of an unanswered call; None if it asks for it, or did and gave it up."""
    execution = replayer.execution
    if execution.pending_call(key) is not None or execution.outcome is not None:
        return None
    path, ordinal, _ = key_parts(key)
    for pending in execution.pending:
        if key_parts(pending.key)[:2] == (path, ordinal):
            return f"the code now asks for {key_parts(pending.key)[2]!r} there"
    for task in execution.loop.tasks:
        if task.path == path and ordinal.isdigit() and task.calls <= int(ordinal):
            return "the code does not ask for it"
    return None


def hand_over(replayer: Replayer, messages: Sequence[Message]) -> None:
    """Tell the code what was sent and waits for it. Raises what `deliver` raises."""
    execution = replayer.execution
    at_ms = max(replayer.row.created_at_ms, *(record.at_ms for record in replayer.records[-1:]), 0)
    for message in messages:
        record = _as_record(replayer, message, at_ms)
        if record is not None and execution.outcome is None:
            replayer.deliver([record])


def _as_record(replayer: Replayer, message: Message, at_ms: int) -> Record | None:
    """What a worker would record for it; None for what no code has to read."""
    seq, number = replayer.execution.seq, replayer.row.number
    if message.kind == MessageKind.SIGNAL:
        return Record(seq, Kind.SIGNAL, message.name, 0, at_ms, message.payload, number)
    pending = replayer.execution.pending_call(message.name)
    if message.kind == MessageKind.CHILD_ENDED and pending is not None:
        end = decode_end(message.payload or b"")
        kind = Kind.CHILD if end.status == Status.COMPLETED else Kind.CHILD_FAILED
        return Record(seq, kind, message.name, pending.digest, at_ms, end.output, number)
    if message.kind == MessageKind.STEP_ENDED and pending is not None:
        outcome = decode_outcome(message.payload or b"")
        if outcome.digest == pending.digest:  # else it is asked for anew
            kind = Kind.STEP if outcome.ok else Kind.STEP_FAILED
            return Record(seq, kind, message.name, pending.digest, at_ms, outcome.payload, number)
    return None
