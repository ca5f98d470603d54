"""The door that the function of a shadow gets in place of a client's own: nothing goes through that writes.

What cannot be held back, because its answer would be needed, is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from ..core.events import Append, Clash, Placed
from ..core.holding import Holding, held_here
from ..core.records import Message, NewRun, RunRow, Status
from ..doors import Door
from ..errors import StreamError
from ..stores.base import Reply, StartOutcome, Store

T = TypeVar("T")


def door_or_held(door: Door) -> Door:
    """The door itself; where the function of a shadow runs, one that holds back what would go through."""
    holding = held_here.get()
    return door if holding is None else HeldDoor(door, holding)


class _Drawing:
    """A source that notes which ids would be drawn from what it gives."""

    def __init__(self, source: Any, drawn: set[str]) -> None:
        self._source = source
        self._drawn = drawn

    def bytes(self, count: int) -> bytes:
        found: bytes = self._source.bytes(count)
        self._drawn.add(found[16:].hex())
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class HeldDoor:
    """Reads through another door, and writes down what would go through it."""

    def __init__(self, door: Door, holding: Holding) -> None:
        self._door = door
        self._holding = holding
        self.clock = door.clock
        self.source: Any = _Drawing(door.source, holding.drawn)

    async def read(self, look: Callable[[Store], T]) -> T:
        return await self._door.read(look)

    async def write(self, verb: Callable[[Store], T]) -> T:
        _refuse("changes what is kept of handlers")

    async def start(self, new: NewRun, definition: Any) -> StartOutcome:
        return self._start(new)

    def start_within(self, connection: Any, new: NewRun, definition: Any) -> StartOutcome:
        return self._start(new)

    def _start(self, new: NewRun) -> StartOutcome:
        self._holding.start(new, is_named=new.id not in self._holding.drawn)
        row = RunRow(
            0, new.id, 1, new.workflow, int(Status.RUNNING), new.input, None, new.seed, None, 0,
            new.deadline_ms, None, "", "", new.created_at_ms, None, new.python,
        )  # fmt: skip
        return StartOutcome("started", row)

    async def send(self, message: Message) -> int:
        self._holding.send(message)
        return 1

    def append(self, append: Append) -> asyncio.Future[list[Placed] | Clash]:
        told: asyncio.Future[list[Placed] | Clash] = asyncio.get_running_loop().create_future()
        told.set_result(self._holding.append(append))
        return told

    def append_within(self, connection: Any, append: Append, register: Any = None) -> list[Placed] | Clash:
        return self._holding.append(append)

    async def ask(self, message: Message) -> Reply:
        _refuse("waits for the answer to an update")

    async def ended(self, number: int) -> RunRow:
        _refuse("waits for a run")

    async def close(self) -> None:
        """It is another's."""


def _refuse(what: str) -> NoReturn:
    raise StreamError(
        f"The function of a shadow {what}: that cannot be held back, so it was refused. Nothing was done.",
        hint="Leave it out where `event.is_shadow` is true.",
    )
