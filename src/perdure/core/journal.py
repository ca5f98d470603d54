"""The one rule of replay, in words: what was recorded must be asked for again.

`Execution` holds the rule; this file explains a breach of it to a person: which
record, what the code does instead and in which line, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from ..errors import JournalMismatch
from .commands import PendingCall
from .host import RunFacts
from .loop import RunTask
from .records import Kind, Record

_WHAT_NOW = (
    "The workflow's code changed after this run started, or it branches on something that is not recorded "
    "(time, randomness, a global, the order of a set)."
)
_HINT = (
    "Deploy the old code for this run, or guard the change with patched('…'): when a worker has code "
    "that fits, the run goes on by itself. Nothing new was done."
)


def mismatch(
    facts: RunFacts,
    record: Record,
    pending: Mapping[str, PendingCall],
    tasks: Sequence[RunTask],
    *,
    ended: bool = False,
) -> JournalMismatch:
    """The error for a record that the code does not ask for."""
    task_path, ordinal, name = key_parts(record.key)
    found = f"Run {facts.id!r} recorded {_noun(record)} {name!r} at '{record.key}' (record {record.seq})"
    same = pending.get(record.key)
    beside = next((key for key in pending if key_parts(key)[:2] == (task_path, ordinal)), None)
    if ended:
        instead = "the code now ends before it"
    elif same is not None:
        instead = f"the code now calls it with other arguments: {_call_text(same.call)}"
    elif beside is not None:
        instead = f"the code now asks for {key_parts(beside)[2]!r}"
    else:
        asked = ", ".join(repr(key) for key in list(pending)[:3]) or "nothing"
        instead = f"the code now asks for {asked}"
    where = _where(tasks, task_path)
    return JournalMismatch(f"{found}, but {instead}{where}. {_WHAT_NOW}", run_id=facts.id, hint=_HINT)


def undecodable(facts: RunFacts, record: Record, error: BaseException) -> JournalMismatch:
    """The error for a recorded value that no longer fits the code's type."""
    return JournalMismatch(
        f"Run {facts.id!r} recorded a value for '{record.key}' (record {record.seq}) that the code can no "
        f"longer read: {error}. The type changed after it was recorded.",
        run_id=facts.id,
        hint="Give new fields a default and keep old ones: with code that can read it the run goes on by "
        "itself. Nothing new was done.",
    )


def step_without_caller(what: str) -> str:
    """What to do about a durable call that nobody awaited."""
    return f"Write `await {what}`, or hand it to asyncio.create_task and await the task; then resume the run."


def _noun(record: Record) -> str:
    return "child" if record.kind in (Kind.CHILD, Kind.CHILD_FAILED, Kind.CHILD_STARTED) else "step"


def key_parts(key: str) -> tuple[str, str, str]:
    """Task path, ordinal in that task, name."""
    task_path, _, rest = key.partition("/")
    ordinal, _, name = rest.partition("/")
    return task_path, ordinal, name


def _call_text(call: Any) -> str:
    return call.describe() if hasattr(call, "describe") else repr(call)


def _where(tasks: Sequence[RunTask], path: str) -> str:
    """` (shop.py:41, in checkout)`: where the task of that path stands now; empty if it is gone."""
    frame = standing_frame(tasks, path)
    return f" ({line_of(frame)})" if frame is not None else ""


def line_of(frame: FrameType) -> str:
    """`shop.py:41, in checkout`."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


def standing_frame(tasks: Sequence[RunTask], path: str) -> FrameType | None:
    """Where the task of that path waits, in the user's code; else where the task that made it does.

    A call that is a task by itself, as under gather, has no line: whoever made it has.
    """
    while path:
        for task in tasks:
            if task.path == path and not task.done() and (frames := standing_frames(task.get_coro())):
                return frames[-1]
        path = path.rpartition(".")[0]
    return None


def standing_frames(coroutine: Any) -> list[FrameType]:
    """The frames of a suspended coroutine, outermost first, without those of asyncio and of this library.

    If there are no others, those.
    """
    found: list[FrameType] = []
    for _ in range(1000):
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            break
        found.append(frame)
        coroutine = coroutine.cr_await
    return [frame for frame in found if is_users(frame)] or found


def is_users(frame: FrameType) -> bool:
    """Whether a frame is neither of asyncio nor of this library."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in ("asyncio", "perdure")
