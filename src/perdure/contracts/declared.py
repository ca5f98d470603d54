"""What modules declare: streams, and the values of runs that a store keeps for them.

A value is known by what it is (`event`, `input`, `result`, `signal`, `update`, `state`),
by its name, and for an event by its stream and version. Only events have versions: what
runs hold is read by the code as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal, NamedTuple, cast

from ..blocks.signal import Named, Signal
from ..blocks.state import State
from ..blocks.step import Step
from ..blocks.stream import Stream
from ..blocks.update import Update
from ..blocks.workflow import Workflow
from ..schemas.making import Schema, record_schema, schema_of

What = Literal["event", "input", "result", "signal", "update", "state"]


class Name(NamedTuple):
    """Which value."""

    what: What
    name: str
    """The type of event; or the workflow, step, signal, update or state."""
    stream: str = ""
    version: int = 1

    def __str__(self) -> str:
        """`order.placed version 2 of stream orders`, `result of charge()`, `signal approval`."""
        if self.what == "event":
            return f"{self.name} version {self.version} of stream {self.stream}"
        if self.what in ("input", "result"):
            return f"{self.what} of {self.name}()"
        return f"{self.what} {self.name}"


@dataclass(frozen=True, slots=True)
class Value:
    """A value that the code declares."""

    name: Name
    schema: Callable[[], Schema]
    """Raises DefinitionError for a type that has none."""
    read: Callable[[bytes], object]
    """Raises NotDecodable."""


@dataclass(slots=True)
class Declared:
    """All that some modules declare."""

    streams: dict[str, Stream[Any]]
    values: dict[Name, list[Value]]
    """What runs hold. Two steps may have one name: then a value may fit either."""

    def events(self) -> Iterator[Name]:
        """The types of events, at the versions that the code has of them."""
        for stream in self.streams.values():
            for kind in stream.versions.kinds.values():
                yield Name("event", kind.name, stream.name, kind.version)


def declared_in(modules: Iterable[ModuleType]) -> Declared:
    """What stands in these modules, also what they import from others."""
    declared = Declared({}, {})
    seen: set[int] = set()
    for module in modules:
        for thing in vars(module).values():
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if isinstance(thing, Stream):
                declared.streams[thing.name] = thing
            for value in _values_of(thing):
                declared.values.setdefault(value.name, []).append(value)
    return declared


def _values_of(thing: Any) -> Iterator[Value]:
    if isinstance(thing, Workflow):
        arguments = thing.arguments
        schema = partial(_input_schema, thing)
        yield Value(Name("input", thing.name), schema, arguments.decode_object)
        yield Value(
            Name("result", thing.name), lambda: schema_of(arguments.result_hint), arguments.read_result
        )
    elif isinstance(thing, Step):
        given = thing.arguments
        yield Value(Name("result", thing.name), lambda: schema_of(given.result_hint), given.read_result)
    elif isinstance(thing, Named):
        named = cast("Named[Any]", thing)
        for kind, what in _NAMED:
            if isinstance(named, kind):
                yield Value(Name(what, named.name), lambda: schema_of(named.hint), named.decode)


_NAMED: tuple[tuple[type[Named[Any]], What], ...] = ((Signal, "signal"), (Update, "update"), (State, "state"))


def _input_schema(workflow: Workflow[Any, Any]) -> Schema:
    # A stored input that has an argument more is refused when it is read.
    return record_schema(workflow.name, workflow.arguments.fields, strict=True)
