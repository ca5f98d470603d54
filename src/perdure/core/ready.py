"""What waits for its turn on a run's loop: callbacks, timers, and the queue of what is ready."""

from __future__ import annotations

import sys
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any


class Handle:
    """A callback that waits for its turn."""

    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        """Take the callback back; it will not run."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self.callback is None


class TimerHandle(Handle):
    """A callback that waits for a time."""

    __slots__ = ("_when",)

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self._when


class Ready(deque[Handle]):
    """The callbacks that are ready, shared by all loops of a thread: only one pumps, and pumps to idle.

    Pumping happens inside `with ready:`, around one pump or a batch of them. It
    keeps what the thread had before: its running loop and its hooks for async
    generators, which each pump sets to its own and nobody sets back in between.
    """

    __slots__ = ("_depth", "_hooks", "_outer", "pumping", "set_for")

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._hooks: Any = None
        self._outer: Any = None
        self.set_for: object = None
        """The loop that is the running one now, with its hooks."""
        self.pumping: object = None
        """The loop whose callbacks run now."""

    def __enter__(self) -> None:
        if self._depth == 0:
            self._hooks = sys.get_asyncgen_hooks()
            self._outer = _get_running_loop()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            # Also after a KeyboardInterrupt: what was ready belongs to that run alone.
            self.clear()
            self.pumping = self.set_for = None
            sys.set_asyncgen_hooks(*self._hooks)
            _set_running_loop(self._outer)


class _Nowhere(Ready):
    """Where callbacks of a dead loop go."""

    def append(self, x: Handle, /) -> None:
        """Forget it."""


NOWHERE = _Nowhere()
"""What a dead loop has in place of its own."""
