"""JSON Schemas of types of event, all in one list of components."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from ..errors import DefinitionError

_ODD = re.compile(r"[^\w.\-]")


class Components:
    """The schemas that a document refers to; each stands there once."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        """The same as they were made: a type that comes again is known by that."""

    def reference(self, kind: type) -> dict[str, Any]:
        """A schema that refers to that of a type, which is added with all that it needs."""
        schema = schema_of(kind)
        definitions: dict[str, Any] = schema.pop("$defs", {})
        names = {name: self._free_name(name, part) for name, part in definitions.items()}
        for name, part in definitions.items():
            self.schemas[names[name]] = _renamed(part, names)
        if set(schema) == {"$ref"}:
            return _renamed(schema, names)
        name = self._free_name(kind.__name__, schema)
        self.schemas[name] = _renamed(schema, names)
        return {"$ref": f"#/components/schemas/{name}"}

    def _free_name(self, wanted: str, schema: Any) -> str:
        """A name that no other schema has: two classes may be named the same."""
        name = base = _ODD.sub("_", wanted)
        number = 1
        while name in self._made and self._made[name] != schema:
            number += 1
            name = f"{base}_{number}"
        self._made[name] = schema
        return name


def schema_of(kind: type) -> dict[str, Any]:
    """The JSON Schema of a type; what it needs stands under `$defs`. Raises DefinitionError."""
    try:
        return msgspec.json.schema(kind)
    except Exception as error:
        raise DefinitionError(
            f"There is no JSON Schema of {kind.__name__}: {error}.",
            hint="Make it a dataclass, a msgspec Struct or an attrs class.",
        ) from error


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """The same, with references that lead to where the definitions stand now."""
    if isinstance(part, list):
        return [_renamed(each, names) for each in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    schema = cast("dict[str, Any]", part)
    renamed = {key: _renamed(value, names) for key, value in schema.items()}
    if isinstance(schema.get("$ref"), str):
        renamed["$ref"] = _moved(schema["$ref"], names)
    mapping = schema.get("mapping")
    if "propertyName" in schema and isinstance(mapping, dict):
        tags = cast("dict[str, str]", mapping)
        renamed["mapping"] = {tag: _moved(to, names) for tag, to in tags.items()}
    return renamed


def _moved(reference: str, names: dict[str, str]) -> str:
    return f"#/components/schemas/{names[reference.removeprefix('#/$defs/')]}"
