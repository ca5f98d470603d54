"""Times as users give them (seconds or timedelta) and as the engine keeps them (milliseconds)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ..errors import DefinitionError, PerdureError

Seconds = float | timedelta

LONGEST_TEXT = 1_000
_LONGEST_BYTES = 1_300
"""Of a text in UTF-8: two of them fit into a row of an index of PostgreSQL (2,704 bytes)."""
_LONGEST_S = 1_000 * 366 * 86_400
"""A thousand years. A moment after the year 9999 has no date to show."""
_HALF = re.compile("[\ud800-\udfff]")


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
    if seconds > _LONGEST_S:
        raise DefinitionError(
            f"{what} is {value!r}, and may be a thousand years at most.", hint="For no limit, leave it out."
        )
    return max(1, round(seconds * 1000))


def as_text(value: str, what: str, *, shortest: int = 1) -> str:
    """An id, or a tag's key or value, as any store can keep it. Raises PerdureError for what none can."""
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
        raise PerdureError(f"{what} is {value!r}, which is no text.")
    if not shortest <= len(value) <= LONGEST_TEXT:
        raise PerdureError(f"{what} has {shortest} to {LONGEST_TEXT} characters, and this has {len(value)}.")
    as_storable(value, what)
    if (size := len(value.encode())) > _LONGEST_BYTES:
        raise PerdureError(f"{what} has at most {_LONGEST_BYTES} bytes in UTF-8, and this has {size}.")
    return value


def as_storable(value: str, what: str) -> str:
    """A text of any length that any store can keep. Raises PerdureError for what none can."""
    if "\0" in value or _HALF.search(value) is not None:
        raise PerdureError(
            f"{what} is {value!r}: it has a NUL or half a surrogate pair, which is no text to a database.",
            hint="Leave it out, or encode it: value.encode(…).hex().",
        )
    return value


def as_tags(tags: Mapping[str, str] | None, what: str) -> tuple[tuple[str, str], ...]:
    """Tags as they are kept. Raises PerdureError."""
    return tuple(
        (as_text(key, f"{what}: a tag"), as_text(value, f"{what}: tag {key!r}", shortest=0))
        for key, value in (tags or {}).items()
    )


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
