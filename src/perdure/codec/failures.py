"""An exception as JSON, and back: what failed, with what led to it and where.

The law: to write never raises and never exceeds MAX_FAILURE; to read never
imports a module, never runs code that the data names, and never fails. A type
that this process has loaded comes back as itself, any other as ForeignError.
"""

from __future__ import annotations

import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, cast
from uuid import UUID

import msgspec

from ..errors import Attempt, ForeignError
from .combined import (
    DETAILS,
    TRACEBACK,
    StepDetails,
    as_step_failed,
    build,
    original_type,
    parts,
    plain_step_failed,
    step_failed,
)
from .hooks import write
from .json import decoder, encode, is_plain
from .tracebacks import from_the_users

__all__ = [
    "MAX_FAILURE",
    "TRACEBACK",
    "decode_failure",
    "describe_failure",
    "encode_failure",
    "failure_lines",
    "failure_type",
    "step_failed",
]

MAX_FAILURE = 256 * 1024
"""Bytes of JSON that one failure may take."""

_NOTE = "Traceback in the process where it was raised:\n"
_SCALARS: dict[str, Any] = {
    kind.__name__: kind for kind in (bytes, datetime, date, time, timedelta, Decimal, UUID, set, frozenset)
}


class _Limits(msgspec.Struct, frozen=True):
    text: int
    notes: int
    value: int
    traceback: int
    records: int
    depth: int


_FULL = _Limits(text=16_384, notes=20, value=16_384, traceback=16_384, records=64, depth=16)
_LEAN = _Limits(text=512, notes=3, value=0, traceback=2_048, records=8, depth=8)


class _Failure(msgspec.Struct, omit_defaults=True):
    """One exception as it is on disk. Fields may be added, never renamed."""

    type: str
    """`module:qualified name`"""
    message: str = ""
    args: list[Any] | None = None
    fields: dict[str, Any] = {}
    notes: list[str] = []
    traceback: str = ""
    cause: _Failure | None = None
    context: _Failure | None = None
    suppress_context: bool = False
    members: list[_Failure] | None = None
    step: _Step | None = None


class _Step(msgspec.Struct):
    step: str
    attempts: tuple[Attempt, ...]
    what: str
    hint: str


_read = msgspec.json.Decoder(_Failure).decode


# ── writing ──


def encode_failure(error: BaseException) -> bytes:
    """Return an exception as JSON. Never raises; what has no room or cannot be written is left out."""
    for limits in (_FULL, _LEAN):
        with suppress(Exception):
            data = write(_Writer(limits).failure(error))
            if len(data) <= MAX_FAILURE:
                return data
    return write(_Failure(_cut(_type_name(type(error)), 500), "its text cannot be read"))


class _Writer:
    def __init__(self, limits: _Limits) -> None:
        self._limits = limits
        self._left = limits.records
        self._above: list[BaseException] = []

    def failure(self, error: BaseException) -> _Failure:
        self._left -= 1
        self._above.append(error)
        kind = original_type(error)
        failure = _Failure(_type_name(kind), _cut(_text(error), self._limits.text))
        failure.notes = [
            _cut(_clean(note), self._limits.text) for note in _notes(error)[: self._limits.notes]
        ]
        failure.traceback = _cut(_traceback(error), self._limits.traceback)
        failure.cause = self._next(error.__cause__)
        failure.suppress_context = error.__suppress_context__
        if not error.__suppress_context__ and error.__context__ is not error.__cause__:
            failure.context = self._next(error.__context__)
        self._add_parts(failure, error, kind)
        self._above.pop()
        return failure

    def _next(self, error: BaseException | None) -> _Failure | None:
        seen = any(error is above for above in self._above)
        if error is None or seen or self._left <= 0 or len(self._above) >= self._limits.depth:
            return None
        return self.failure(error)

    def _add_parts(self, failure: _Failure, error: BaseException, kind: type[BaseException]) -> None:
        try:
            args, fields = parts(error)
        except Exception:
            return
        details = cast("StepDetails | None", error.__dict__.get(DETAILS))
        if details is not None:
            step, attempts, what, hint = details
            short = tuple(_short_attempt(attempt, self._limits.text) for attempt in attempts[-50:])
            failure.step = _Step(_clean(step), short, _cut(_clean(what), self._limits.text), _clean(hint))
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            members = map(self._next, group.exceptions)
            failure.members = [member for member in members if member is not None]
            args = (group.message,)
        if not self._limits.value:
            return
        failure.args = [self._pack_or_text(arg) for arg in args]
        for name, value in fields.items():
            with suppress(Exception):  # what has no form is left out
                failure.fields[name] = self._pack(value)

    def _pack(self, value: object) -> Any:
        """Return a JSON value that `_unpack` turns back. Raises when it has no form, or no room."""
        try:
            packed = _pack(value)
        except TypeError:
            packed = {"$json": msgspec.Raw(encode(value, "value"))}
        if len(write(packed)) > self._limits.value:
            raise ValueError("too large")
        return packed

    def _pack_or_text(self, value: object) -> Any:
        try:
            return self._pack(value)
        except Exception:
            try:
                return _cut(_clean(repr(value)), 1_000)
            except Exception:
                return f"<{type(value).__qualname__}>"


def _pack(value: Any) -> Any:
    kind = type(cast(object, value))
    if is_plain(value):
        return value
    if kind is list:
        return [_pack(item) for item in value]
    if kind is tuple:
        return {"$tuple": [_pack(item) for item in value]}
    if kind is dict and all(type(name) is str and not name.startswith("$") for name in value):
        return {name: _pack(item) for name, item in value.items()}
    if kind is dict:
        return {"$dict": [[_pack(name), _pack(item)] for name, item in value.items()]}
    if _SCALARS.get(kind.__name__) is kind:
        if kind in (set, frozenset):
            return {f"${kind.__name__}": sorted((_pack(item) for item in value), key=write)}
        return {f"${kind.__name__}": value}
    raise TypeError("only a type hint could bring it back")


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except Exception:
        return "its text cannot be read"


def _notes(error: BaseException) -> list[str]:
    notes: object = getattr(error, "__notes__", None)
    if not isinstance(notes, (list, tuple)):
        return []
    texts = [note for note in cast("list[object]", notes) if isinstance(note, str)]
    return [note for note in texts if not note.startswith(_NOTE)]


def _traceback(error: BaseException) -> str:
    """Return where it was raised; for one that came from another process, where it was raised there."""
    known: object = error.__dict__.get(TRACEBACK)
    if isinstance(known, str):
        return known
    try:
        return _clean("".join(traceback.format_tb(from_the_users(error.__traceback__), limit=-100)))
    except Exception:
        return ""


def _short_attempt(attempt: Attempt, limit: int) -> Attempt:
    return Attempt(attempt.number, _cut(_clean(attempt.error), min(limit, 2_000)), attempt.at_ms)


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, limit: int) -> str:
    """Shorten in the middle: the first and the last frames tell most."""
    if len(text) <= limit:
        return text
    half = limit // 2 - 10
    return f"{text[:half]}\n  […]\n{text[-half:]}"


def _type_name(kind: type) -> str:
    return _clean(f"{kind.__module__}:{kind.__qualname__}")


# ── reading ──


def decode_failure(data: bytes) -> BaseException:
    """Return the exception that was written. Never raises."""
    try:
        failure = _read(data)
    except Exception as error:
        return ForeignError("Unreadable failure", f"the record of an error cannot be read: {error}")
    return _restore(failure)


def _restore(failure: _Failure) -> BaseException:
    kind = _find(failure.type)
    try:
        error = _make(failure, kind)
    except Exception:
        error = ForeignError(_dotted(failure.type), failure.message)
        error.__dict__.update(_unpack_fields(failure.fields, None, reserved=True))
    # Past the class's own __setattr__ and add_note, which are the user's code.
    # Context first: to set a cause also suppresses the context.
    put = partial(BaseException.__setattr__, error)
    put("__context__", _restore(failure.context) if failure.context else None)
    put("__cause__", _restore(failure.cause) if failure.cause else None)
    put("__suppress_context__", failure.suppress_context)
    notes = failure.notes
    if failure.traceback:
        error.__dict__[TRACEBACK] = failure.traceback
        notes = [*notes, _NOTE + failure.traceback.rstrip()]
    if notes:
        error.__dict__["__notes__"] = notes
    return error


def _make(failure: _Failure, kind: type[BaseException] | None) -> BaseException:
    details = StepDetails(*msgspec.structs.astuple(failure.step)) if failure.step else None
    if kind is None:
        if details is not None:
            return plain_step_failed(details)
        raise LookupError(failure.type)
    args: tuple[Any, ...] = (failure.message,)
    if failure.args is not None:
        hints = _argument_hints(kind, len(failure.args))
        args = tuple(_unpack(arg, hint) for arg, hint in zip(failure.args, hints, strict=True))
    fields = _unpack_fields(failure.fields, kind)
    if failure.members is not None:
        args = (str(args[0]), [_restore(member) for member in failure.members])
    if details is not None:
        return as_step_failed(kind, args, fields, details)
    return build(kind, args, fields)


def _find(type_name: str) -> type[BaseException] | None:
    """Return the exception type of this name if its module is loaded. Imports nothing, runs nothing."""
    module, _, path = type_name.partition(":")
    found: object = sys.modules.get(module)
    for name in path.split("."):
        # Not getattr: a module's __getattr__ may import, and a descriptor runs code.
        found = getattr(found, "__dict__", {}).get(name)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    return None


def _unpack(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item, Any) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    tag = next(iter(fields), "")
    if len(fields) != 1 or not tag.startswith("$"):
        return {name: _unpack(item, Any) for name, item in fields.items()}
    inside = fields[tag]
    if tag == "$json":
        return _by_hint(inside, hint)
    if tag == "$tuple":
        return tuple(_unpack(item, Any) for item in inside)
    if tag == "$dict":
        return {_unpack(name, Any): _unpack(item, Any) for name, item in inside}
    kind = _SCALARS[tag[1:]]
    if tag in ("$set", "$frozenset"):
        return kind(_unpack(item, Any) for item in inside)
    return msgspec.convert(inside, kind)


def _by_hint(value: object, hint: Any) -> Any:
    try:
        return decoder(hint)(write(value))
    except Exception:  # no hint, or one that has changed: the plain JSON value is better than nothing
        return value


def _unpack_fields(
    fields: dict[str, Any], kind: type[BaseException] | None, *, reserved: bool = False
) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    if kind is not None and any(isinstance(value, dict) for value in fields.values()):
        # Most errors name their fields as they name the parameters of __init__.
        hints = {**_hints_of(kind.__init__), **_hints_of(kind)}
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if reserved and name in ("type_name", "message", "what", "hint"):
            continue
        with suppress(Exception):
            found[name] = _unpack(value, hints.get(name, Any))
    return found


def _hints_of(thing: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:
        return {}


def _argument_hints(kind: type[BaseException], count: int) -> list[Any]:
    """Return the hints of the parameters of `__init__`, where `args` may be taken for them."""
    function: Callable[..., None] = kind.__init__
    code = getattr(function, "__code__", None)
    if code is None or code.co_argcount != count + 1:
        return [Any] * count
    hints = _hints_of(function)
    return [hints.get(name, Any) for name in code.co_varnames[1 : count + 1]]


# ── for people ──


def describe_failure(data: bytes) -> str:
    """Return one line: `OutOfStock: no more pears`."""
    try:
        failure = _read(data)
    except Exception:
        return "an error that cannot be read"
    return _title(failure).partition("\n")[0]


def failure_type(data: bytes) -> str:
    """Return the type's name as it was written: `shop.errors:OutOfStock`; empty if it cannot be read."""
    try:
        return _read(data).type
    except Exception:
        return ""


def failure_lines(data: bytes) -> list[str]:
    """Return the traceback, with causes and members, as Python would print it."""
    try:
        return list(_lines(_read(data)))
    except Exception:
        return ["an error that cannot be read"]


def _title(failure: _Failure) -> str:
    name = failure.type.partition(":")[2]
    return f"{name}: {failure.message}" if failure.message else name


def _dotted(type_name: str) -> str:
    return type_name.removeprefix("builtins:").replace(":", ".")


def _lines(failure: _Failure) -> Iterator[str]:
    before = failure.cause or (None if failure.suppress_context else failure.context)
    if before is not None:
        yield from _lines(before)
        link = (
            "The above exception was the direct cause of the following exception:"
            if failure.cause
            else "During handling of the above exception, another exception occurred:"
        )
        yield from ("", link, "")
    if failure.traceback:
        yield "Traceback (most recent call last):"
        yield from failure.traceback.splitlines()
    yield from _title(failure).splitlines()
    for note in failure.notes:
        yield from note.splitlines()
    for number, member in enumerate(failure.members or (), start=1):
        yield f"  ── {number} of {len(failure.members or ())} ──"
        yield from (f"  {line}" for line in _lines(member))
