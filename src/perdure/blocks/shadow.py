"""`Shadow`: a handler beside another one, which gets the same events, and whose effects are held back.

Law: nothing that its function does through Perdure is done. It is written into a stream of its own,
an event for each event that was handled; what it wrote in a transaction is rolled back. What a function
does to the world by itself is done: it is told by `event.is_shadow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.events import Append, Clash, EventRow, Placed, SubscriptionRow
from ..core.holding import Effect, Holding, held_here
from ..errors import DefinitionError
from ..runtime.calling import Caller
from ..runtime.subscriber import Subscriber
from ..runtime.subscriptions import Served
from .event import Event, event
from .handler import Handler
from .stream import Stream

if TYPE_CHECKING:
    from ..runtime.driver import Driver

E = TypeVar("E")

_SAVEPOINT = "perdure_shadow"


@event("perdure.held")
@dataclass(frozen=True, slots=True)
class Held:
    """What a shadow would have done with an event."""

    position: str
    """Of the event."""
    key: str
    effects: Sequence[Effect]


class Shadow(Handler[E]):
    """A handler whose effects are held back; made by `Subscription.fork`, served while somebody has it."""

    def __init__(self, of: Handler[E], name: str) -> None:
        """`name` says which shadow of the handler it is. Raises DefinitionError for what has no function.

        An engine serves it once it is defined.
        """
        if type(of) is not Handler:
            raise DefinitionError(
                f"{of!r} has no shadow: its results are events already, or go to a broker.",
                hint="Give another window or join a name of its own, and compare their streams.",
            )
        self.of = of
        """The handler whose function it calls."""
        self.held: Stream[Held] = Stream(held_name(of.stream, shadow_name(of.name, name)), Held, key=_key_of)
        """Where it is written what it would have done."""
        super().__init__(
            of.stream, of.fn, types=of.types, source=of._source, name=shadow_name(of.name, name),
            concurrency=of.concurrency, order=of.order, retry=of.retry, from_start=True,
            on_exhausted=of.on_exhausted, in_transaction=of.in_transaction, is_defined=False,
        )  # fmt: skip

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Event[Any]:
        """What the function gets, with the idempotency key that the handler itself has for the event."""
        return replace(self.of.read(event, subscription, attempt), is_shadow=True)

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Deliver events to it in this worker; for the runtime."""
        served = copy(self)
        if self.in_transaction:
            served.fn = self._handle_in_transaction
        else:
            attempting = _Attempting(self, driver)
            served.fn, served.is_async = attempting.handle, True
        return Subscriber(driver, served, row)

    def told(self, event: Event[Any], holding: Holding) -> tuple[Held, str]:
        """What is written of an event, and the id of that: other effects are another event."""
        held = Held(event.position, event.key, tuple(holding.effects))
        digest = blake2b(repr(held.effects).encode(), digest_size=8).hexdigest()
        return held, f"{event.position}/{digest}"

    def _handle_in_transaction(self, event: Event[Any], connection: Any) -> None:
        holding = Holding()
        token = held_here.set(holding)
        connection.execute(f"SAVEPOINT {_SAVEPOINT}")
        try:
            self.of.fn(event, connection)
        finally:
            held_here.reset(token)
            connection.execute(f"ROLLBACK TO {_SAVEPOINT}")
            connection.execute(f"RELEASE {_SAVEPOINT}")
        held, name = self.told(event, holding)
        self.held.append_within(held, id=name)

    def __repr__(self) -> str:
        return f"<shadow {self.name} of stream {self.stream}>"


class _Attempting:
    """Calls the function in one worker."""

    def __init__(self, shadow: Shadow[Any], driver: Driver) -> None:
        self._shadow = shadow
        self._driver = driver
        self._caller = Caller(shadow.of, driver.effects)

    async def handle(self, event: Event[Any]) -> None:
        """The event is done when it is on disk what would have been done."""
        holding = Holding()
        token = held_here.set(holding)
        try:
            await self._caller.call(event)
        finally:
            held_here.reset(token)
        held, name = self._shadow.told(event, holding)
        stream, now_ms = self._shadow.held, self._driver.clock.now_ms()
        new = stream.new_event(held, "", now_ms, id=name, time=None, source="")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._driver.committer.add_append(Append(stream.name, [new]), partial(_tell, written))
        await written


def _tell(written: asyncio.Future[None], outcome: list[Placed] | Clash | Exception) -> None:
    if written.done():
        return
    if isinstance(outcome, Exception):
        written.set_exception(outcome)
    else:
        written.set_result(None)


def shadow_name(handler: str, name: str) -> str:
    """The name of a shadow: no other handler has it."""
    return f"{handler}~{name}"


def held_name(stream: str, shadow: str) -> str:
    """The stream in which it is written what a shadow would have done."""
    return f"{stream}.{shadow}"


def _key_of(held: Held) -> str:
    return held.key
