"""What a program has to do with event streams: its streams, its handlers, and where it appends.

Of a module, of what stands beside it in its package or folder, and of what it imports
from elsewhere. Appends are found in the source, where a stream is named; which types go
there, where the value is made in the call. No function is called.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..blocks.handler import Handler
from ..blocks.serving import defined_handlers
from ..blocks.stream import Stream
from ..bridges.intake import Intake

_APPENDS = {"append": False, "append_batch": True}


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that reads events of a stream, or writes them."""

    name: str
    action: str
    """`receive` or `send`."""
    stream: str
    types: tuple[str, ...]
    """Names of types of event, sorted; all of the stream's where it is not known which."""
    about: str
    """The first line of its text; may be empty."""


@dataclass(frozen=True, slots=True)
class Program:
    """Streams by name, each with its types of event by name; and the operations."""

    streams: dict[str, dict[str, tuple[type, int]]]
    operations: list[Operation]


def find_program(module: ModuleType) -> Program:
    """Look through a module that has been imported, and what belongs to it."""
    modules = list(_modules_of(module))
    streams: dict[str, dict[str, tuple[type, int]]] = {}
    for stream in _streams_of(modules):
        for one in (stream, *(bridge.rejected for bridge in stream.bridges if isinstance(bridge, Intake))):
            known = streams.setdefault(one.name, {})
            known.update({name: (kind, version) for kind, (name, version) in one.kinds.items()})
    operations = [*_handlers(streams, modules), *_intakes(modules)]
    for each in modules:
        operations += _appends_in(each)
    order = sorted(set(operations), key=lambda one: (one.stream, one.action, one.name))
    return Program(dict(sorted(streams.items())), order)


def _modules_of(module: ModuleType) -> Iterator[ModuleType]:
    """The module, the others of its package, and those of the same folder if it is in none."""
    top = module.__name__.partition(".")[0]
    is_package = "." in module.__name__ or hasattr(module, "__path__")
    folder = None if is_package or not module.__file__ else Path(module.__file__).resolve().parent
    for name, each in sorted(sys.modules.items()):
        file = getattr(each, "__file__", None)
        beside = folder is not None and file is not None and Path(file).resolve().parent == folder
        if name.partition(".")[0] == top or beside:
            yield each


def _streams_of(modules: Iterable[ModuleType]) -> list[Stream[Any]]:
    found: dict[int, Stream[Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Stream):
                stream = cast("Stream[Any]", value)
                found[id(stream)] = stream
    return sorted(found.values(), key=lambda stream: stream.name)


def _handlers(
    streams: dict[str, dict[str, tuple[type, int]]], modules: Iterable[ModuleType]
) -> Iterator[Operation]:
    names = {module.__name__ for module in modules}
    relays = {id(bridge) for stream in _streams_of(modules) for bridge in stream.bridges}
    for handler in defined_handlers():
        if not isinstance(handler, Handler) or handler.stream not in streams:
            continue
        ours = cast("Handler[Any]", handler)
        if getattr(ours.fn, "__module__", "") in names or id(ours) in relays:
            types = ours.types or frozenset(streams[ours.stream])
            yield Operation(ours.name, "receive", ours.stream, tuple(sorted(types)), _about(ours.__doc__))


def _intakes(modules: Iterable[ModuleType]) -> Iterator[Operation]:
    for stream in _streams_of(modules):
        for bridge in stream.bridges:
            if isinstance(bridge, Intake):
                types = tuple(sorted(name for name, _ in stream.kinds.values()))
                intake = cast("Intake[Any]", bridge)
                about = f"Takes in {intake.stream}."
                yield Operation(f"{intake.name}.{intake.stream}", "send", stream.name, types, about)


def _appends_in(module: ModuleType) -> Iterator[Operation]:
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return
    for name, function in _functions(tree.body, ""):
        found: dict[str, set[str]] = {}
        for stream, types in _appends(function, vars(module)):
            found.setdefault(stream.name, set()).update(types)
        for number, (stream_name, types) in enumerate(sorted(found.items())):
            unique = name if number == 0 and len(found) == 1 else f"{name}.{stream_name}"
            about = _about(ast.get_docstring(function))
            yield Operation(unique, "send", stream_name, tuple(sorted(types)), about)


def _functions(
    body: Iterable[ast.stmt], inside: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions of a module and methods of its classes, by qualified name."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inside + node.name, node


def _appends(function: ast.AST, names: dict[str, Any]) -> Iterator[tuple[Stream[Any], set[str]]]:
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        is_batch = _APPENDS.get(node.func.attr)
        if is_batch is None:
            continue
        receiver = _value_of(node.func.value, names)
        first = _value_of(node.args[0], names) if node.args else None
        if isinstance(receiver, Stream):
            stream, value = cast("Stream[Any]", receiver), _argument(node, 0)
        elif isinstance(first, Stream):
            stream, value = cast("Stream[Any]", first), _argument(node, 1)
        else:
            continue
        yield stream, set(_types_of(value, stream, names)) or {name for name, _ in stream.kinds.values()}


def _argument(call: ast.Call, place: int) -> ast.expr | None:
    if len(call.args) > place:
        return call.args[place]
    return next((one.value for one in call.keywords if one.arg in ("value", "values")), None)


def _types_of(value: ast.expr | None, stream: Stream[Any], names: dict[str, Any]) -> Iterator[str]:
    """The types of event that an expression makes, as far as it says so; none where it does not."""
    match value:
        case ast.Call(func=func):
            made = stream.kinds.get(_value_of(func, names))
            if made is not None:
                yield made[0]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            each = [set(_types_of(part, stream, names)) for part in parts]
            if all(each):
                yield from set[str]().union(*each)
        case ast.ListComp(elt=part) | ast.GeneratorExp(elt=part):
            yield from _types_of(part, stream, names)
        case _:
            pass


def _value_of(expression: ast.expr, names: dict[str, Any]) -> Any:
    """What a name of the module stands for, also `events.orders`; None for anything else."""
    match expression:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=value, attr=attribute):
            return getattr(_value_of(value, names), attribute, None)
        case _:
            return None


def _about(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
