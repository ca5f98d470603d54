"""The one JSON writer, and the types that msgspec leaves to us: pydantic models and paths.

Pydantic is never imported here: a model is known by the mark that pydantic
leaves on its classes (`hints.is_model`). Versions from 2.11 on are supported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, cast, get_origin

import msgspec

from .hints import is_calm_type, is_model


def dump_model(model: Any, *, only: str | None = None) -> object:
    """Return a model as plain JSON values, with its sets in a fixed order.

    Fields go by their own names, not by aliases: one name for writing and
    reading, whatever the aliases are.
    """
    include = None if only is None else {only}
    plain: object = model.model_dump(mode="json", round_trip=True, include=include)
    if is_calm_type(type(cast(object, model))):
        return plain
    return _order_sets(model.model_dump(round_trip=True, include=include), plain)


def _order_sets(rich: object, plain: object) -> object:
    # pydantic writes a set in hash order, which differs between processes. Beside the
    # same dump that still has the sets in it, one sees which lists were sets.
    if isinstance(plain, list):
        items = cast(list[object], plain)
        if isinstance(rich, (set, frozenset)):
            return sorted(items, key=write)
        if isinstance(rich, Sequence):
            return [_order_sets(*pair) for pair in zip(cast(Sequence[object], rich), items, strict=False)]
    elif isinstance(plain, dict) and isinstance(rich, Mapping):
        fields = cast(dict[str, object], plain)
        values = cast(Mapping[object, object], rich).values()
        pairs = zip(values, fields.items(), strict=False)
        return {name: _order_sets(value, item) for value, (name, item) in pairs}
    return cast(object, plain)


def _encode_hook(value: Any) -> object:
    kind = type(cast(object, value))
    if is_model(kind):
        return dump_model(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{kind.__qualname__} is not serialisable")


def union_reader(hint: object) -> Callable[[bytes], Any]:
    """Return what reads JSON as a union of models, which msgspec cannot tell apart and pydantic can."""
    return partial(_call_pydantic, sys.modules["pydantic"].TypeAdapter(hint).validate_json)


def _call_pydantic(validate: Callable[..., Any], data: bytes) -> Any:
    try:
        return validate(data, by_alias=True, by_name=True)
    except ValueError as error:
        errors: Any = getattr(error, "errors", None)
        if errors is None:
            raise
        # Pydantic's own text is a page, and has the values; the first three say enough.
        said = [f"{'.'.join(map(str, one['loc']))}: {_rule_of(one)}" for one in errors()[:3]]
    raise ValueError("; ".join(said))


def _rule_of(error: Any) -> str:
    """What pydantic says is wrong; without the value, which it names for the tag of a union."""
    if error["type"] == "union_tag_invalid":
        return f"Input tag is none of {error['ctx']['expected_tags']}"
    return error["msg"]


def decode_hook(kind: Any, value: Any) -> object:
    """Read a type that msgspec does not know from plain JSON values."""
    if is_model(kind):
        # As JSON once more: a strict model takes dates and the like only from JSON.
        return _call_pydantic(kind.model_validate_json, write(value))
    origin: Any = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, PurePath) and isinstance(value, str):
        return origin(value)
    if isinstance(value, origin):
        return value
    raise TypeError(f"{getattr(kind, '__name__', kind)} cannot be read from JSON")


write = msgspec.json.Encoder(enc_hook=_encode_hook).encode
"""One call to msgspec: no limit, no check, sets in hash order, NaN as null."""
