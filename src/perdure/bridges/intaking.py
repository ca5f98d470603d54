"""The worker's side of an intake: fetch, append, acknowledge, and begin anew after any failure.

There is one way out of every trouble: let the connection go, wait, connect, and take
what was not acknowledged again. What of it had been written is known by its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ..core.events import Append, Clash, LaneRow, NewEvent, Placed, SubscriptionRow, SubscriptionStanding
from ..errors import BrokerUnavailable
from ..stores.sight import Reading
from .message import Message, Source
from .patience import Patience

if TYPE_CHECKING:
    from ..blocks.stream import Stream
    from ..runtime.driver import Driver

_END_MAY_TAKE_S = 5.0
_END = (1 << 63) - 1


class Taking(Protocol):
    """What is taken in, and what becomes of it: an `Intake`."""

    into: Stream[Any]
    rejected: Stream[Any]
    stream: str
    connect: Callable[[Driver], Awaitable[Source]]

    def read(self, message: Message, now_ms: int) -> NewEvent | None:
        """The event that a message becomes; None for one that is left out. Raises what is wrong with it."""
        ...

    def reject(self, message: Message, reason: str, now_ms: int) -> NewEvent:
        """What is kept of a message that became no event."""
        ...


class Intaking:
    """One intake, in a worker that may take it in."""

    def __init__(self, driver: Driver, definition: Taking, row: SubscriptionRow) -> None:
        """`driver` is a proxy: it outlives this."""
        self._driver = driver
        self._definition = definition
        self.row = row
        self._patience = Patience(driver, f"taking {definition.stream} into stream {definition.into.name!r}")
        self._task: asyncio.Task[None] | None = None
        self.is_quiet = True
        """Whether nothing that was fetched waits to be on disk."""
        self._edition = -1

    @property
    def readings(self) -> list[Reading]:
        """Past the end: there is nothing to look for in the store."""
        return [Reading(self.row.number, self.row.stream, _END, self.is_whole, self._edition)]

    @property
    def is_whole(self) -> bool:
        """There is one lane, and so one worker."""
        return True

    def learn(self, stands: SubscriptionStanding) -> None:
        """It parks nothing, and so nobody redrives; only that it was looked at is known."""
        self._edition = stands.edition

    def keep(self, most: int) -> None:
        """One lane is kept, or there is none."""

    def holds(self, rows: list[LaneRow]) -> bool:
        """It has no place in a stream that people could change."""
        return False

    def take(self, rows: list[LaneRow]) -> None:
        """Take messages in from now on."""
        if rows and self._task is None and not self._patience.ended:
            name = f"{self.row.stream}/{self.row.name}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    def look(self) -> None:
        """Messages come by themselves."""

    async def drain(self) -> None:
        """Fetch no more, and wait until what was fetched is on disk."""
        self._patience.end()
        if self._task is not None:
            await asyncio.wait([self._task])

    def abandon(self) -> None:
        """Stop at once; what is not acknowledged comes again."""
        self._patience.end()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Let what was fetched come to disk, and the connection go."""
        self._patience.end()
        if self._task is not None:
            _, pending = await asyncio.wait([self._task], timeout=_END_MAY_TAKE_S)
            for task in pending:
                task.cancel()
                await asyncio.wait([task], timeout=_END_MAY_TAKE_S)

    async def make_way(self) -> None:
        """As any end."""
        await self.stop()

    # -- taking in -------------------------------------------------------------------------------

    async def _run(self) -> None:
        with suppress(BrokerUnavailable):  # the end, once `ended`
            while not self._patience.ended:
                try:
                    await self._take_in()
                except Exception as error:
                    await self._patience.wait(error)

    async def _take_in(self) -> None:
        source = await self._definition.connect(self._driver)
        try:
            while not self._patience.ended:
                messages = await source.fetch()
                if messages:
                    self.is_quiet = False
                    await self._keep(messages)
                    await source.acknowledge(messages)
                    self.is_quiet = True
                self._patience.over()
        finally:
            self.is_quiet = True
            await source.close()

    async def _keep(self, messages: list[Message]) -> None:
        """Return when all are on disk, as events or as rejected ones."""
        definition, now_ms = self._definition, self._driver.clock.now_ms()
        taken: list[tuple[Message, NewEvent]] = []
        rejected: list[NewEvent] = []
        for message in messages:
            try:
                new = definition.read(message, now_ms)
            except (Exception, SystemExit) as error:  # a function of the user's must not end the worker
                rejected.append(definition.reject(message, f"{type(error).__name__}: {error}", now_ms))
            else:
                if new is not None:
                    taken.append((message, new))
        into = definition.into.name
        while isinstance(outcome := await self._append(into, [new for _, new in taken]), Clash):
            message, new = taken.pop(outcome.place)
            reason = f"The stream has another event with id {new.id!r} from source {new.source!r}."
            rejected.append(definition.reject(message, reason, now_ms))
        while isinstance(outcome := await self._append(definition.rejected.name, rejected), Clash):
            del rejected[outcome.place]  # it was rejected before, for another reason

    async def _append(self, stream: str, events: list[NewEvent]) -> list[Placed] | Clash:
        if not events:
            return []
        committer = self._driver.committer
        if committer.error is not None:
            raise committer.error
        told: asyncio.Future[list[Placed] | Clash] = asyncio.get_running_loop().create_future()

        def on_append(outcome: list[Placed] | Clash | Exception) -> None:
            if told.done():
                return
            told.set_exception(outcome) if isinstance(outcome, Exception) else told.set_result(outcome)

        committer.add_append(Append(stream, events), on_append)
        return await told
