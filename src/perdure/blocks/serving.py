"""The handlers that are defined in a process, and those of them that an engine serves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator

from ..errors import DefinitionError
from ..runtime.subscriptions import Subscribing


class _Defined:
    """Every handler and every bridge that lives in this process."""

    def __init__(self) -> None:
        self._handlers: weakref.WeakSet[Subscribing] = weakref.WeakSet()
        self.count = 0
        """How many there have been."""

    def add(self, handler: Subscribing) -> None:
        self._handlers.add(handler)
        self.count += 1

    def __iter__(self) -> Iterator[Subscribing]:
        return iter(list(self._handlers))


_defined = _Defined()


def define(handler: Subscribing) -> None:
    """Have the engines of this process serve it, for as long as somebody holds it."""
    _defined.add(handler)


def defined_handlers() -> list[Subscribing]:
    """Every handler and every bridge that lives in this process, by stream and name."""
    return sorted(_defined, key=lambda one: (one.stream, one.name))


class Handlers:
    """The handlers that one engine serves."""

    def __init__(self, wanted: Iterable[Subscribing] | None = None) -> None:
        """`wanted`: only these; None: all that are defined in this process, now or later.

        Raises DefinitionError for what is no handler.
        """
        self._wanted = None if wanted is None else _checked(wanted)
        self._seen = -1

    def news(self) -> list[Subscribing]:
        """All of them; nothing if no other was defined since this was asked last.

        Raises DefinitionError for two of one name.
        """
        if self._seen == _defined.count or (self._seen >= 0 and self._wanted is not None):
            return []
        self._seen = _defined.count
        found, twins = _by_name(_defined if self._wanted is None else self._wanted)
        if twins is not None:
            gc.collect()  # one that nobody uses any more may only not have been collected yet
            found, twins = _by_name(_defined if self._wanted is None else self._wanted)
        if twins is not None:
            raise DefinitionError(
                f"Stream {twins.stream!r} has two handlers named {twins.name!r}: they would share a place.",
                hint="Rename one, or give it a name of its own: @stream.on(…, name='…').",
            )
        return [found[name] for name in sorted(found)]


def _checked(wanted: Iterable[Subscribing]) -> list[Subscribing]:
    # Not all who call have a type checker.
    if not isinstance(wanted, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"handlers={wanted!r} is no list.", hint="Write handlers=[…].")
    found = list(wanted)
    for one in found:
        if not callable(getattr(one, "serve", None)):
            name = getattr(one, "__name__", repr(one))
            raise DefinitionError(
                f"Engine(handlers=[…]): {name} is no handler.",
                hint="Put @stream.on() above the function, and pass what that makes of it.",
            )
    return found


def _by_name(
    handlers: Iterable[Subscribing],
) -> tuple[dict[tuple[str, str], Subscribing], Subscribing | None]:
    """The handlers by stream and name; and one that has the name of another."""
    found: dict[tuple[str, str], Subscribing] = {}
    twin: Subscribing | None = None
    for handler in handlers:
        if found.setdefault((handler.stream, handler.name), handler) is not handler:
            twin = handler
    return found, twin
