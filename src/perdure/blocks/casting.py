"""`upcast` and `downcast`: functions that take an event from one version to the next, or to the one before.

Law: a caster is pure, and gets and gives plain JSON values. It is applied when an event
is read; what is kept never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from ..codec.json import encode
from ..errors import DefinitionError, NotDecodable

Payload: TypeAlias = dict[str, Any]
Caster: TypeAlias = Callable[[Payload], Payload]

_UP: Final = "upcast"
_DOWN: Final = "downcast"

_casters: dict[tuple[str, str, int], Caster] = {}
"""By direction, type, and the version that it takes."""


def upcast(type: str, version: int) -> Callable[[Caster], Caster]:
    """Have a function make events of a version into those of the next: `@upcast("order.placed", 1)`.

    It gets the event's data as plain JSON values, a dict of its own, and gives that of version + 1. It
    must be pure: it is called whenever such an event is read, in any order, on any thread. Once a type
    has an upcaster, it must have one for each version from the oldest that is kept to the one before the
    current: an engine that finds a gap does not start (DefinitionError). An event on which it raises
    is parked as unreadable. Raises DefinitionError for a second one of the same version.
    """
    return _register(_UP, type, version, least=1)


def downcast(type: str, version: int) -> Callable[[Caster], Caster]:
    """Have a function make events of this type and version into those of the one before.

    For code that still knows only the older version: give it this function, and it reads what newer
    code appends. Otherwise as `upcast`.
    """
    return _register(_DOWN, type, version, least=2)


def _register(direction: str, type: str, version: int, *, least: int) -> Callable[[Caster], Caster]:
    where = f"@{direction}({type!r}, {version!r})"
    if not type or version < least:
        raise DefinitionError(f"{where}: a type of event, and the version that it takes, from {least} on.")
    name = (direction, type, version)

    def register(function: Caster) -> Caster:
        other = _casters.get(name)
        if other is not None and _place(other) != _place(function):
            raise DefinitionError(
                f"{where} stands on {_place(function)}, and on {_place(other)}.", hint="Take one away."
            )
        _casters[name] = function
        return function

    return register


def _place(function: Caster) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def ups_of(type: str, current: int) -> frozenset[int]:
    """The versions below the current one that there are upcasters for."""
    return frozenset(
        version for way, name, version in _casters if (way, name) == (_UP, type) and version < current
    )


def downs_of(type: str) -> frozenset[int]:
    """The versions that there are downcasters for."""
    return frozenset(version for way, name, version in _casters if (way, name) == (_DOWN, type))


class Path:
    """The casters between two versions of a type, in order."""

    __slots__ = ("_steps", "_type")

    def __init__(self, type: str, source: int, target: int) -> None:
        """There must be one for each step."""
        way, steps = (_UP, range(source, target)) if source < target else (_DOWN, range(source, target, -1))
        self._type = type
        self._steps = [(f"{way}({type!r}, {version})", _casters[way, type, version]) for version in steps]

    def __call__(self, payload: bytes) -> bytes:
        """The payload as the target version has it. Raises NotDecodable when a caster fails."""
        value: Any = msgspec.json.decode(payload)
        for name, cast in self._steps:
            try:
                given: Any = cast(value)
                payload = encode(given, name)
            except Exception as error:
                raise NotDecodable(name, f"it raised {type(error).__name__}: {error}") from error
            if not isinstance(given, dict):
                raise NotDecodable(name, f"it gave {type(given).__name__}, and not a dict")
            value = msgspec.json.decode(payload)  # each has plain values, and a dict of its own
        return payload
