"""JSON Schema from a type, as Perdure writes and reads values of it.

Schemas are closed (`additionalProperties: false`), so that two of them can be compared:
an open one would allow anything under a name that comes later. Readers are tolerant all
the same, and pass over fields that they do not know; a type that refuses them says so
under `x-strict`. Names that a field may also be read by stand under `x-aliases`.

A schema's fingerprint is the same in every process and release, whatever the names
of classes, their docstrings, the order of fields, and the values of defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import PurePath
from typing import Any, TypeAlias, cast, get_args

import msgspec

from ..codec.hints import is_model, is_union_of_models, normalise
from ..errors import DefinitionError

Schema: TypeAlias = dict[str, Any]

_REMARKS = frozenset({"title", "description", "default", "examples", "deprecated", "discriminator"})
"""What says nothing about which values fit."""
_LISTS = frozenset({"required", "enum", "anyOf", "x-aliases"})
"""Whose order says nothing."""
_BOUNDS = (
    ("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum"), ("lt", "exclusiveMaximum"),
    ("multiple_of", "multipleOf"), ("pattern", "pattern"),
)  # fmt: skip
_FORMATS = {
    "DateTimeType": "date-time", "DateType": "date", "TimeType": "time", "TimeDeltaType": "duration",
    "UUIDType": "uuid", "DecimalType": "decimal",
}  # fmt: skip


def schema_of(hint: object) -> Schema:
    """The schema of the values of a type hint. Raises DefinitionError for one that has none."""
    made = _Made()
    try:
        whole = made.schema(hint)
    except DefinitionError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"{hint!r} has no JSON Schema: {type(error).__name__}: {error}.",
            hint="Make it a dataclass, a msgspec Struct, an attrs or a pydantic model.",
        ) from error
    return {**whole, "$defs": made.definitions} if made.definitions else whole


def record_schema(title: str, fields: Iterable[tuple[str, Any, bool]], *, strict: bool) -> Schema:
    """The schema of named values: name, type hint, and whether it must be there."""
    given = list(fields)
    made = _Made()
    properties = {name: made.schema(hint) for name, hint, _ in given}
    required = [name for name, _, is_required in given if is_required]
    return {**_closed(title, properties, required, strict=strict), "$defs": made.definitions}


def fingerprint_of(schema: Schema) -> str:
    """16 hexadecimal digits that name what a schema lets pass."""
    return sha256(msgspec.json.encode(_Canon(schema).whole(), order="sorted")).hexdigest()[:16]


def schema_text(schema: Schema) -> bytes:
    """A schema as it is kept."""
    return msgspec.json.encode(schema, order="sorted")


def read_schema(text: bytes) -> Schema:
    """A schema from how it is kept."""
    return msgspec.json.decode(text)


class _Made:
    """One schema that is being made, and the definitions that it refers to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}

    def schema(self, hint: object) -> Schema:
        """The schema of a hint."""
        hint = normalise(hint)
        if is_union_of_models(hint):  # msgspec cannot tell them apart, and does not look inside
            return _any_of([self.schema(member) for member in get_args(hint)])
        return self._of(msgspec.inspect.type_info(hint))

    def _of(self, node: Any) -> Schema:
        info = msgspec.inspect
        match node:
            case info.Metadata():
                return self._of(node.type)
            case info.AnyType() | info.RawType():
                return {}
            case info.NoneType():
                return {"type": "null"}
            case info.BoolType():
                return {"type": "boolean"}
            case info.IntType() | info.FloatType():
                return {"type": "integer" if isinstance(node, info.IntType) else "number", **_bounds(node)}
            case info.StrType():
                return {"type": "string", **_bounds(node), **_lengths(node, "Length")}
            case info.BytesType() | info.ByteArrayType() | info.MemoryViewType():
                return {"type": "string", "contentEncoding": "base64", **_lengths(node, "Length")}
            case info.EnumType():
                return {"enum": [member.value for member in cast(Any, node.cls)]}
            case info.LiteralType():
                return {"enum": list(node.values)}
            case info.UnionType():
                return _any_of([self._of(member) for member in node.types])
            case info.CustomType():
                return self._custom(node.cls)
            case info.StructType() | info.DataclassType() | info.TypedDictType() | info.NamedTupleType():
                return self._reference(node)
            case _:
                return self._collection(node)

    def _collection(self, node: Any) -> Schema:
        info = msgspec.inspect
        match node:
            case info.SetType() | info.FrozenSetType():
                lengths = _lengths(node, "Items")
                return {"type": "array", "items": self._of(node.item_type), "uniqueItems": True, **lengths}
            case info.ListType() | info.VarTupleType():
                return {"type": "array", "items": self._of(node.item_type), **_lengths(node, "Items")}
            case info.TupleType():
                return _places([self._of(item) for item in node.item_types])
            case info.DictType():
                keys = self._of(node.key_type)
                named = {} if keys == {"type": "string"} else {"propertyNames": keys}
                values = self._of(node.value_type)
                return {
                    "type": "object",
                    "additionalProperties": values,
                    **named,
                    **_lengths(node, "Properties"),
                }
            case _:
                return {"type": "string", "format": _FORMATS[type(node).__name__]}

    def _reference(self, node: Any) -> Schema:
        """A class of fields, which may hold itself: defined once, and referred to."""
        name = self._names.get(node.cls)
        if name is None:
            name = self._names[node.cls] = self._free_name(getattr(node.cls, "__name__", "Value"))
            self.definitions[name] = {}
            self.definitions[name] = self._record(node)
        return {"$ref": f"#/$defs/{name}"}

    def _record(self, node: Any) -> Schema:
        title = node.cls.__name__
        if getattr(node, "array_like", False) or isinstance(node, msgspec.inspect.NamedTupleType):
            tag: Any = getattr(node, "tag", None)
            tags: list[Schema] = [] if tag is None else [{"enum": [tag]}]
            places = _places([*tags, *(self._of(field.type) for field in node.fields)])
            needed = len(tags) + sum(field.required for field in node.fields)
            fixed = isinstance(node, msgspec.inspect.NamedTupleType) or node.forbid_unknown_fields
            if not fixed:
                del places["maxItems"], places["items"]
            return {"title": title, **places, "minItems": needed}
        properties = {field.encode_name: self._of(field.type) for field in node.fields}
        required = [field.encode_name for field in node.fields if field.required]
        if getattr(node, "tag", None) is not None:
            properties = {node.tag_field: {"enum": [node.tag]}, **properties}
            required.insert(0, node.tag_field)
        return _closed(title, properties, required, strict=getattr(node, "forbid_unknown_fields", False))

    def _custom(self, kind: Any) -> Schema:
        if is_model(kind):
            return self._model(kind)
        if isinstance(kind, type) and issubclass(kind, PurePath):
            return {"type": "string", "format": "path"}
        raise DefinitionError(f"{kind!r} has no JSON Schema.", hint="Make it of types that JSON knows.")

    def _model(self, kind: Any) -> Schema:
        """A pydantic model, which makes its own schema; its definitions become ours."""
        if kind in self._names:
            return {"$ref": f"#/$defs/{self._names[kind]}"}
        # As it is read: a default makes a field optional. Under its own names, as it is written.
        named: Schema = kind.model_json_schema(by_alias=False, mode="validation")
        aliased: Schema = kind.model_json_schema(by_alias=True, mode="validation")
        inner, other = named.pop("$defs", {}), aliased.pop("$defs", {})
        name = self._names[kind] = self._free_name(kind.__name__)
        self.definitions[name] = {}
        names = {old: name if old == kind.__name__ else self._free_name(old) for old in inner}
        for old, new in names.items():
            self.definitions[new] = _adopt(inner[old], other.get(old, {}), names)
        if "$ref" not in named:  # else it holds itself, and has been defined
            self.definitions[name] = _adopt(named, aliased, names)
        return {"$ref": f"#/$defs/{name}"}

    def _free_name(self, name: str) -> str:
        taken, number = self.definitions, 2
        if name not in taken:
            return name
        while f"{name}{number}" in taken:
            number += 1
        return f"{name}{number}"


def _closed(title: str, properties: Schema, required: list[str], *, strict: bool) -> Schema:
    closed: Schema = {
        "title": title, "type": "object", "properties": properties, "required": sorted(required),
        "additionalProperties": False,
    }  # fmt: skip
    return {**closed, "x-strict": True} if strict else closed


def _any_of(members: list[Schema]) -> Schema:
    return {} if {} in members else members[0] if len(members) == 1 else {"anyOf": members}


def _places(items: list[Schema]) -> Schema:
    return {
        "type": "array",
        "prefixItems": items,
        "minItems": len(items),
        "maxItems": len(items),
        "items": False,
    }


def _bounds(node: Any) -> Schema:
    found = {word: getattr(node, name, None) for name, word in _BOUNDS}
    return {word: bound for word, bound in found.items() if bound is not None}


def _lengths(node: Any, what: str) -> Schema:
    found = {f"min{what}": node.min_length, f"max{what}": node.max_length}
    return {word: bound for word, bound in found.items() if bound is not None}


def _adopt(schema: Any, aliased: Any, names: Mapping[str, str]) -> Any:
    """A part of pydantic's schema in our form; `aliased` is the same part with aliases for names."""
    if isinstance(schema, list):
        others = cast(list[Any], aliased if isinstance(aliased, list) else [])
        parts = cast(list[Any], schema)
        return [
            _adopt(part, others[at] if at < len(others) else None, names) for at, part in enumerate(parts)
        ]
    if not isinstance(schema, dict):
        return cast(object, schema)
    old = cast(Schema, schema)
    also: Schema = cast(Schema, aliased) if isinstance(aliased, dict) else {}
    new: Schema = {}
    for word, part in old.items():
        if word in ("properties", "$defs"):
            new[word] = _adopt_fields(part, also.get(word, {}), names)
        elif word == "$ref":
            new[word] = f"#/$defs/{names[part.rpartition('/')[2]]}"
        elif word not in _REMARKS or word == "title":
            new[word] = _adopt(part, also.get(word), names)
    if "const" in new:
        return {"enum": [new["const"]]}
    if "enum" in new:
        return {"enum": new["enum"]}
    if "oneOf" in new:
        new["anyOf"] = new.pop("oneOf")
    if {"type": "number"} in new.get("anyOf", ()):  # a Decimal: which pattern it has differs by release
        new["anyOf"] = [{"type": "string"} if "pattern" in one else one for one in new["anyOf"]]
    if len(new.get("allOf", ())) == 1:
        return new["allOf"][0]
    if "properties" in new or (new.get("type") == "object" and "additionalProperties" not in new):
        strict = {"x-strict": True} if old.get("additionalProperties") is False else {}
        new = {"properties": {}, "required": [], **new, "additionalProperties": False, **strict}
    elif not isinstance(part := new.get("title"), str) or "$ref" in new or old.get("type") != "object":
        new.pop("title", None)
    return new


def _adopt_fields(fields: Schema, aliased: Schema, names: Mapping[str, str]) -> Schema:
    """Both name the same fields in the same order."""
    adopted: Schema = {}
    for (name, field), (alias, other) in zip(
        fields.items(), aliased.items(), strict=len(fields) == len(aliased)
    ):
        adopted[name] = _adopt(field, other, names)
        if alias != name:
            adopted[name]["x-aliases"] = [alias]
    return adopted


class _Canon:
    """A schema without what says nothing, its definitions named in the order in which they are met."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._names: dict[str, str] = {}

    def whole(self) -> Schema:
        """The schema, and the definitions that it leads to."""
        top = self._part({word: part for word, part in self._schema.items() if word != "$defs"})
        definitions: Schema = {}
        while len(definitions) < len(self._names):
            for old, new in list(self._names.items()):
                if new not in definitions:
                    definitions[new] = self._part(self._schema["$defs"][old])
        return {"top": top, "definitions": definitions}

    def _part(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self._part(item) for item in cast(list[Any], part)]
        if not isinstance(part, dict):
            return cast(object, part)
        return dict(self._words(cast(Schema, part)))

    def _words(self, schema: Schema) -> Iterator[tuple[str, Any]]:
        for word in sorted(schema):
            part = schema[word]
            if word == "properties":
                yield word, {name: self._part(part[name]) for name in sorted(part)}
            elif word == "$ref":
                yield word, self._names.setdefault(part.rpartition("/")[2], f"D{len(self._names) + 1}")
            elif word in _LISTS:
                yield word, sorted(map(self._part, part), key=_order)
            elif word not in _REMARKS:
                yield word, self._part(part)


def _order(part: Any) -> bytes:
    return msgspec.json.encode(part, order="sorted")
