"""`choose`: what a step comes to is open, and `explore` tries every way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TypeVar

from ...errors import OutsideRun

T = TypeVar("T")

Choose = Callable[[Sequence[str]], int]

current_choose: ContextVar[Choose] = ContextVar("perdure_choose")
"""Set while a world calls a step's function, and nowhere else."""


def choose(*options: T) -> T:
    """Answer with one of the options, so that `explore` tries each of them in a schedule of its own.

    For functions that run in place of a step: `if choose("in stock", "sold out") == "sold out": raise …`.
    The first is what the default order takes. In a schedule it stands by the step's name:
    `reserve: sold out`. Raises OutsideRun where nothing is explored.
    """
    choose_one = current_choose.get(None)
    if choose_one is None:
        raise OutsideRun(
            "choose() was called where nothing is explored.",
            hint="Call it in a function that `explore` runs in place of a step.",
        )
    return options[choose_one([option if isinstance(option, str) else repr(option) for option in options])]
