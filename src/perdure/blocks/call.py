"""A call: what `charge(order)` and `checkout(order)` give.

A call is a coroutine object (`collections.abc.Coroutine`) that knows its
definition and its arguments, so that `gather`, `create_task` and `TaskGroup`
take it, and so that whoever gets it decides what to do with it: await it, start
it, schedule it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..core.host import Host, current_host

R = TypeVar("R")


class Call(Coroutine[Any, Any, R], Generic[R]):
    """A typed call of a step or workflow, not yet begun."""

    __slots__ = ("_begun", "_host", "_iterator", "args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self._host: Host | None = current_host.get(None)
        self._begun = False
        self._iterator: Generator[Any, Any, R] | None = None

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, R]: ...

    @abstractmethod
    def describe(self) -> str:
        """The call as text, for messages: `charge(Order(id='17', …))`."""

    def claim(self) -> None:
        """Somebody has taken charge of this call: it need not be awaited by the one who made it."""
        self._begun = True

    def send(self, value: Any) -> Any:
        """Go on; what asyncio calls when the call itself is a task's coroutine."""
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = self.__await__()
        return iterator.send(value)

    def throw(  # type: ignore[override]
        self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None
    ) -> Any:
        """Raise inside; what asyncio calls to cancel."""
        if self._iterator is None:
            self._begun = True
            raise typ if isinstance(typ, BaseException) else (val if isinstance(val, BaseException) else typ)
        if val is None and tb is None:
            return self._iterator.throw(typ)
        return self._iterator.throw(typ, val, tb)

    def close(self) -> None:
        """Give the call up."""
        self._begun = True
        if self._iterator is not None:
            self._iterator.close()

    def __del__(self) -> None:
        # Python warns of a coroutine that was never awaited; in a run that is a step
        # that silently did not happen, so there it stops the run.
        if not self._begun and self._host is not None:
            self._host.not_awaited(self.describe())

    def __repr__(self) -> str:
        return f"<call {self.describe()}>"
