"""The slow path of writing a value: it names what cannot be written, and puts sets in order.

`is_ordinary` is the quick look that most values pass; `rewrite` the thorough
walk for those that do not. What `rewrite` returns, msgspec writes without loss.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from math import isfinite
from typing import Any, NoReturn, cast
from uuid import UUID

import msgspec

from ..errors import NotSerialisable
from .hints import has_hidden_fields, is_model
from .hooks import dump_model, write

MAX_DEPTH = 200
"""Levels of nesting. Deeper values could be written here and not be read deeper in the stack."""

LEAVES = frozenset[type](
    {str, int, bool, types.NoneType, bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID}
)


def is_ordinary(value: object) -> bool:
    """Whether msgspec has written a value without loss, and writes it always the same.

    False for NaN and infinity, sets of two or more, keys that could clash, and
    too many levels. Ask only for what msgspec could write: there are no cycles in it.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        # Level by level, not value by value: the passes over a level are loops in C.
        kinds = set(map(type, level))
        below: list[object] = []
        for kind in kinds - LEAVES:
            members = level if len(kinds) == 1 else [item for item in level if type(item) is kind]
            inside = _ordinary_inside(kind, members)
            if inside is None:
                return False
            below.extend(inside)
        if not below:
            return True
        level = below
    return False


def _ordinary_inside(kind: Any, members: list[Any]) -> Iterable[object] | None:
    """Return what lies one level below members of one type, or None when one of them is not ordinary."""
    if issubclass(kind, float):
        return () if all(map(isfinite, members)) else None
    if issubclass(kind, dict):
        if set(map(type, chain.from_iterable(members))) - {str} and not all(map(_has_safe_keys, members)):
            return None
        return chain.from_iterable(map(dict[object, object].values, members))
    if issubclass(kind, (set, frozenset)) and any(len(member) > 1 for member in members):
        return None
    if issubclass(kind, (list, tuple, set, frozenset)):
        return chain.from_iterable(members)
    if is_model(kind):
        return [member.model_dump(round_trip=True) for member in members]
    names = _field_names(kind)
    if names and has_hidden_fields(kind):
        return None
    return [getattr(member, name, None) for name in names for member in members]


def _has_safe_keys(fields: dict[object, object]) -> bool:
    kinds = set(map(type, fields))
    return len(kinds) <= 1 and float not in kinds


def _field_names(kind: Any) -> tuple[str, ...]:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if hasattr(kind, "__dataclass_fields__"):
        return tuple(kind.__dataclass_fields__)
    return tuple(field.name for field in getattr(kind, "__attrs_attrs__", ()))


def rewrite(value: Any, path: str, above: tuple[int, ...] = ()) -> object:
    """Return what to write in place of a value. Raises NotSerialisable for the first part that cannot be.

    `above` holds the ids of the values that this one lies in.
    """
    kind = cast(Any, type(value))
    if kind in LEAVES or isinstance(value, float):
        return _check_leaf(value, path)
    if id(value) in above:
        raise NotSerialisable(path, "the value contains itself")
    if len(above) >= MAX_DEPTH:
        raise NotSerialisable(path, f"the value is nested more than {MAX_DEPTH} levels deep")
    above = (*above, id(value))
    if isinstance(value, dict):
        return _rewrite_dict(cast(dict[object, object], value), path, above)
    if isinstance(value, (list, tuple)):
        names: tuple[str, ...] | None = getattr(kind, "_fields", None)
        return [
            rewrite(item, f"{path}.{names[index]}" if names else f"{path}[{index}]", above)
            for index, item in enumerate(cast(Iterable[object], value))
        ]
    if isinstance(value, (set, frozenset)):
        members = cast(set[object], value)
        written = [write(rewrite(item, f"{path}{{{_short(item)}}}", above)) for item in members]
        return [msgspec.Raw(item) for item in sorted(written)]
    if is_model(kind):
        return _rewrite_model(value, path, above)
    if names := _field_names(kind):
        return _rewrite_fields(value, names, path, above)
    return _check_leaf(value, path)


def _check_leaf(value: object, path: str) -> object:
    if isinstance(value, float) and not isfinite(value):
        raise NotSerialisable(path, f"{value} is not a number that JSON can hold")
    try:
        write(value)
    except RecursionError:
        raise
    except Exception as error:
        raise NotSerialisable(path, _reason(value, error)) from error
    return value


def _reason(value: object, error: Exception) -> str:
    kind = type(value)
    if isinstance(error, UnicodeEncodeError):
        return f"the text holds a lone surrogate ({error.object[error.start]!r}), which UTF-8 cannot hold"
    if kind is int:
        return "the integer has too many digits to be read back"
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        return "function is not serialisable"
    base = next((base for base in kind.__mro__[1:] if base in LEAVES or base is float), None)
    if base is not None:
        return f"{kind.__qualname__} would come back as {base.__name__}; pass {base.__name__}(…) of it"
    if isinstance(value, type):
        return f"the class {value.__qualname__} is not serialisable"
    return f"{kind.__qualname__} is not serialisable"


def _rewrite_dict(value: dict[object, object], path: str, above: tuple[int, ...]) -> object:
    taken: dict[bytes, object] = {}
    fields: dict[object, object] = {}
    for key, item in value.items():
        if isinstance(key, float) and not isfinite(key):
            raise NotSerialisable(path, f"the key {key} cannot be held by JSON")
        try:
            written = write({key: 0})
        except Exception as error:
            bad = isinstance(error, UnicodeEncodeError)
            text = "holds a lone surrogate" if bad else f"is of type {type(key).__qualname__}"
            reason = f"the key {_short(key)} {text}, and JSON's keys are text"
            raise NotSerialisable(path, reason) from error
        if written in taken:
            clash = f"the keys {_short(taken[written])} and {_short(key)} are the same in JSON"
            raise NotSerialisable(path, clash)
        taken[written] = key
        fields[key] = rewrite(item, f"{path}[{_short(key)}]", above)
    return fields


def _rewrite_model(model: Any, path: str, above: tuple[int, ...]) -> object:
    try:
        plain = dump_model(model)
    except Exception as error:
        _blame_field(model, error, path, above)
    _refuse_nan(model.model_dump(round_trip=True), path, "." if isinstance(plain, dict) else "")
    return cast(object, plain)


def _refuse_nan(value: object, path: str, dot: str = "") -> None:
    # Pydantic writes a NaN in a field of type Any as null, so what it has written cannot tell.
    if isinstance(value, float):
        _check_leaf(value, path)
    elif isinstance(value, dict):
        for key, item in cast(dict[object, object], value).items():
            _refuse_nan(item, f"{path}.{key}" if dot else f"{path}[{_short(key)}]")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(cast(Iterable[object], value)):
            _refuse_nan(item, f"{path}[{index}]")


def _blame_field(model: Any, error: Exception, path: str, above: tuple[int, ...]) -> NoReturn:
    for name in cast(Any, type(model)).model_fields:
        try:
            dump_model(model, only=name)
        except Exception as cause:
            rewrite(getattr(model, name), f"{path}.{name}", above)
            raise NotSerialisable(f"{path}.{name}", f"pydantic cannot write it: {cause}") from cause
    raise NotSerialisable(path, f"pydantic cannot write it: {error}") from error


def _rewrite_fields(value: Any, names: tuple[str, ...], path: str, above: tuple[int, ...]) -> object:
    kind = cast(Any, type(value))
    if has_hidden_fields(kind):
        hidden = next(name for name in names if name.startswith("_"))
        raise NotSerialisable(f"{path}.{hidden}", "a private field of an attrs class would be left out")
    changed: dict[str, object] = {}
    for name in names:
        if hasattr(value, name):
            old = getattr(value, name)
            new = rewrite(old, f"{path}.{name}", above)
            if new is not old:
                changed[name] = new
    if not changed:
        return _check_leaf(value, path)
    twin = copy.copy(value)
    for name, new in changed.items():
        if isinstance(twin, msgspec.Struct):
            msgspec.structs.force_setattr(twin, name, new)
        else:
            object.__setattr__(twin, name, new)  # as frozen classes do it themselves
    return twin


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = type(value).__qualname__
    return text if len(text) <= 40 else f"{text[:39]}…"
