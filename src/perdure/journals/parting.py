"""Where a run's code and its journal part: what kind of change it was, in which line, and what to do.

It looks at a replay that has just been refused, and reads the code only to show
the line and to name the change. What it proposes is a proposal: the person who
changed the code knows better what it was.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from textwrap import dedent, indent
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Literal

from ..core.journal import is_users, key_parts, line_of, standing_frame
from ..core.records import Kind, Record, Status
from ..errors import JournalMismatch, NotDecodable, PerdureError
from ..runtime.definitions import WorkflowDefinition
from .replayer import Replayer

Change = Literal[
    "added", "removed", "renamed", "moved", "arguments", "other",  # patched() helps
    "value", "input", "fails", "breaks", "workflow", "stranded",  # it does not
]  # fmt: skip
PATCHABLE: tuple[Change, ...] = ("added", "removed", "renamed", "moved", "arguments", "other")

_STATEMENT_LINES_MAX = 20
_FUNCTIONS_MAX = 500


@dataclass(frozen=True, slots=True)
class Parting:
    """Where the code and the journal of a run part."""

    change: Change
    workflow: str
    what: str
    """A sentence, the same for all runs that part in the same way."""
    seq: int | None = None
    """The record that the code did not ask for."""
    record: str = ""
    """`step 'ship' at '0/0/ship'`"""
    line: str = ""
    """`shop.py:41, in checkout`: where the code stands."""
    code: str = ""
    """The statement there."""
    proposal: str = ""
    """What to write or do instead."""

    @property
    def kin(self) -> object:
        """The same for all runs that part in the same way: what they say of themselves may differ."""
        detail = self.what.partition(":")[0] if self.change == "arguments" else self.what
        return self.change, self.workflow, self.seq, self.record, self.line, detail

    @property
    def is_patchable(self) -> bool:
        """Whether `patched` makes code that suits both old runs and new ones."""
        return self.change in PATCHABLE


def parting_of(replayer: Replayer, error: Exception) -> Parting:
    """What a refused replay comes to. `error` is what `begin` or `deliver` raised."""
    row, record = replayer.row, replayer.record
    if record is None and isinstance(error, NotDecodable):
        return Parting(
            "input", row.workflow, f"The stored input can no longer be read: {error.what}",
            proposal="Give new parameters and fields a default, and keep the old ones.",
        )  # fmt: skip
    if not isinstance(error, JournalMismatch) or record is None:
        return _breaks(replayer, error)
    noun = _noun(record)
    if isinstance(error.__cause__, NotDecodable):
        return Parting(
            "value", row.workflow, f"A recorded result can no longer be read: {error.__cause__.what}",
            record.seq, noun, proposal="Give new fields a default and keep old ones.",
        )  # fmt: skip
    return _mismatch(replayer, record, noun)


def _mismatch(replayer: Replayer, record: Record, noun: str) -> Parting:
    execution = replayer.execution
    path, ordinal, name = key_parts(record.key)
    pending = {call.key: call for call in execution.pending}
    beside = next((key for key in pending if key_parts(key)[:2] == (path, ordinal)), None)
    frame = None if execution.outcome is not None else standing_frame(execution.loop.tasks, path)
    if record.key in pending:
        call: Any = pending[record.key].call
        change, what = "arguments", f"the code now calls {name!r} with other arguments"
        what += f": {_cut(call.describe())}" if call is not None else ""
    elif beside is not None:
        change, what = _name_change(replayer, record, key_parts(beside)[2])
    elif execution.outcome is not None:
        status = execution.outcome.status.word
        change, what = "removed", f"the code now ends ({status}) before it asks for {name!r}"
    else:
        asked = ", ".join(repr(key_parts(key)[2]) for key in list(pending)[:3]) or "time or a message"
        change, what = "other", f"the code does not ask for {name!r} here, and waits for {asked}"
    code, line = ("", "") if frame is None else (_statement(frame), line_of(frame))
    asked_name = key_parts(beside)[2] if beside is not None else ""
    return Parting(
        change, replayer.row.workflow, f"The journal has {noun}, but {what}.",
        record.seq, noun, line, code, _proposal(change, code, name, asked_name),
    )  # fmt: skip


def _name_change(replayer: Replayer, record: Record, asked: str) -> tuple[Change, str]:
    """Which of several changes it was: told by what was recorded later, and by what the code still names."""
    path, ordinal, name = key_parts(record.key)
    moved = next((call.key for call in replayer.execution.pending if key_parts(call.key)[2] == name), None)
    if moved is not None:
        return (
            "moved",
            f"the code now asks for {asked!r} there, and for {name!r} at {moved!r}: the order is another",
        )
    later = [
        key_parts(other.key)[2]
        for other in replayer.records
        if key_parts(other.key)[0] == path and key_parts(other.key)[1].isdigit()
        if int(key_parts(other.key)[1]) > int(ordinal)
    ]
    if asked in later:
        return (
            "removed",
            f"the code goes on to {asked!r}, which came after it: {name!r} was taken out or moved",
        )
    if name in _names_used(replayer.definition):
        return "added", f"the code now asks for {asked!r} first, which was not there"
    return (
        "renamed",
        f"the code now asks for {asked!r}, and names {name!r} nowhere: it was renamed or replaced",
    )


def _names_used(definition: WorkflowDefinition) -> set[str]:
    """The names of the steps and workflows that the workflow calls, itself or through plain functions."""
    found: set[str] = set()
    left: list[Any] = [definition.fn]
    seen: set[Any] = set()
    while left and len(seen) < _FUNCTIONS_MAX:
        function = inspect.unwrap(left.pop())
        if function in seen or not isinstance(function, FunctionType):
            continue
        seen.add(function)
        for value in _values_named(function):
            if hasattr(value, "fn") and isinstance(getattr(value, "name", None), str):
                found.add(value.name)
            elif isinstance(value, FunctionType):
                left.append(value)
    return found


def _values_named(function: FunctionType) -> Iterator[Any]:
    """What the names in a function's code stand for, as far as that is told without running it."""
    names = {*_code_names(function.__code__)}
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from (vars(value).get(inner) for inner in names)
        else:
            yield value
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a cell that is empty yet
            yield cell.cell_contents


def _code_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _code_names(inner)


def failure_of(replayer: Replayer) -> Parting | None:
    """Of an open run whose code now fails where it only waited: how. None if it does not."""
    outcome = replayer.execution.outcome
    if outcome is None or outcome.status is not Status.FAILED or outcome.error is None:
        return None
    line = _raised_at(outcome.error)
    what = f"The code raises where the run stood: {_error_text(replayer, outcome.error)}"
    record = replayer.record
    return Parting(
        "fails", replayer.row.workflow, what, None if record is None else record.seq, line=line,
        proposal="The run would end as failed. Keep what the journal holds readable, or catch the error.",
    )  # fmt: skip


def _breaks(replayer: Replayer, error: Exception) -> Parting:
    record = replayer.record
    what = f"The code breaks in the replay: {_error_text(replayer, error)}"
    hint = error.hint if isinstance(error, PerdureError) else ""
    return Parting(
        "breaks", replayer.row.workflow, what, None if record is None else record.seq,
        line=_raised_at(error), proposal=hint,
    )  # fmt: skip


def _error_text(replayer: Replayer, error: BaseException) -> str:
    text = error.what if isinstance(error, PerdureError) else str(error)
    # The same for all runs that part in the same way.
    return f"{type(error).__name__}: {text}".replace(repr(replayer.row.id), "…")


def _raised_at(error: BaseException) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lines = [lineno for _, lineno in traceback.walk_tb(error.__traceback__)]
    for frame, line in zip(reversed(frames), reversed(lines), strict=True):
        if is_users(frame):
            return f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return ""


# -- what to write ---------------------------------------------------------------------------------


def _proposal(change: Change, code: str, name: str, asked: str) -> str:
    indented = indent(code, "    ") if code else "    ..."
    match change:
        case "added":
            lines = [f'if patched("{asked}"):', indented]
            if name in code or _binds(code):
                lines += ["else:", "    ...  # what stood here before"]
            return "\n".join(lines)
        case "removed":
            call = f"    await {name}(...)  # as it was called before"
            return "\n".join([f'if not patched("without {name}"):', call, *([code] if code else [])])
        case "renamed":
            return "\n".join([
                f'@step(name="{name}")  # at {asked}, if it does the same; else:',
                f'if patched("{asked}"):', indented, "else:", f"    ...  # {name} as it was",
            ])  # fmt: skip
        case "arguments":
            before = f"    ...  # {name} with the arguments of before"
            return "\n".join([f'if patched("arguments of {name}"):', indented, "else:", before])
        case _:
            return "\n".join(
                [f'if patched("after {name}"):', "    ...  # the new way", "else:", "    ...  # the old one"]
            )


def _binds(code: str) -> bool:
    """Whether a statement gives a name a value, which the other branch must then give too."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return True
    return not all(isinstance(node, ast.Expr) for node in tree.body)


def _statement(frame: FrameType) -> str:
    """The source of the statement at which a frame stands; of a compound one, its head."""
    linecache.checkcache(frame.f_code.co_filename)
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    return _statement_in(source, frame.f_lineno)


@lru_cache(maxsize=256)  # many runs part at one line
def _statement_in(source: str, at: int) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    best = (at, at)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= at <= (node.end_lineno or node.lineno):
            end = node.end_lineno or node.lineno
            body: list[ast.stmt] = getattr(node, "body", [])
            if body:
                end = max(node.lineno, body[0].lineno - 1)
            if at <= end:  # inner ones come later
                best = (node.lineno, end)
    first, last = best
    return dedent("".join(source.splitlines(keepends=True)[first - 1 : last][:_STATEMENT_LINES_MAX])).rstrip()


def _noun(record: Record) -> str:
    child = record.kind in (Kind.CHILD, Kind.CHILD_FAILED, Kind.CHILD_STARTED)
    return (
        f"{'child' if child else 'step'} {key_parts(record.key)[2]!r} at {record.key!r} (record {record.seq})"
    )


def _cut(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
