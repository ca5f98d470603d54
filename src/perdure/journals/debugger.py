"""A replay under pdb: the code stops where a person says, with the recorded values in it.

The law: it is a replay like any other. No step runs, nothing is written, and what the
code asks for after the last record goes nowhere.
"""

from __future__ import annotations

import dis
import inspect
import pdb  # noqa: T100 (that is what it is)
import sys
import sysconfig
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from ..core.journal import is_users, line_of
from ..core.records import Kind, Record
from ..errors import PerdureError
from .replayer import Replayer

_INSIDE = ("perdure", "perdure.*", "asyncio", "asyncio.*")
"""Modules that `step` and `next` pass over."""
_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = ("<", *(sysconfig.get_paths()[name] for name in _LIBRARIES))
"""What the paths of installed code, and of code that was made at run time, begin with."""
_VALUE_WIDTH = 100


class Debugger(pdb.Pdb):
    """pdb for one replay. `leave` ends the process: the code may not go on after `quit`."""

    prompt = "(perdure) "

    def __init__(self, replayer: Replayer, *, at: Record | None, leave: Callable[[], NoReturn]) -> None:
        """`at`: stop when this record has been delivered; None: at the workflow's first line."""
        super().__init__(skip=_INSIDE)
        self.prompt = "(perdure) "
        self._replayer = replayer
        self._at = at
        self._leave = leave
        self._frames: list[FrameType] | None = None
        """Where a task stands that waits; None while code runs."""

    def replay(self) -> None:
        """Replay the run, stop on the way, and stop at its end where it waits."""
        replayer, records = self._replayer, self._replayer.records
        try:
            self._run()
        except Exception as error:  # what the code raises against the journal: shown, and then looked at
            sys.settrace(None)
            text = error.what if isinstance(error, PerdureError) else str(error)
            self.message(f"\n{type(error).__name__}: {text}")
            if not replayer.standing():
                self.interaction(None, error.__traceback__)  # type: ignore[arg-type] (pdb itself does so)
                return
        outcome = replayer.execution.outcome
        if outcome is None:
            self._stand(at_end=replayer.execution.seq == len(records))
        elif outcome.error is not None and outcome.error.__traceback__ is not None:
            self.message(f"\nThe run ends as {outcome.status.word}: {outcome.error!r}")
            self.interaction(None, outcome.error.__traceback__)  # type: ignore[arg-type]
        else:
            self.message(f"\nThe run ends as {outcome.status.word}: {_short(outcome.output)}")

    def _run(self) -> None:
        replayer = self._replayer
        if self._at is None:
            replayer.prepare()  # decoding the input may run code of the user's: not what is looked for
            self._arm()
        replayer.begin()
        for record in replayer.records:
            if self._at is None or record.seq >= self._at.seq:
                self.message(self._told(record))
            if record is self._at:
                self._arm()
            replayer.deliver([record])
        sys.settrace(None)

    def _arm(self) -> None:
        """Stop at the next line of the user's code."""
        self.reset()
        self.set_step()
        sys.settrace(self.trace_dispatch)

    def _told(self, record: Record) -> str:
        total = len(self._replayer.records)
        since_s = (record.at_ms - self._replayer.row.created_at_ms) / 1000
        kind = Kind(record.kind).name.lower().replace("_", " ")
        value = "" if record.payload is None else f" → {_short(record.payload)}"
        return f"── record {record.seq} of {total}, +{since_s:g} s: {kind} {record.key}{value}"

    # -- standing still --------------------------------------------------------------------------

    def _stand(self, *, at_end: bool) -> None:
        where = "The journal ends here; the run waits" if at_end else "The run stands"
        self.message(f"\n{where}:")
        self.do_tasks("")
        standing = self._replayer.standing()
        if standing:
            self._frames = standing[0][1]
            self.interaction(self._frames[-1], None)

    def do_tasks(self, arg: str) -> None:
        """tasks

        List the run's tasks, and the line at which each waits.
        """
        for path, frames in self._replayer.standing():
            self.message(f"  task {path}")
            for frame in frames:
                self.message(f"    {line_of(frame)}")
        for pending in self._replayer.execution.pending:
            self.message(f"  no answer yet: {pending.key}")

    def do_task(self, arg: str) -> None:
        """task PATH

        Go to where that task waits.
        """
        standing = dict(self._replayer.standing())
        frames = standing.get(arg.strip())
        if frames is None:
            self.error(f"No task {arg.strip()!r} waits. There are: {', '.join(standing) or 'none'}.")
            return
        self._frames = frames
        self.setup(frames[-1], None)
        self.print_stack_entry(self.stack[self.curindex])

    # -- what pdb does otherwise -----------------------------------------------------------------

    def get_stack(
        self, f: FrameType | None, t: TracebackType | None
    ) -> tuple[list[tuple[FrameType, int]], int]:
        """The user's frames only; of a task that waits, those of its coroutines."""
        if self._frames is not None and t is None:
            return [(frame, frame.f_lineno) for frame in self._frames], len(self._frames) - 1
        stack, index = super().get_stack(f, t)
        kept = [entry for entry in stack if is_users(entry[0])]
        return (kept, len(kept) - 1) if kept else (stack, index)

    def stop_here(self, frame: FrameType) -> bool:
        """Whether pdb may stop in a frame: not in what this library calls for itself."""
        return super().stop_here(frame) and not _is_called_by_us(frame)

    def user_call(self, frame: FrameType, argument_list: None) -> None:
        """A coroutine that goes on is called, to Python: stop at its next line instead."""

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """After `next` or `return` in a coroutine that has come to its end, stop in the one that awaited it.

        pdb waits for a StopIteration there, which newer Pythons do not raise.
        """
        if self.stopframe is frame and frame.f_code.co_flags & inspect.CO_COROUTINE and not _waits(frame):
            self.set_step()
            if frame.f_back is not None and is_users(frame.f_back):
                frame.f_back.f_trace = self.trace_dispatch
            return self.trace_dispatch
        return super().dispatch_return(frame, arg)

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        """A coroutine that waits returns, to Python: that is no place to stop."""
        if not _waits(frame):
            super().user_return(frame, return_value)

    def set_quit(self) -> None:
        """End the process: an exception in the code would be caught by it, or run its clean-up."""
        sys.settrace(None)
        self._leave()


def _waits(frame: FrameType) -> bool:
    """Whether a frame that gives something back has not come to its end."""
    return not dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


def _is_called_by_us(frame: FrameType) -> bool:
    """Whether it is of an installed library, and nobody but this library has called it."""
    caller: FrameType | None = frame
    while caller is not None and is_users(caller):
        if not caller.f_code.co_filename.startswith(_INSTALLED):
            return False
        caller = caller.f_back
    return True


def _short(data: bytes | None) -> str:
    text = (data or b"nothing").decode(errors="replace")
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"
