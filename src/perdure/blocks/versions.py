"""The versions of the types of a stream's events: which this code reads, and how.

An event of the code's own version is read as it is. One of an older version goes
through the upcasters; without any, it is read as it is, which the registry of schemas
allows only while the two fit. One of a newer version is read where a downcaster leads
to ours, or where the store's registry says that our code can read it (`learn`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..codec.json import decoder, encode
from ..core.events import EventRow, SchemaRow
from ..errors import DefinitionError, NotDecodable, NotSerialisable, UnknownEvent
from ..schemas.comparing import compare
from ..schemas.compatibility import Bridges
from ..schemas.making import Schema, fingerprint_of, read_schema, schema_of, schema_text
from .casting import Path, downs_of, ups_of

Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Kind:
    """A type of event, at the version that this code has of it."""

    name: str
    version: int
    cls: Any
    read: Read

    @cached_property
    def schema(self) -> Schema:
        """What its events look like. Raises DefinitionError where that cannot be told."""
        return schema_of(self.cls)

    @cached_property
    def fingerprint(self) -> str:
        """Names its schema."""
        return fingerprint_of(self.schema)

    @cached_property
    def schema_text(self) -> bytes:
        """Its schema as it is kept."""
        return schema_text(self.schema)

    @property
    def bridges(self) -> Bridges:
        """The casters that there are."""
        return Bridges(ups_of(self.name, self.version), downs_of(self.name))

    def check_chain(self) -> None:
        """Raise DefinitionError if an upcaster leads nowhere."""
        ups = ups_of(self.name, self.version)
        for version in range(min(ups, default=self.version), self.version):
            if version not in ups:
                raise gap(self.name, version, f"there is one from version {min(ups)}")


def gap(name: str, version: int, why: str) -> DefinitionError:
    """The error for a version that no upcaster takes to the next."""
    return DefinitionError(
        f"Event {name!r}: no upcaster makes version {version} into version {version + 1}, and {why}.",
        hint=f"Write one: @upcast({name!r}, {version}); it may return its argument.",
    )


class Versions:
    """How the events of one stream are read."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.kinds: dict[str, Kind] = {}
        """By the type's name."""
        self._reads: dict[tuple[str, int], Read] = {}
        """By type and version: those that were met, and can be read."""
        self._refused: dict[tuple[str, int], UnknownEvent] = {}

    def add(self, name: str, version: int, cls: Any) -> None:
        """A type of event. Raises DefinitionError for one that is no JSON, or has the name of another."""
        if name in self.kinds:
            raise DefinitionError(f"Stream {self._stream!r}: two types of event are named {name!r}.")
        read = decoder(cls, f"event {name!r}")
        self.kinds[name] = kind = Kind(name, version, cls, read)
        _ = kind.schema  # raises
        self._reads[name, version] = read

    def encode(self, name: str, value: Any) -> bytes:
        """An event's payload. Raises NotSerialisable."""
        where = f"stream {self._stream!r}: event"
        payload = encode(value, where)
        try:
            self.kinds[name].read(payload)
        except NotDecodable as error:
            raise NotSerialisable(
                where,
                f"the value does not fit its type: {str(error).rstrip('.')}",
                hint="Nothing was appended. Mend the value, or the type's hints.",
            ) from error
        return payload

    def decode(self, event: EventRow) -> Any:
        """The value of an event. Raises UnknownEvent, or NotDecodable where it does not fit its type."""
        read = self._reads.get((event.type, event.version)) or self._find(event)
        return read(event.payload)

    def _find(self, event: EventRow) -> Read:
        name = (event.type, event.version)
        kind = self.kinds.get(event.type)
        if kind is None:
            known = ", ".join(sorted(self.kinds))
            raise UnknownEvent(
                self._name(event), f"its type {event.type!r} is unknown here; known are: {known}",
                hint="Add the type to the stream where it is declared, or deploy the code that has it.",
            )  # fmt: skip
        bridges = kind.bridges
        if event.version > kind.version and not bridges.reach(event.version, kind.version):
            raise self._refused.get(name) or too_new(self._name(event), kind, event.version, "")
        if event.version < kind.version and bridges.up:
            if not bridges.reach(event.version, kind.version):
                lost = max(set(range(event.version, kind.version)) - bridges.up)
                raise UnknownEvent(self._name(event), gap(event.type, lost, "this event is older").what)
            self._reads[name] = read = _After(Path(event.type, event.version, kind.version), kind.read)
            return read
        if event.version > kind.version:
            self._reads[name] = read = _After(Path(event.type, event.version, kind.version), kind.read)
            return read
        self._reads[name] = kind.read
        return kind.read

    def _name(self, event: EventRow) -> str:
        return f"event {event.id!r} of stream {self._stream!r}"

    def unknown(self, events: Iterable[EventRow]) -> set[tuple[str, int]]:
        """Types and versions of these events that are newer than this code's, and that it cannot read yet."""
        met = {(event.type, event.version) for event in events}
        met.difference_update(self._reads)
        return {
            (name, version)
            for name, version in met
            if (kind := self.kinds.get(name)) and version > kind.version
        }

    def learn(self, row: SchemaRow) -> None:
        """Read events of a newer version as ours, if their schema says that it can be done."""
        kind = self.kinds.get(row.type)
        if kind is None or row.version <= kind.version or kind.bridges.reach(row.version, kind.version):
            return
        changes = compare(
            kind.schema, read_schema(row.schema), are_neighbours=row.version == kind.version + 1
        )
        broken = [change for change in changes if "forward" in change.breaks]
        name = (row.type, row.version)
        if not broken:
            self._reads[name] = kind.read
            return
        first = broken[0]
        self._reads.pop(name, None)
        where = f"event of stream {self._stream!r}"
        self._refused[name] = too_new(
            where, kind, row.version, f" ({first.path}: {first.rule}: {first.what})"
        )


def too_new(where: str, kind: Kind, version: int, why: str) -> UnknownEvent:
    """The error for an event of a version that this code does not know, and cannot read."""
    return UnknownEvent(
        where,
        f"it is {kind.name!r} version {version}; this code has {kind.version} and cannot read it{why}",
        hint="Deploy the newer code here, then redrive what was parked; or give this code a @downcast.",
    )


class _After:
    """Reads what casters make of a payload."""

    __slots__ = ("_path", "_read")

    def __init__(self, path: Path, read: Read) -> None:
        self._path = path
        self._read = read

    def __call__(self, payload: bytes) -> Any:
        return self._read(self._path(payload))
