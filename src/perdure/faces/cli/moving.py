"""`move`: all runs and streams of one store, to another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import PerdureError, StoreMoved
from .endings import ExitCode, be_interruptible, conclude
from .options import DebugOption, FromStore, JsonOption, ToStore
from .output import many, print_json, say

if TYPE_CHECKING:
    from ...moving import Abandoned, Moved, Progress

_WORDS = {"read": "Reading", "copy": "Copying", "compare": "Comparing"}
_BROKEN_OFF = (
    "The move was broken off. Nothing is lost, and both stores are closed: run the same command again, "
    "or once with --abandon to stay where the runs were."
)


def move(
    source: FromStore,
    target: ToStore,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="Undo a move that was broken off: stay where the runs were."),
    ] = False,
    leave_damaged: Annotated[
        bool,
        typer.Option("--leave-damaged", help="Leave damaged runs and events behind, or move nothing."),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Move all runs and streams to another store.

    From SQLite to PostgreSQL, back, or from file to file: finished runs and those under way,
    which go on there; events, at their positions, and how far each handler is. Stop all
    workers first. The target must be empty. What was broken off goes on when the same
    command is run again.
    """

    async def work() -> ExitCode:
        be_interruptible()
        if abandon:
            _abandon(source, target, as_json=as_json)
        else:
            _move(source, target, leave_damaged=leave_damaged, as_json=as_json)
        return ExitCode.OK

    conclude(work(), debug=debug)


def _move(source: str, target: str, *, leave_damaged: bool, as_json: bool) -> None:
    from ...moving import move

    teller = _Teller()
    try:
        moved = move(source, target, leave_damaged=leave_damaged, progress=teller.hear)
    except (PerdureError, KeyboardInterrupt) as error:
        teller.end_line()
        if teller.is_closed and not isinstance(error, StoreMoved):
            say(_BROKEN_OFF)
            say("")
        raise
    teller.end_line()
    if as_json:
        print_json(moved)
    else:
        _print(moved)


def _print(moved: Moved) -> None:
    if moved.was_done:
        print(f"The runs of {moved.source} are in {moved.target}: there was nothing left to move.")
        return
    print(
        f"Moved {many(moved.runs, 'run')} with {many(moved.records, 'record')}, "
        f"{many(moved.messages, 'waiting message')} and {_replies(moved.replies)}{_streams(moved)} "
        f"to {moved.target}."
    )
    print(f"All were read again and compared. {moved.source} is closed; keep it until you have a backup.")
    for left in moved.left:
        print(f"Left behind: {left.id or 'what is of no run'}. {left.what}")


def _replies(count: int) -> str:
    return "1 reply" if count == 1 else f"{count:,} replies"


def _streams(moved: Moved) -> str:
    if not moved.streams:
        return ""
    return f", and {many(moved.streams, 'stream')} with {many(moved.events, 'event')},"


def _abandon(source: str, target: str, *, as_json: bool) -> None:
    from ...moving import abandon

    abandoned = abandon(source, target)
    if as_json:
        print_json(abandoned)
        return
    for line in _abandoned_lines(abandoned):
        print(line)


def _abandoned_lines(abandoned: Abandoned) -> list[str]:
    if abandoned.trouble:
        return [
            f"{abandoned.source} is open again.",
            f"{abandoned.target} stays closed, with what has arrived there: {abandoned.trouble}",
        ]
    if abandoned.reopened:
        return [f"{abandoned.source} is open again, and what had arrived in {abandoned.target} is removed."]
    if abandoned.cleared:
        return [f"What had arrived in {abandoned.target} is removed; {abandoned.source} was open already."]
    return [f"No move from {abandoned.source} to {abandoned.target} is under way: nothing was done."]


class _Teller:
    """Says how far the move is: on a terminal in one line, elsewhere once for each step."""

    def __init__(self) -> None:
        self.is_closed = False
        """Whether stopping now leaves the source closed."""
        self._step = ""
        self._is_terminal = sys.stderr.isatty()
        self._in_line = False

    def hear(self, progress: Progress) -> None:
        """Take in how far it has come."""
        step = progress.step.value
        self.is_closed = step in ("closing", "closed", "copy", "compare", "left")
        word = _WORDS.get(step)
        if word is None:
            return
        if self._is_terminal:
            of = f" of {progress.of:,}" if progress.of else ""
            events = f", {progress.events:,} events" if progress.events else ""
            sys.stderr.write(f"\r\x1b[K{word}: {progress.done:,}{of} runs{events}")
            sys.stderr.flush()
            self._in_line = True
        elif step != self._step:
            say(f"{word} …")
        self._step = step

    def end_line(self) -> None:
        """Leave the line that is written over and over."""
        if self._in_line:
            sys.stderr.write("\r\x1b[K")
            self._in_line = False
