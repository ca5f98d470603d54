"""What a client does with event streams: append to them, and see to their subscriptions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from ..blocks.event import Appended, position_text
from ..blocks.handler import Handler
from ..blocks.stream import Stream, placed_or_refuse
from ..core.events import Append
from ..doors import Door
from .subscription import Subscription

E = TypeVar("E")


class Streaming(ABC):
    """The part of a client that is about event streams."""

    @property
    @abstractmethod
    def door(self) -> Door:
        """The way to the store. Raises PerdureError when it is not open."""

    async def append(
        self,
        stream: Stream[E],
        value: E,
        *,
        id: str | None = None,
        time: datetime | None = None,
        source: str = "",
    ) -> Appended:
        """Append an event. It is on disk when this returns, and every handler of the stream will get it.

        With an `id`, appending the same event again is harmless, for as long as the stream keeps it: it
        is one event, by its source and id. `time` is when it happened; by default now.

        Raises DuplicateConflict if the id stands for an event with other content, NotSerialisable for
        a value that is not of the stream's type or whose key cannot be told; nothing is written then.
        """
        new = stream.new_event(value, self._draw(), self.door.clock.now_ms(), id=id, time=time, source=source)
        (placed,) = placed_or_refuse(append := Append(stream.name, [new]), await self.door.append(append))
        return Appended(position_text(placed.position), placed.is_duplicate)

    async def append_batch(
        self, stream: Stream[E], values: Iterable[E], *, source: str = ""
    ) -> list[Appended]:
        """Append many events, all or none, in their order. Otherwise as `append`."""
        drawn, now_ms = self._draw(), self.door.clock.now_ms()
        append = Append(
            stream.name,
            [
                stream.new_event(value, f"{drawn}-{number}", now_ms, id=None, time=None, source=source)
                for number, value in enumerate(values)
            ],
        )
        placed = placed_or_refuse(append, await self.door.append(append))
        return [Appended(position_text(one.position), one.is_duplicate) for one in placed]

    def subscription(self, handler: Handler[Any] | str, stream: str = "") -> Subscription:
        """A handle on the place of a handler in its stream; making it asks nothing.

        Of the handler itself, or of its name and the stream's.
        """
        if isinstance(handler, str):
            return Subscription(lambda: self.door, stream, handler)
        return Subscription(lambda: self.door, handler.stream, handler.name)

    def _draw(self) -> str:
        return self.door.source.bytes(16).hex()
