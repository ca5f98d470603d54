"""The lookout: when to look for what other processes have written.

Into a file it is looked fifty times a second whether anything was written at all, which
costs a few microseconds, and only then for what; once a second all is looked for in any
case: a worker that died writes nothing. A server tells; and once a second it is asked, in
one statement, whether there is anything, since it may not have told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ..stores.base import Store

_TICK_S = 0.02
_TICK_OF_SERVER_S = 1.0
_BETWEEN_LOOKS_S = 0.01
_TICKS_FOR_ALL = 50


class Lookout:
    """Calls on those that look, at the right times."""

    def __init__(
        self,
        store: Store,
        look_for_messages: Callable[[], None],
        look_for_runs: Callable[[], None],
        look_for_more: Callable[[], None],
        glance: Callable[[], None],
    ) -> None:
        """`glance` asks whether there are messages or runs; `look_for_more`: for what it does not tell."""
        self._store = store
        self._look_for_more = look_for_more
        self._look_for_messages = look_for_messages
        self._look_for_runs = look_for_runs
        self._glance = glance
        self._loop = asyncio.get_running_loop()
        self._ticks = 0
        self._looked_at_s = 0.0
        self._soon: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on when there may be something."""
        if not self._store.reads_block:
            self._timer = self._loop.call_later(_TICK_S, self._tick_file)
        elif self._store.listen(self._hear):
            self._tick_server()
            self._look()  # nobody heard before
        else:
            self._tick_deaf()

    def stop(self) -> None:
        """Look no more."""
        for timer in (self._timer, self._soon):
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        self._look_for_messages()
        self._look_for_runs()
        self._look_for_more()

    def _hear(self) -> None:
        """The store tells, on a thread of its own."""
        with suppress(RuntimeError):  # the loop is closed: nobody looks any more
            self._loop.call_soon_threadsafe(self._look_soon)

    def _look_soon(self) -> None:
        """At once, or a moment after the last look: under load one look is for many."""
        if self._soon is None:
            wait_s = self._looked_at_s + _BETWEEN_LOOKS_S - self._loop.time()
            self._soon = self._loop.call_later(max(0.0, wait_s), self._look_once)

    def _look_once(self) -> None:
        self._soon, self._looked_at_s = None, self._loop.time()
        self._look()

    def _tick_file(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._tick_file)
        self._ticks = (self._ticks + 1) % _TICKS_FOR_ALL
        if self._store.changed() or not self._ticks:
            self._look()

    def _tick_server(self) -> None:
        self._timer = self._loop.call_later(_TICK_OF_SERVER_S, self._tick_server)
        self._ask()

    def _tick_deaf(self) -> None:
        """A server that cannot tell, behind a pooler perhaps, is asked more often."""
        self._timer = self._loop.call_later(_TICK_OF_SERVER_S / 4, self._tick_deaf)
        self._ask()

    def _ask(self) -> None:
        self._glance()
        self._look_for_more()
