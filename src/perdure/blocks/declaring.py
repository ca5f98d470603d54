"""What streams and handlers are declared with, and what is appended: refused by name where it cannot be.

Law: what is wrong in a declaration is said at that line, and not when the first event comes.
Many who call have no type checker, so types are looked at, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import DefinitionError, NotSerialisable
from .workflow import Workflow

_UNNAMED = "<lambda>"


def check_key(stream: str, key: object) -> None:
    """Raise DefinitionError for a key that is no function."""
    if key is not None and not callable(key):
        raise DefinitionError(
            f"Stream {stream!r}: key={key!r} is no function.", hint="Write key=lambda event: event.customer."
        )


def check_on(where: str, *, concurrency: int, order: str, begin: str, on_exhausted: str) -> None:
    """Raise DefinitionError for options of `Stream.on` that cannot be."""
    if concurrency < 1 or order not in ("key", "stream", "none") or begin not in ("first", "next"):
        raise DefinitionError(
            f"{where}(concurrency={concurrency!r}, order={order!r}, begin={begin!r}) cannot be.",
            hint="concurrency from 1 on; order 'key', 'stream' or 'none'; begin 'first' or 'next'.",
        )
    if on_exhausted not in ("park_key", "park_event", "stop"):
        raise DefinitionError(
            f"{where}(on_exhausted={on_exhausted!r}) cannot be.",
            hint="It is 'park_key', 'park_event' or 'stop'.",
        )


def no_such_type(stream: str, kind: object, kinds: Iterable[type]) -> DefinitionError:
    """The error for what is none of a stream's types of event."""
    if inspect.isroutine(kind):
        return DefinitionError(
            f"A decorator of stream {stream!r} stands on {kind.__name__}() without parentheses.",
            hint="Write @stream.on(), or @stream.on(OrderPlaced) for the events of one type.",
        )
    known = ", ".join(sorted(one.__name__ for one in kinds))
    return DefinitionError(f"Stream {stream!r} has no events of type {kind!r}. It has: {known}.")


def check_function(
    function: Callable[..., Any], where: str, name: str | None, *, given: tuple[str, ...], may_wait: bool
) -> None:
    """Raise DefinitionError for a function that has no name, or cannot be called with these.

    `may_wait`: whether it may be async.
    """
    if isinstance(function, Workflow):
        raise DefinitionError(
            f"{where}(…): {function.name}() is a workflow, and no function that handles an event.",
            hint="To start a run for each event: @stream.start_on(), above a function that returns the call.",
        )
    known = name or getattr(function, "__name__", repr(function))
    if known == _UNNAMED:
        raise DefinitionError(
            f"{where}(…): a lambda has no name, by which its place in the stream would be kept.",
            hint="Write a function with `def`, or give it a name=….",
        )
    if not may_wait and inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"{where}(…): {known}() is async, and is called within a commit, which would wait for it.",
            hint="Write `def`; what takes longer belongs into a run, or a handler without transaction=True.",
        )
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        raise DefinitionError(
            f"{where}(…): {known}() is called with the {' and the '.join(given)}, which it refuses: {error}.",
            hint="A handler takes the event; with transaction=True the event and a connection; "
            "a function over windows takes the state and the event.",
        ) from error
    except ValueError:  # no signature can be had: of a builtin
        return


def not_of_stream(stream: str, value: object, kinds: Iterable[type]) -> NotSerialisable:
    """The error for a value that is none of a stream's types of event."""
    known = ", ".join(sorted(kind.__name__ for kind in kinds))
    where = f"stream {stream!r}: event"
    if isinstance(value, type):
        return NotSerialisable(
            where, f"it is the class {value.__name__}, and no event", hint=f"Call it: {value.__name__}(…)."
        )
    kind = type(value)
    declare = f", or declare the type where the stream is: Stream({stream!r}, … | {kind.__name__})"
    return NotSerialisable(
        where,
        f"it is of type {kind.__name__}, and the stream is of {known}",
        hint=f"Append one of these{'' if kind.__module__ == 'builtins' else declare}.",
    )


def no_key(stream: str, value: object, why: str) -> NotSerialisable:
    """The error for a value whose key cannot be told. What is in the value is not: it may be secret."""
    return NotSerialisable(
        f"stream {stream!r}: key of a {type(value).__name__}",
        why,
        hint="Mend the function that the stream has as key=…: it gives a text for every event.",
    )
