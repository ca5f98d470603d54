"""What is explored: the call, what may come to it from outside, and what must hold.

A plan is the same for all schedules of one exploration; nothing in it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, TypeAlias, cast

from ...blocks.step import Step
from ...blocks.workflow import WorkflowCall
from ...core.host import RunFacts
from ...errors import DefinitionError
from ..clock import START_MS
from ..events import Append, Ask, Cancel, Send

Happening: TypeAlias = Send | Ask | Append | Cancel
Fakes: TypeAlias = Mapping[Step[..., Any], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Outside:
    """One thing that comes from outside, ready to be delivered."""

    name: str
    """`send approval`, and `send approval 2` for the second one."""
    event: Happening
    payload: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong with a schedule."""

    kind: str
    """`check`, `always`, `raised`, `unheard`, `waits`, `endless`, `law` or `replay`."""
    text: str
    error: BaseException | None = None

    def is_like(self, other: Failure) -> bool:
        """Whether it is the same thing that is wrong."""
        return self._essence == other._essence

    @property
    def _essence(self) -> tuple[str, type[BaseException | None], int]:
        lines = [line for _, line in walk_tb(self.error.__traceback__)] if self.error is not None else []
        return self.kind, type(self.error), lines[-1] if lines else 0


class Wrong(Exception):
    """Ends a schedule at once, where something is wrong."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


def broken_law(facts: RunFacts, error: Exception) -> Wrong:
    """The end of a schedule in which a run's code did what the core refuses."""
    text = f"Run {facts.id!r} breaks a law: {type(error).__name__}: {error}"
    return Wrong(Failure("law", text, error))


def is_allowed(error: BaseException, allowed: tuple[type[BaseException], ...]) -> bool:
    """Whether an error, or all that is in a group, is of a type that may be raised."""
    if isinstance(error, allowed):
        return True
    if not isinstance(error, BaseExceptionGroup):
        return False
    # isinstance does not tell what is inside; it is never anything but this.
    group = cast("BaseExceptionGroup[BaseException]", error)
    return all(is_allowed(inner, allowed) for inner in group.exceptions)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that `explore` was told."""

    call: WorkflowCall[Any]
    events: tuple[tuple[Outside, ...], ...]
    """Each row is sent in its order; the rows in any."""
    setup: Callable[[], Any] | None
    overrides: Fakes | Callable[[Any], Fakes] | None
    check: Callable[[Any], object] | None
    always: Callable[[Any], object] | None
    may_raise: tuple[type[BaseException], ...]
    may_wait: bool
    may_be_late: tuple[Step[..., Any], ...]
    """The steps whose time limits may pass."""
    depth: int
    seed: int

    def fakes(self, world: Any) -> Fakes:
        """What runs in place of which step."""
        if self.overrides is None:
            return {}
        return self.overrides(world) if callable(self.overrides) else self.overrides


def prepare(events: Sequence[Happening | Sequence[Happening]]) -> tuple[tuple[Outside, ...], ...]:
    """Encode what comes from outside, and give each a name of its own.

    Raises NotSerialisable, and DefinitionError for what is no such event.
    """
    counts: dict[str, int] = {}
    rows = [cast("Sequence[Happening]", row) if isinstance(row, (list, tuple)) else (row,) for row in events]
    return tuple(tuple(_outside(event, counts) for event in row) for row in rows)


def limited(steps: Sequence[Step[..., Any]]) -> tuple[Step[..., Any], ...]:
    """The steps, which have time limits. Raises DefinitionError for one that has none."""
    for step in steps:
        if not step.guarded:
            raise DefinitionError(
                f"explore: step {step.name!r} has no time limit, and so is never late.",
                hint="Give it one, as in @step(timeout=30), or leave it out of may_be_late.",
            )
    return tuple(steps)


def _outside(event: Any, counts: dict[str, int]) -> Outside:
    match event:
        case Send(signal, value):
            payload = signal.encode(value)
        case Ask(update, value):
            payload = update.encode(value)
        case Append(stream, value):
            payload = stream.new_event(value, "", 0, id=None, time=None, source="").payload
        case Cancel():
            payload = event.reason.encode()
        case _:
            raise DefinitionError(
                f"explore: {event!r} is no event that can be delivered in any order.",
                hint="Give Send(…), Ask(…), Append(…) and Cancel(…); time is explored by itself.",
            )
    return Outside(numbered(str(event), counts), event, payload)


def numbered(name: str, counts: dict[str, int]) -> str:
    """`charge` for the first of a name, `charge 2` for the second: no name is given twice."""
    name = name.replace(",", ";")  # commas stand between the names of a schedule
    number = counts.get(name, 0) + 1
    while number > 1 and f"{name} {number}" in counts:
        number += 1
    counts[name] = number
    given = name if number == 1 else f"{name} {number}"
    counts.setdefault(given, 1)
    return given


def seconds(at_ms: int) -> str:
    """`86400s`, `0.5s`: how long after the start of the schedule."""
    return f"{(at_ms - START_MS) / 1000:.3f}".rstrip("0").rstrip(".") + "s"
