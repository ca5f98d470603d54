"""What changed between two schemas, and whom each change breaks.

A change breaks *backward* when code with the new schema cannot read a value of the old
one, *forward* when code with the old schema cannot read a value of the new one. Readers
pass over fields that they do not know, unless their type refuses them. What a value
means, or in which unit it is, no schema says: give such a change a new type of event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from .making import Schema, fingerprint_of

Side = Literal["backward", "forward"]
"""Backward: new code, old data. Forward: old code, new data."""

_OK: Final = frozenset[Side]()
_BACKWARD: Final = frozenset[Side]({"backward"})
_FORWARD: Final = frozenset[Side]({"forward"})
_BOTH: Final = _BACKWARD | _FORWARD

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EITHER = ("pattern", "multipleOf", "uniqueItems")


class Change(NamedTuple):
    """One difference between two schemas."""

    path: str
    """Where: `$.items[*].sku`."""
    rule: str
    """Which kind of change: `required field added`."""
    what: str
    """The change in words, with what it was and what it is."""
    breaks: frozenset[Side]


def compare(old: Schema, new: Schema, *, are_neighbours: bool = True) -> list[Change]:
    """What changed, in the order of the fields of the new schema, those that went last.

    `are_neighbours`: no version stands between the two. Then an optional field that goes while
    another of the same type comes is taken for one that is renamed, whose values would be lost.
    """
    return list(_Comparison(old, new, are_neighbours).changes("$", old, new))


class _Comparison:
    """Two schemas, side by side."""

    def __init__(self, old: Schema, new: Schema, are_neighbours: bool) -> None:
        self._old: Mapping[str, Schema] = old.get("$defs", {})
        self._new: Mapping[str, Schema] = new.get("$defs", {})
        self._are_neighbours = are_neighbours
        self._seen: set[tuple[str, str]] = set()
        """Definitions that were compared, or are being so: a type may hold itself."""

    def changes(self, path: str, old: Schema, new: Schema) -> Iterator[Change]:
        """The changes at a place and below it."""
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self._seen:
                return
            self._seen.add(pair)
        olds, news = _alternatives(old, self._old), _alternatives(new, self._new)
        if not olds or not news:
            if olds:
                yield Change(
                    path, "type widened", f"any value may stand here, and not only {_name(olds)}", _FORWARD
                )
            elif news:
                yield Change(
                    path, "type narrowed", f"only {_name(news)} may stand here, and not any value", _BACKWARD
                )
            return
        if len(olds) == len(news) == 1:
            yield from self._one(path, olds[0], news[0])
            return
        yield from self._many(path, olds, news)

    def _many(self, path: str, olds: list[Schema], news: list[Schema]) -> Iterator[Change]:
        rest = list(olds)
        added: list[Schema] = []
        for new in news:
            old = _twin(new, rest)
            if old is None:
                added.append(new)
            else:
                rest.remove(old)
                yield from self._one(path, old, new)
        if added:
            yield Change(path, "type widened", f"it may be {_name(added)}, too", _FORWARD)
        if rest:
            yield Change(path, "type narrowed", f"it may not be {_name(rest)} any more", _BACKWARD)

    def _one(self, path: str, old: Schema, new: Schema) -> Iterator[Change]:
        before, after = _kind(old), _kind(new)
        if before != after:
            yield _retyped(path, before, after)
            return
        yield from _values(path, old, new)
        yield from _bounds(path, old, new)
        if before == "record":
            yield from self._fields(path, old, new)
        elif before == "map":
            yield from self.changes(
                f"{path}.*", _schema(old["additionalProperties"]), _schema(new["additionalProperties"])
            )
            keys = ({"type": "string"}, {"type": "string"})
            olds, news = old.get("propertyNames", keys[0]), new.get("propertyNames", keys[1])
            yield from self.changes(f"{path}.keys()", olds, news)
        elif before == "array":
            yield from self.changes(f"{path}[*]", _schema(old.get("items")), _schema(new.get("items")))
        elif before == "tuple":
            yield from self._places(path, old, new)

    def _places(self, path: str, old: Schema, new: Schema) -> Iterator[Change]:
        olds, news = old["prefixItems"], new["prefixItems"]
        for at, (before, after) in enumerate(zip(olds, news, strict=False)):
            yield from self.changes(f"{path}[{at}]", before, after)
        if len(olds) == len(news):
            return
        # Readers of a Struct that is an array pass over places at its end; others refuse them.
        breaks = _OK
        if len(news) > len(olds):
            breaks |= _FORWARD if "maxItems" in old else _OK
            breaks |= _BACKWARD if new["minItems"] > len(olds) else _OK
        else:
            breaks |= _BACKWARD if "maxItems" in new else _OK
            breaks |= _FORWARD if old["minItems"] > len(news) else _OK
        yield Change(path, "length changed", f"it has {len(news)} places, and had {len(olds)}", breaks)

    def _fields(self, path: str, old: Schema, new: Schema) -> Iterator[Change]:
        olds, news = old["properties"], new["properties"]
        gone, come = [name for name in olds if name not in news], [name for name in news if name not in olds]
        renamed = self._renamed(old, new, gone, come)
        for name in news:
            here = f"{path}.{name}"
            if name in olds:
                yield from _needed(here, name in old["required"], name in new["required"])
                yield from self.changes(here, olds[name], news[name])
            elif name in renamed:
                yield _rename(path, renamed[name], name, new)
                yield from self.changes(here, olds[renamed[name]], news[name])
            else:
                yield _added(here, is_required=name in new["required"], refused="x-strict" in old)
        for name in gone:
            if name not in renamed.values():
                is_required = name in old["required"]
                yield _removed(f"{path}.{name}", is_required=is_required, refused="x-strict" in new)

    def _renamed(self, old: Schema, new: Schema, gone: list[str], come: list[str]) -> dict[str, str]:
        """New names, and the old ones that they stand for: by an alias, or as far as one can tell."""
        found: dict[str, str] = {}
        for name in come:
            aliases = new["properties"][name].get("x-aliases", ())
            known = [other for other in aliases if other in gone]
            if not known and self._are_neighbours:
                known = [other for other in gone if self._are_alike(old, new, other, name)]
            known = [other for other in known if other not in found.values()]
            if known:
                found[name] = known[0]
        return found

    def _are_alike(self, old: Schema, new: Schema, before: str, after: str) -> bool:
        """Whether two fields are of one type, and both needed or both not."""
        if (before in old["required"]) != (after in new["required"]):
            return False
        one, other = old["properties"][before], new["properties"][after]
        return _fingerprint(one, self._old) == _fingerprint(other, self._new)


def _fingerprint(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    plain = {word: part for word, part in schema.items() if word != "x-aliases"}
    return fingerprint_of({**plain, "$defs": definitions})


def _schema(part: Any) -> Schema:
    return cast(Schema, part) if isinstance(part, dict) else {}


def _alternatives(schema: Schema, definitions: Mapping[str, Schema]) -> list[Schema]:
    """What a schema allows, one kind of value each; nothing: any value."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return [one for member in schema["anyOf"] for one in _alternatives(member, definitions)]
    return [schema] if "type" in schema or "enum" in schema else []


def _kind(schema: Schema) -> str:
    """Which kind of value a schema allows: `integer`, `date-time`, `record`, `enum` …"""
    if "enum" in schema:
        return "enum"
    if schema.get("contentEncoding"):
        return "bytes"
    if schema["type"] == "object":
        return "record" if "properties" in schema else "map"
    if schema["type"] == "array":
        return "tuple" if "prefixItems" in schema else "array"
    return schema.get("format") or schema["type"]


def _name(schemas: Sequence[Schema]) -> str:
    names = [schema.get("title") or _kind(schema) for schema in schemas]
    return " or ".join(
        _text(schema["enum"]) if "enum" in schema else name
        for schema, name in zip(schemas, names, strict=True)
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _twin(schema: Schema, others: Sequence[Schema]) -> Schema | None:
    """The one of these that stands for the same: by its tag, its class, or its kind."""
    kind = _kind(schema)
    alike = [one for one in others if _kind(one) == kind]
    for trait in (_tag, _title):
        for one in alike:
            if trait(schema) is not None and trait(one) == trait(schema):
                return one
    if kind == "record":
        # One of another class is another one, unless it is the only one on either side.
        return alike[0] if len(alike) == 1 and _tag(schema) is None else None
    if alike:
        return alike[0]
    return next((one for one in others if {kind, _kind(one)} == {"integer", "number"}), None)


def _title(schema: Schema) -> str | None:
    return schema.get("title")


def _tag(schema: Schema) -> str | None:
    """What tells a record from others of its union, if it has that."""
    for name in schema.get("required", ()):
        if len(values := schema.get("properties", {}).get(name, {}).get("enum", ())) == 1:
            return f"{name}={_text(values[0])}"
    return None


def _retyped(path: str, before: str, after: str) -> Change:
    what = f"it is {after}, and was {before}"
    if (before, after) == ("integer", "number"):
        return Change(path, "type widened", what, _FORWARD)
    if (before, after) == ("number", "integer"):
        return Change(path, "type narrowed", what, _BACKWARD)
    texts = {"string", "date-time", "date", "time", "duration", "uuid", "path", "decimal", "bytes"}
    if after == "string" and before in texts | {"enum"}:
        return Change(path, "type widened", what, _FORWARD)
    if before == "string" and after in texts | {"enum"}:
        return Change(path, "type narrowed", what, _BACKWARD)
    return Change(path, "type changed", what, _BOTH)


def _values(path: str, old: Schema, new: Schema) -> Iterator[Change]:
    olds, news = old.get("enum", []), new.get("enum", [])
    if come := [one for one in news if one not in olds]:
        yield Change(path, "enum value added", f"it may be {_text(come)}, too", _FORWARD)
    if gone := [one for one in olds if one not in news]:
        yield Change(path, "enum value removed", f"it may not be {_text(gone)} any more", _BACKWARD)


def _bounds(path: str, old: Schema, new: Schema) -> Iterator[Change]:
    is_tuple = "prefixItems" in old
    for word in (*_LOWER, *_UPPER, *_EITHER):
        before, after = old.get(word), new.get(word)
        if before == after or (is_tuple and word in ("minItems", "maxItems")):
            continue
        if before is None:
            yield Change(path, "bound added", f"{word} is {after}, and was not set", _BACKWARD)
        elif after is None:
            yield Change(path, "bound removed", f"{word} is not set, and was {before}", _FORWARD)
        else:
            what = f"{word} is {after}, and was {before}"
            if word in _EITHER:
                yield Change(path, "bound changed", what, _BOTH)
            elif (after > before) == (word in _LOWER):
                yield Change(path, "bound tightened", what, _BACKWARD)
            else:
                yield Change(path, "bound enlarged", what, _FORWARD)


def _needed(path: str, before: bool, after: bool) -> Iterator[Change]:
    if after and not before:
        yield Change(path, "field made required", "it must be there, and had a default", _BACKWARD)
    elif before and not after:
        yield Change(path, "field made optional", "it has a default, and had to be there", _FORWARD)


def _added(path: str, *, is_required: bool, refused: bool) -> Change:
    breaks = (_BACKWARD if is_required else _OK) | (_FORWARD if refused else _OK)
    rule = "required field added" if is_required else "optional field added"
    what = "it has no default" if is_required else "it has a default"
    return Change(
        path, rule, what + ("; the old type refuses fields that it does not know" if refused else ""), breaks
    )


def _removed(path: str, *, is_required: bool, refused: bool) -> Change:
    breaks = (_FORWARD if is_required else _OK) | (_BACKWARD if refused else _OK)
    rule = "required field removed" if is_required else "optional field removed"
    what = "it had no default" if is_required else "it had a default"
    return Change(
        path, rule, what + ("; the new type refuses fields that it does not know" if refused else ""), breaks
    )


def _rename(path: str, before: str, after: str, new: Schema) -> Change:
    if before in new["properties"][after].get("x-aliases", ()):
        what = f"it is also read as {before!r}, which it was"
        return Change(f"{path}.{after}", "field renamed, with an alias", what, _FORWARD)
    what = (
        f"{before!r} went and this came, of the same type: taken for its new name; old values would be lost"
    )
    return Change(f"{path}.{after}", "field renamed", what, _BOTH)
