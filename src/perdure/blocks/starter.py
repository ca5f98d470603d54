"""What a handler of `Stream.start_on` does: start a run for an event, in the commit that marks it as done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..core.retry import Retry
from ..errors import ConflictError, NotSerialisable, PerdureError
from .event import Event
from .starting import start_within
from .workflow import WorkflowCall

E = TypeVar("E")

STARTS_RETRY = Retry(attempts=6, max_delay=300.0, give_up_on=(ConflictError, NotSerialisable))
"""An id that belongs to another run will not come free, nor an argument become storable."""


class Starter(Generic[E]):
    """Calls the user's function, and starts what it gives."""

    def __init__(
        self,
        function: Callable[[Event[E]], WorkflowCall[Any] | None],
        id: Callable[[Event[E]], str] | None,
        name: str | None,
    ) -> None:
        self._function = function
        self._id = id
        self._name = self.__name__ = name or getattr(function, "__name__", repr(function))
        self.__doc__ = function.__doc__

    def __call__(self, event: Event[E], connection: Any) -> None:
        """In the transaction of the connection, which `start_within` finds by itself."""
        call = self._function(event)
        if call is None:
            return
        if not isinstance(call, WorkflowCall):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
            raise PerdureError(
                f"{self._name}() starts runs for events, and gave a {type(call).__name__}, which is no call "
                "of a workflow.",
                hint="Return a call, `return ship(event.data)`, or None to start nothing.",
            )
        start_within(call, id=self._id(event) if self._id is not None else run_id_of(self._name, event))


def run_id_of(name: str, event: Event[Any]) -> str:
    """Names the run of an event: `orders/ships/till/placed-17`; no two events of a store have the same."""
    parts = [event.stream, name, event.source, event.id] if event.source else [event.stream, name, event.id]
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
