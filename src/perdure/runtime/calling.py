"""Calls a handler with an event, on the loop or on a thread, and looks at what it gives back.

A handler is done when it returns. An awaitable that it returns is awaited; a generator is
refused, since none of its code has run. Any other value means nothing, and is said so once.
"""

from __future__ import annotations

import inspect
import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ..errors import NotHandled
from .handlers import HandlerDefinition

if TYPE_CHECKING:
    from .effects import Effects

_log = logging.getLogger("perdure")


class Caller:
    """Calls one handler."""

    def __init__(self, definition: HandlerDefinition, effects: Effects) -> None:
        self._function = definition.fn
        self._name = f"{definition.name}() of stream {definition.stream!r}"
        self._effects = effects
        self._is_async = definition.is_async
        self._has_complained = False

    async def call(self, given: Any) -> None:
        """Call it, and wait until it is done. Raises what it raises, and NotHandled."""
        if self._is_async:
            returned = await self._function(given)
        else:
            context = copy_context()
            returned = await self._effects.on_thread(lambda: context.run(self._function, given))
            if inspect.isawaitable(returned):
                returned = await returned
        if returned is None:
            return
        if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
            raise NotHandled(
                f"Handler {self._name} returned a generator: none of its code has run.",
                hint="Call the generator in the handler, or do without `yield`.",
            )
        if not self._has_complained:
            self._has_complained = True
            kind = type(returned).__name__
            _log.warning(
                "Handler %s returned a value (%s) that nobody gets. The event is done.", self._name, kind
            )
