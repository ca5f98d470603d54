"""How a client reaches runs: through the store, or through the worker in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from .core.records import Message, MessageKind, NewRun, RunRow, Status
from .errors import RunDamaged
from .runtime.clock import Clock, Source, SystemClock, SystemSource
from .runtime.definitions import WorkflowDefinition
from .stores.base import DROPPED, Batch, Reply, StartOutcome, Store
from .stores.moves import refuse_closed_store

T = TypeVar("T")

_LOOK_FIRST_S = 0.01
_LOOK_LATER_S = 0.25
_OPENS_AGAIN = (MessageKind.RESUME, MessageKind.CANCEL, MessageKind.TERMINATE)


class Door(Protocol):
    """What a client needs of the other side."""

    clock: Clock
    source: Source

    async def read(self, look: Callable[[Store], T]) -> T:
        """Read from the store."""
        ...

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        """Start a run; it is on disk when this returns."""
        ...

    def start_within(
        self, connection: Any, new: NewRun, definition: WorkflowDefinition
    ) -> StartOutcome | Awaitable[StartOutcome]:
        """Start a run in the transaction of a connection; to be awaited where that is. See `Store`."""
        ...

    async def send(self, message: Message) -> int:
        """Send a message; it is on disk when this returns. Its position, or DROPPED or KNOWN."""
        ...

    async def ask(self, message: Message) -> Reply:
        """Send an update and wait for its answer."""
        ...

    async def ended(self, number: int) -> RunRow:
        """Wait until a run has ended or parked."""
        ...

    async def close(self) -> None:
        """Let go of the other side."""
        ...


def stopped_row(store: Store, number: int) -> RunRow | None:
    """The row of a run that has ended or is parked; None while it runs, or is asked to go on or to end."""
    row = store.run_by_number(number)
    if row is not None and row.status == Status.PARKED:
        try:
            if any(message.kind in _OPENS_AGAIN for message in store.messages_for(number)):
                return None
        except RunDamaged:
            pass  # that may be why it is parked
        # Read again: a resume is taken in the commit that opens the run, which may have come in between.
        row = store.run_by_number(number)
    assert row is not None, f"run number {number} was removed while somebody waited for it"
    return None if row.status == Status.RUNNING else row


def reply_or_refuse(store: Store, request: str) -> Reply | None:
    """The answer to a request; None while there is none. Raises StoreMoved if none will come here."""
    reply = store.reply(request)
    if reply is None:
        refuse_closed_store(store)
    return reply


def stopped_or_refuse(store: Store, number: int) -> RunRow | None:
    """The same as `stopped_row`. Raises StoreMoved if the run goes on elsewhere."""
    row = stopped_row(store, number)
    if row is None:
        refuse_closed_store(store)
    return row


async def look_until(told: asyncio.Future[T], look: Callable[[], Awaitable[T | None]]) -> T:
    """Wait until it is told, or found by looking: often at first, four times a second later."""
    wait_s = _LOOK_FIRST_S
    try:
        while not told.done():
            found = await look()
            if found is not None:
                return found
            await asyncio.wait([told], timeout=wait_s)
            wait_s = min(_LOOK_LATER_S, wait_s * 1.5)
        return told.result()
    finally:
        told.cancel()


class StoreDoor:
    """Through the store: for processes that run nothing. A worker takes it from there."""

    def __init__(self, store: Store) -> None:
        self.clock: Clock = SystemClock(offset_ms=store.clock_offset_ms())
        self.source: Source = SystemSource()
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perdure-client")

    async def read(self, look: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, look, self._store)

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        committed = await self.read(lambda store: store.submit(Batch(starts=[new])))
        return committed.starts[0]

    def start_within(
        self, connection: Any, new: NewRun, definition: WorkflowDefinition
    ) -> StartOutcome | Awaitable[StartOutcome]:
        return self._store.start_within(connection, new)

    async def send(self, message: Message) -> int:
        committed = await self.read(lambda store: store.submit(Batch(messages=[message])))
        return committed.messages[0]

    async def ask(self, message: Message) -> Reply:
        if await self.send(message) == DROPPED:
            return Reply(message.request, False, None, 0)
        never: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        return await look_until(
            never, lambda: self.read(lambda store: reply_or_refuse(store, message.request))
        )

    async def ended(self, number: int) -> RunRow:
        never: asyncio.Future[RunRow] = asyncio.get_running_loop().create_future()
        return await look_until(never, lambda: self.read(lambda store: stopped_or_refuse(store, number)))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()
