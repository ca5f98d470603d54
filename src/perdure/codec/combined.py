"""StepFailed that is also the last error's own type, and exceptions built without their `__init__`.

A workflow may write `except StepFailed` or `except OutOfStock`: both catch what
a step's last attempt raised. The text and the fields are the original's; what
Perdure has to say is in a note, and in `step`, `attempts`, `what` and `hint`
where the original has no field of that name.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ..errors import Attempt, StepFailed


class StepDetails(NamedTuple):
    """What StepFailed adds to the error that it is combined with."""

    step: str
    attempts: tuple[Attempt, ...]
    what: str
    hint: str


DETAILS = "_perdure_step"
"""The attribute under which a combined error keeps its StepDetails."""

TRACEBACK = "__perdure_traceback__"
"""The attribute of a decoded exception that holds the text of its traceback in the first process."""


class _Combined:
    # First among the bases, so that no class of the user's hears of the new subclass
    # through its own __init_subclass__ (a registry of errors, say).
    def __init_subclass__(cls) -> None:
        pass


_combined_types: dict[type[BaseException], type[BaseException] | None] = {}


def original_type(error: BaseException) -> type[BaseException]:
    """Return the error's type; of a combined error the one that it was made from."""
    kind = type(error)
    return kind.__bases__[1] if issubclass(kind, _Combined) else kind


def combine(kind: type[BaseException]) -> type[BaseException] | None:
    """Return a type that is `kind` and StepFailed, the same each time; None where there can be none."""
    if kind not in _combined_types:
        _combined_types[kind] = _make_combined(kind)
    return _combined_types[kind]


def _make_combined(kind: type[BaseException]) -> type[BaseException] | None:
    if not issubclass(kind, Exception) or issubclass(kind, StepFailed) or issubclass(StepFailed, kind):
        return None
    namespace = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        # Else StepFailed's would come before the built-in ones.
        "__str__": kind.__str__,
        "__repr__": kind.__repr__,
    }
    try:
        made: Any = type(kind)(kind.__name__, (_Combined, kind, StepFailed), namespace)
    except Exception:  # a final class, or a metaclass that wants something
        return None
    return made


def build(kind: type[BaseException], args: tuple[Any, ...], fields: Mapping[str, object]) -> BaseException:
    """Return an exception made without calling the user's code: not `__init__`, not `__new__`.

    Raises whatever the built-in base does when `args` are not for it.
    """
    base: Any = next(base for base in kind.__mro__ if base.__module__ == builtins.__name__)
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)
    for name, value in fields.items():
        if inspect.isdatadescriptor(getattr(base, name, None)):  # `name` of ImportError, and the like
            getattr(base, name).__set__(error, value)
        else:
            error.__dict__[name] = value
    return error


def parts(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the (args, fields) from which `build` makes the like of an exception."""
    kind = original_type(error)
    base: Any = next(base for base in kind.__mro__ if base.__module__ == builtins.__name__)
    # The built-in reduce knows what `args` lacks: OSError's file, ImportError's name.
    _, args, *state = base.__reduce__(error)
    fields: dict[str, Any] = dict(state[0]) if state and state[0] else {}
    for said_apart in ("__notes__", TRACEBACK):
        fields.pop(said_apart, None)
    details: StepDetails | None = fields.pop(DETAILS, None)
    if details is not None:
        ours = details._asdict()
        fields = {name: value for name, value in fields.items() if value is not ours.get(name, ours)}
    return tuple(args), fields


def as_step_failed(
    kind: type[BaseException], args: tuple[Any, ...], fields: Mapping[str, object], details: StepDetails
) -> BaseException:
    """Return a StepFailed that is also a `kind` with these parts, or else a plain one."""
    combined = combine(kind)
    if combined is not None:
        try:
            error = build(combined, args, fields)
            for name, value in details._asdict().items():
                error.__dict__.setdefault(name, value)
            error.__dict__[DETAILS] = details
            return error
        except Exception:  # the built-in base will not have it
            pass
    return plain_step_failed(details)


def plain_step_failed(details: StepDetails) -> StepFailed:
    """Return a StepFailed that is nothing else."""
    error = StepFailed(details.what, hint=details.hint)
    error.step, error.attempts = details.step, details.attempts
    return error


def step_failed(last: BaseException, *, step: str, attempts: Sequence[Attempt], run_id: str) -> StepFailed:
    """Return what a workflow sees when a step failed in all its attempts; its `__cause__` is `last`."""
    count = len(attempts)
    times = "its only attempt" if count == 1 else f"all {count} attempts"
    kind = original_type(last)
    try:
        text = str(last)
    except Exception:
        text = ""
    said = f"{kind.__qualname__}: {text}" if text else kind.__qualname__
    details = StepDetails(
        step,
        tuple(attempts),
        f"Step {step!r} of run {run_id!r} failed in {times}; the last: {said.rstrip('.')}.",
        "Catch StepFailed or the error itself in the workflow, or put the cause right and resume the run.",
    )
    try:
        args, fields = parts(last)
        error = as_step_failed(kind, args, fields, details)
    except Exception:
        error = plain_step_failed(details)
    if DETAILS in error.__dict__:
        error.add_note(details.what)
    error.__cause__ = last
    return cast("StepFailed", error)
