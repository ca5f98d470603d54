"""Where a run's tasks wait, for Temporal's stack trace: it would show only our own code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType

from ..core.loop import RunLoop, RunTask
from ..runtime.lines import package_of


def stacks_of(loop: RunLoop) -> str:
    """Each task of a run with the lines of its code in which it waits, as Python prints them."""
    return "\n".join(f"Task {task.path}\n{_lines(task)}" for task in loop.tasks if not task.done())


def _lines(task: RunTask) -> str:
    places = ((frame, frame.f_lineno) for frame in _frames(task) if package_of(frame) != "perdure")
    return "".join(traceback.StackSummary.extract(places).format())


def _frames(task: RunTask) -> Iterator[FrameType]:
    coroutine: object = task.get_coro()
    while isinstance(frame := getattr(coroutine, "cr_frame", None), FrameType):
        yield frame
        coroutine = getattr(coroutine, "cr_await", None)
