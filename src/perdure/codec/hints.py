"""What a type hint promises about its values: read once for each hint, so that calls need not look.

Nothing here looks at a value, and nothing raises for a hint that cannot be
understood: the answer is then the careful one.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, NewType, Union, cast, get_args, get_origin

import msgspec

PLAIN = frozenset({str, int, bool, types.NoneType, float})
"""Immutable, and the same after a round trip (a float: when it is finite)."""

_JSON = (dict, list, str, int, float, bool, types.NoneType)


def is_model(kind: object) -> bool:
    """Whether a class is a pydantic model (pydantic's dataclasses are plain dataclasses to us)."""
    marks = ("__pydantic_core_schema__", "model_fields")
    return isinstance(kind, type) and all(hasattr(kind, mark) for mark in marks)


def normalise(hint: object) -> Any:
    """Return the hint to decode by: one that says nothing, or that no value fits, is Any."""
    if hint is typing.NoReturn or hint is typing.Never or hint is object:
        return Any
    return str if hint is typing.LiteralString else hint


def plain_kinds(hint: object) -> frozenset[type]:
    """Return the types whose values a round trip through this hint gives back unchanged."""
    if hint is Any or hint is object:
        return PLAIN
    if hint is None:
        return frozenset({types.NoneType})
    if isinstance(hint, type):
        return frozenset({hint}) & PLAIN
    if isinstance(hint, NewType):
        return plain_kinds(cast(object, hint.__supertype__))
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset[type]().union(*map(plain_kinds, get_args(hint)))
    return frozenset()


_calm_types: dict[type, bool] = {}


def is_calm_type(kind: type) -> bool:
    """Whether instances of a class need no look before they are written; see `is_calm`."""
    known = _calm_types.get(kind)
    if known is None:
        known = _calm_types[kind] = is_calm(kind)
    return known


def is_calm(hint: object) -> bool:
    """Whether values of this hint hold no set, are of bounded depth and have keys that cannot clash.

    The hint is taken at its word. NaN is not covered: it shows in the output.
    """
    try:
        return _is_calm(msgspec.inspect.type_info(hint), ())
    except Exception:  # a hint that msgspec cannot read, or a name that is not defined yet
        return False


def _is_calm(node: msgspec.inspect.Type, above: tuple[object, ...]) -> bool:
    info = msgspec.inspect
    match node:
        case info.AnyType() | info.SetType() | info.FrozenSetType() | info.ExtType() | info.RawType():
            return False
        case info.ListType() | info.VarTupleType():
            return _is_calm(node.item_type, above)
        case info.TupleType():
            return all(_is_calm(item, above) for item in node.item_types)
        case info.DictType():
            one_kind = not isinstance(node.key_type, (info.AnyType, info.UnionType, info.FloatType))
            return one_kind and _is_calm(node.key_type, above) and _is_calm(node.value_type, above)
        case info.UnionType():
            return all(_is_calm(member, above) for member in node.types)
        case info.CustomType():
            return _is_calm_custom(node.cls, above)
        case info.StructType() | info.DataclassType() | info.TypedDictType() | info.NamedTupleType():
            # A type that holds itself may be of any depth.
            if node.cls in above or has_hidden_fields(node.cls):
                return False
            return all(_is_calm(field.type, (*above, node.cls)) for field in node.fields)
        case _:
            return True


def _is_calm_custom(kind: Any, above: tuple[object, ...]) -> bool:
    if is_model(kind) and kind not in above:
        hints = [field.annotation for field in kind.model_fields.values()]
        return all(_is_calm(msgspec.inspect.type_info(hint), (*above, kind)) for hint in hints)
    return isinstance(kind, type) and issubclass(kind, PurePath)


def has_hidden_fields(kind: type) -> bool:
    """Whether this is an attrs class with `_private` fields: msgspec would leave them out, silently."""
    fields: tuple[Any, ...] = getattr(kind, "__attrs_attrs__", ())
    return any(field.name.startswith("_") for field in fields)


def unreadable(hint: object) -> str | None:
    """Return the name of a class that values of this hint always hold and that JSON cannot give, if any."""
    return next(_unreadable(msgspec.inspect.type_info(hint), []), None)


def _unreadable(node: msgspec.inspect.Type, seen: list[object]) -> Iterator[str]:
    info = msgspec.inspect
    match node:
        case info.CustomType():
            if not _is_readable(node.cls):
                yield getattr(node.cls, "__name__", str(node.cls))
        case info.StructType() | info.DataclassType() | info.TypedDictType() | info.NamedTupleType():
            if node.cls not in seen:
                seen.append(node.cls)
                for field in node.fields:
                    if field.required:
                        yield from _unreadable(field.type, seen)
        case _:
            # A list may be empty and a union may be something else: nothing is certain.
            return


def _is_readable(kind: Any) -> bool:
    if is_model(kind) or (isinstance(kind, type) and issubclass(kind, PurePath)):
        return True
    try:
        return any(issubclass(json, kind) for json in _JSON)
    except TypeError:  # a Protocol that is not runtime_checkable: isinstance would fail as well
        return False


def is_union_of_models(hint: object) -> bool:
    """Whether this is a union of pydantic models only (and None): pydantic can tell them apart."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return bool(members) and all(is_model(member) or member is types.NoneType for member in members)


def resolve(function: Callable[..., object], local_names: dict[str, object]) -> dict[str, Any]:
    """Return a function's hints, with what a nested function can see by its own names.

    Raises NameError for a name that is nowhere to be found.
    """
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    names = dict(local_names)
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return typing.get_type_hints(inner, localns=names, include_extras=True)
