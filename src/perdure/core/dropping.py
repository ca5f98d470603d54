"""Closing coroutines of a run that is dropped, also those that do not want to end.

A coroutine that is left suspended is closed once more by Python when it is freed:
anywhere, where a step call may be a plain function call. So it must end here.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from ..errors import RunEvicted

_ATTEMPTS = 200
_BY_FORCE = 10
_LINES = 10


def close_coroutine(coroutine: Any) -> None:
    """Close a suspended coroutine, whatever it catches. Its loop is dead, so no effect leaves."""
    # It may take several: each await in a `finally` that the dead loop cannot refuse suspends it anew.
    for attempt in range(_ATTEMPTS):
        try:
            if attempt < _BY_FORCE:
                coroutine.close()
            else:
                _close_by_force(coroutine, attempt)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # what user code raises now has nobody to tell: the run goes on elsewhere
            pass
        if getattr(coroutine, "cr_frame", None) is None:
            return


def part_from_waiter(task: Any) -> None:
    """Cut the circle of a task that is dropped and the future that would have woken it.

    Memory is then free at once; the collector would come only much later.
    """
    waiter: Any = task._fut_waiter
    if waiter is not None:
        for callback, _ in waiter._callbacks or ():
            waiter.remove_done_callback(callback)


def _close_by_force(coroutine: Any, attempt: int) -> None:
    """Close what catches even GeneratorExit (`while True: try: await … except BaseException: pass`).

    A trace function can raise where no `try` of that code stands around it. It may
    raise once, so each attempt does it in another of the frames that wait for each
    other, and on another of the lines that come next.
    """
    frames: list[FrameType] = []
    inner = coroutine
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        frames.append(frame)
        inner = inner.cr_await
    target = frames[attempt % len(frames)]
    lines_left = attempt // len(frames) % _LINES

    def strike(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines_left
        if frame is not target:
            return None
        if event == "line":
            lines_left -= 1
            if lines_left < 0:
                raise RunEvicted
        return strike

    before = sys.gettrace()
    target.f_trace = strike
    sys.settrace(strike)
    try:
        coroutine.close()
    finally:
        sys.settrace(before)
