"""Which line of the user's code a thread is in: for messages that name what to change."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FrameType

from ..core.dropping import close_coroutine
from ..core.loop import RunLoop
from .effects import RunningStep
from .resident import Resident

_PUMPING: frozenset[CodeType] = frozenset(
    {RunLoop.pump.__code__, RunLoop.look.__code__, close_coroutine.__code__}
)
_ENDS = _PUMPING | {RunningStep[Resident].run.__code__}
_TURNING = frozenset({"_run_once", "run_forever", "run_until_complete", "run"})
_LOOPS = frozenset({"asyncio", "uvloop"})
_LIBRARIES = sys.stdlib_module_names | {"perdure"}
_INSTALLED = ("site-packages", "dist-packages")


def frames_of_user(innermost: FrameType | None) -> Iterator[FrameType]:
    """From the innermost frame outwards, as far as the code of one workflow, step or callback goes."""
    frame = innermost
    while frame is not None and frame.f_code not in _ENDS and not _turns_the_loop(frame):
        yield frame
        frame = frame.f_back


def _turns_the_loop(frame: FrameType) -> bool:
    # Below it stands whoever runs the program: `asyncio.run(main())`.
    return frame.f_code.co_name in _TURNING and package_of(frame) in _LOOPS


def is_in_run(innermost: FrameType | None) -> bool:
    """Whether the thread runs workflow code."""
    frame = innermost
    while frame is not None:
        if frame.f_code in _PUMPING:
            return True
        frame = frame.f_back
    return False


def package_of(frame: FrameType) -> str:
    """The top-level package, or module, that the frame's code is in."""
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def users_line(innermost: FrameType | None) -> str:
    """`shop.py:41, in checkout`: the innermost line of the user's own code; else of an installed package's.

    Empty when there is neither.
    """
    installed = ""
    for frame in frames_of_user(innermost):
        if package_of(frame) in _LIBRARIES:
            continue
        code = frame.f_code
        line = f"{code.co_filename}:{frame.f_lineno}, in {code.co_name}"
        if not any(folder in code.co_filename for folder in _INSTALLED):
            return line
        installed = installed or line
    return installed
