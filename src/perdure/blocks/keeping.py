"""For how long streams keep their events: the rules of all streams of this process that have one."""

from __future__ import annotations

import weakref
from datetime import timedelta
from typing import Literal, Protocol

from ..core.standing import KeepRule
from ..errors import DefinitionError

Unhandled = Literal["keep", "remove"]


class Keeps(Protocol):
    """A stream, as far as this goes."""

    keep_rule: KeepRule


_defined: weakref.WeakSet[Keeps] = weakref.WeakSet()


def keep_rule(stream: str, keep: timedelta | None, keep_bytes: int | None, unhandled: Unhandled) -> KeepRule:
    """The rule of a stream. Raises DefinitionError."""
    if keep is not None and not isinstance(keep, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
        raise DefinitionError(
            f"Stream({stream!r}, {keep=!r}) cannot be: keep is a timedelta.",
            hint=f"Write keep=timedelta(days={keep}).",
        )
    wrong = (
        (keep is not None and keep <= timedelta())
        or (keep_bytes is not None and keep_bytes < 0)
        or unhandled not in ("keep", "remove")
    )
    if wrong:
        raise DefinitionError(
            f"Stream({stream!r}, {keep=!r}, {keep_bytes=!r}, {unhandled=!r}) cannot be.",
            hint="keep is a time above zero, keep_bytes a number from 0 on, unhandled 'keep' or 'remove'.",
        )
    ms = None if keep is None else round(keep.total_seconds() * 1000)
    return KeepRule(stream, ms, keep_bytes, unhandled == "keep")


def note_rule(stream: Keeps) -> None:
    """Have engines of this process keep to the rule, for as long as the stream lives."""
    if stream.keep_rule.ms is not None or stream.keep_rule.bytes_max is not None:
        _defined.add(stream)


def keep_rules() -> list[KeepRule]:
    """The rules of all streams that live in this process, by name."""
    return sorted({stream.keep_rule for stream in list(_defined)}, key=lambda rule: rule.stream)
