"""What differs between two AsyncAPI documents: the code's, and one that was written by hand.

Compared is what a sender and a receiver must agree on: channels by their addresses,
messages by their names, the fields of payloads with their types, and which operations
there are. Names of operations, titles and descriptions are anybody's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import DefinitionError

Side = Literal["code", "document", "both"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the two are not alike."""

    path: str
    """`orders/order.placed/lines[]/sku`: the channel's address, the message, the field."""
    side: Side
    """Where it stands, if only one of them has it."""
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def compare(code: Mapping[str, Any], document: Mapping[str, Any]) -> list[Difference]:
    """All differences, in the order of the channels. Raises DefinitionError for no AsyncAPI 3 document."""
    version = document.get("asyncapi")
    if not isinstance(version, str) or not version.startswith("3."):
        raise DefinitionError(
            f"This is no AsyncAPI 3 document: its `asyncapi` is {version!r}.",
            hint="Write `asyncapi: 3.0.0` on top; `perdure asyncapi MODULE` shows the form.",
        )
    return list(_Comparison(_Document(code), _Document(document)).all())


class _Document:
    """One of the two, with its references followed."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self._whole = whole
        self.channels: dict[str, dict[str, Any]] = {}
        """By address: the messages by name."""
        addresses: dict[str, str] = {}
        for name, found in _mapping(whole.get("channels")).items():
            channel = self.follow(found)
            addresses[name] = address = str(channel.get("address") or name)
            self.channels[address] = {
                str(message.get("name") or key): message
                for key, one in _mapping(channel.get("messages")).items()
                for message in [self.follow(one)]
            }
        self.operations = set(self._operations(addresses))
        """(action, address, message) of each."""

    def follow(self, part: Any) -> dict[str, Any]:
        """What a reference refers to, or the part itself."""
        seen: list[str] = []
        while isinstance(part, Mapping) and isinstance(part.get("$ref"), str):  # pyright: ignore[reportUnknownMemberType]
            reference = cast("str", part["$ref"])
            if not reference.startswith("#/") or reference in seen:
                raise DefinitionError(
                    f"The document refers to {reference!r}, which cannot be followed.",
                    hint="Bundle it into one file first: references lead within it, and not in circles.",
                )
            seen.append(reference)
            part = self._at(reference)
        return _mapping(cast("Any", part))

    def _at(self, reference: str) -> Any:
        part: Any = self._whole
        for token in reference[2:].split("/"):
            name = token.replace("~1", "/").replace("~0", "~")
            if not isinstance(part, Mapping) or name not in part:
                raise DefinitionError(f"The document refers to {reference!r}, which is not there.")
            part = cast("Any", part[name])
        return part

    def _operations(self, addresses: dict[str, str]) -> Iterator[tuple[str, str, str]]:
        for found in _mapping(self._whole.get("operations")).values():
            operation = self.follow(found)
            channel = str(_mapping(operation.get("channel")).get("$ref", ""))
            name = channel.removeprefix("#/channels/").replace("~1", "/").replace("~0", "~")
            address = addresses.get(name, name)
            known = operation.get("messages")
            if known is None:
                names = list(self.channels.get(address, {}))
            else:
                names = [self._name_of(one) for one in known]
            for message in names:
                yield str(operation.get("action")), address, message

    def _name_of(self, reference: Any) -> str:
        message = self.follow(reference)
        last = str(_mapping(reference).get("$ref", "")).rpartition("/")[2]
        return str(message.get("name") or last.replace("~1", "/").replace("~0", "~"))


class _Comparison:
    def __init__(self, code: _Document, document: _Document) -> None:
        self._code = code
        self._document = document

    def all(self) -> Iterator[Difference]:
        ours, theirs = self._code.channels, self._document.channels
        yield from _only(ours, theirs, "", "channel")
        for address in sorted(ours.keys() & theirs.keys()):
            yield from _only(ours[address], theirs[address], f"{address}/", "message")
            for name in sorted(ours[address].keys() & theirs[address].keys()):
                one, other = ours[address][name], theirs[address][name]
                if "payload" in other:  # else it leaves open what it holds
                    path = f"{address}/{name}"
                    yield from self._schemas(one.get("payload"), other.get("payload"), path, ())
        yield from self._operations()

    def _operations(self) -> Iterator[Difference]:
        """Which operations there are; a document without any leaves that open."""
        ours, theirs = self._code.operations, self._document.operations
        shared = self._code.channels.keys() & self._document.channels.keys()
        for action, address, message in sorted(ours ^ theirs) if theirs else ():
            if address in shared and all(
                message in each.channels[address] for each in (self._code, self._document)
            ):
                side: Side = "code" if (action, address, message) in ours else "document"
                what = f"that it is {_DONE[action]} stands only in the {side}"
                yield Difference(f"{address}/{message}", side, what)

    def _schemas(self, one: Any, other: Any, path: str, above: tuple[int, ...]) -> Iterator[Difference]:
        ours, theirs = self._code.follow(one), self._document.follow(other)
        if "schema" in theirs and "schemaFormat" in theirs:
            theirs = self._document.follow(theirs["schema"])
        if id(ours) in above:
            return  # a type that holds itself
        above = (*above, id(ours))
        our_ways, their_ways = self._ways(ours, self._code), self._ways(theirs, self._document)
        if their_ways and our_ways.keys() != their_ways.keys():
            what = f"it is {_or(our_ways)} in the code, and {_or(their_ways)} in the document"
            yield Difference(path, "both", what)
            return
        for kind in our_ways.keys() & their_ways.keys():
            pairs = list(zip(our_ways[kind], their_ways[kind], strict=False))
            if len(our_ways[kind]) != len(their_ways[kind]):
                counts = f"{len(our_ways[kind])} in the code, and {len(their_ways[kind])} in the document"
                yield Difference(path, "both", f"the forms of {kind} that it can have are {counts}")
                continue
            for mine, yours in pairs:
                yield from self._parts(mine, yours, path, above)

    def _ways(self, schema: dict[str, Any], whole: _Document) -> dict[str, list[dict[str, Any]]]:
        """The forms that a schema allows, by their JSON type; none for one that says nothing of it."""
        found: dict[str, list[dict[str, Any]]] = {}
        branches = schema.get("anyOf") or schema.get("oneOf")
        for branch in branches or ():
            for kind, forms in self._ways(whole.follow(branch), whole).items():
                found.setdefault(kind, []).extend(forms)
        if branches:
            return found
        kinds = schema.get("type")
        if kinds is None:
            values = schema.get("enum", [schema["const"]] if "const" in schema else [])
            kinds = sorted({_kind_of(value) for value in values}) or ["object"] * ("properties" in schema)
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            found[str(kind)] = [schema]
        return found

    def _parts(
        self, ours: dict[str, Any], theirs: dict[str, Any], path: str, above: tuple[int, ...]
    ) -> Iterator[Difference]:
        """Fields, elements and allowed values of two schemas of one JSON type."""
        our_fields, their_fields = _mapping(ours.get("properties")), _mapping(theirs.get("properties"))
        yield from _only(our_fields, their_fields, f"{path}/", "field")
        our_required, their_required = set(ours.get("required", ())), set(theirs.get("required", ()))
        for name in our_fields.keys() & their_fields.keys():
            if (name in our_required) != (name in their_required):
                side: Side = "code" if name in our_required else "document"
                yield Difference(f"{path}/{name}", side, f"it is required only in the {side}")
        for name in sorted(our_fields.keys() & their_fields.keys()):
            yield from self._schemas(our_fields[name], their_fields[name], f"{path}/{name}", above)
        for word, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(ours.get(word), Mapping) and isinstance(theirs.get(word), Mapping):
                yield from self._schemas(ours[word], theirs[word], path + mark, above)
        for word in ("enum", "const", "format"):
            if word in theirs and _sorted(ours.get(word)) != _sorted(theirs[word]):
                what = f"its {word} is {ours.get(word)!r} in the code, and {theirs[word]!r} in the document"
                yield Difference(path, "both", what)


_DONE = {"receive": "received", "send": "sent"}


def _only(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str, noun: str) -> Iterator[Difference]:
    for name in sorted(ours.keys() ^ theirs.keys()):
        side: Side = "code" if name in ours else "document"
        yield Difference(f"{path}{name}", side, f"this {noun} stands only in the {side}")


def _mapping(part: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _or(ways: Mapping[str, Any]) -> str:
    return " or ".join(sorted(ways)) or "anything"


_KINDS: dict[object, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array",
}  # fmt: skip


def _kind_of(value: object) -> str:
    return _KINDS.get(type(value), "object")


def _sorted(value: Any) -> Any:
    return sorted(map(repr, cast("list[Any]", value))) if isinstance(value, list) else value
