"""Times as users give them (seconds or timedelta) and as the engine keeps them (milliseconds)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ..errors import DefinitionError

Seconds = float | timedelta


def to_ms(value: Seconds | None, what: str) -> int | None:
    """Whole milliseconds of a positive duration. Raises DefinitionError for anything else."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    # Not all who call have a type checker.
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or not math.isfinite(seconds) or seconds <= 0:
        raise DefinitionError(
            f"{what} is {value!r}, and must be a time above zero.", hint="Give seconds, or a timedelta."
        )
    return max(1, round(seconds * 1000))


def dress(definition: Any, function: Callable[..., object]) -> None:
    """Give a definition the name and docstring of its function, as functools.wraps does."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(definition, name, getattr(function, name, None))
    definition.__wrapped__ = function


def refuse_method(owner: type, name: str, what: str) -> None:
    """A definition in a class body would get `self` as data, which is never what is meant."""
    raise DefinitionError(
        f"{owner.__qualname__}.{name} is a {what}, and methods cannot be: `self` would have to be stored.",
        hint="Make it a function of the module that takes the data it needs, "
        f"or put @staticmethod above @{what}.",
    )
