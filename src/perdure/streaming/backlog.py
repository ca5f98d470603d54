"""How much waits to be written: so much, and no more, is kept in memory for those who append."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..core.events import NewEvent
from ..errors import Backpressure

EVENTS_MAX = 10_000
BYTES_MAX = 64 * 1024 * 1024


class Backlog:
    """The events of a client that are on their way to disk. Those that find no room wait in order."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether no more is to be taken in."""
        return self.events >= EVENTS_MAX or self.bytes >= BYTES_MAX

    async def wait(self) -> None:
        """Wait for room: behind those who wait already."""
        if not self._waiting and not self.is_full:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled() and waiter in self._waiting:
                self._waiting.remove(waiter)
            # One at a time: it has not yet said how much it brings.
            asyncio.get_running_loop().call_soon(self._let_in)

    def refuse_if_full(self, stream: str) -> None:
        """Raise Backpressure if there is no room now, or others wait for it."""
        if self._waiting or self.is_full:
            raise Backpressure(
                f"Nothing was appended to stream {stream!r}: {self.events:,} events of {self.bytes:,} bytes "
                "wait to be written, and the store does not keep up.",
                hint="Await append(…), which waits for room; or shed the event, or answer 429.",
            )

    def enter(self, events: Sequence[NewEvent], written: asyncio.Future[Any]) -> None:
        """Count events until `written` is done."""
        count, size = len(events), sum(len(event.payload) for event in events)
        self.events += count
        self.bytes += size
        written.add_done_callback(lambda _: self._leave(count, size))

    def _leave(self, count: int, size: int) -> None:
        self.events -= count
        self.bytes -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and not self.is_full:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
