"""Where an error was raised, as who wrote the code wants to see it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

_OURS: Final = f"{Path(__file__).parents[1]}/"


def from_the_users(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of the user's on: those before it only say how we called it.

    One that has none of the user's is given whole.
    """
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OURS):
        found = found.tb_next
    return trace if found is None else found
