"""One attempt of a handler with `transaction=True`: its writes are kept with its lane's mark, or not at all.

Law: the work and the mark that the event is done are one commit. An attempt that fails
has written nothing, and is made again as any other handler's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from ..core.events import EventRow, SubscriptionRow
from ..stores.rows import Handling
from ..stores.streams import lane_of
from .attempt import Lent, StepInfo, current_attempt

if TYPE_CHECKING:
    from .driver import Driver


class TransactionalDefinition(Protocol):
    """A handler, as far as an attempt needs it."""

    name: str
    fn: Callable[..., Any]

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Any:
        """What the function gets. Raises NotDecodable."""
        ...


class HandlerInfo(StepInfo):
    """What stands for the `StepInfo` of a step while such a handler runs: it lends the connection."""

    __slots__ = ("_event_key",)

    def __init__(self, attempting: HandlerAttempt, name: str, key: str, attempt: int, seed: bytes) -> None:
        super().__init__(
            attempting, run_id="", workflow="", step=name, key=key, attempt=attempt, seed=seed,
            last_details=None,
        )  # fmt: skip
        self._event_key = key

    @property
    def idempotency_key(self) -> str:
        """The event's: the seed is another one in each attempt."""
        return self._event_key


class HandlerAttempt:
    """An attempt under way."""

    def __init__(
        self,
        driver: Driver,
        definition: TransactionalDefinition,
        event: EventRow,
        subscription: SubscriptionRow,
        attempt: int,
        *,
        was_on_disk: bool,
    ) -> None:
        """`was_on_disk`: the event was redriven, or in line, and is not read along."""
        self._driver = driver
        self._definition = definition
        self._event = event
        self._subscription = subscription
        self._attempt = attempt
        self._was_on_disk = was_on_disk
        key = f"{subscription.name}/{subscription.stream}/{event.position}"
        # Drawn for each attempt: the runs that it starts have random numbers of their own, in any store.
        self._info = HandlerInfo(self, definition.name, key, attempt, driver.source.bytes(16))
        self._context = copy_context()
        self._context.run(current_attempt.set, self)

    def info(self) -> StepInfo:
        """With the connection, while the function runs."""
        return self._info

    def beat(self, details: bytes | None) -> None:
        """Nobody listens."""

    async def run(self, done: Callable[[], None], *, generation: int) -> None:
        """Do it in the next commit; `done` is called as soon as that is on disk. Raises what it raised."""
        driver = self._driver
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(failed: BaseException | None) -> None:
            if failed is None:
                done()
            if not ended.done():
                ended.set_result(None) if failed is None else ended.set_exception(failed)

        lane = lane_of(self._event, self._subscription.lanes)
        handling = Handling(
            self._subscription.number,
            lane,
            self._event.position,
            self._work,
            told,
            self._was_on_disk,
            generation=generation,
        )
        driver.committer.batch.handlings.append(handling)
        driver.committer.schedule()
        await ended
        if self._info.has_drawn:
            driver.look_for_runs()  # it started some, which are free now

    def _work(self, connection: Any) -> None:
        definition, driver = self._definition, self._driver
        # Read here, and so anew for each time that it is called: it may change what it is given.
        given = definition.read(self._event, self._subscription, self._attempt)
        self._info.lend(Lent(connection, driver.store, driver.clock))
        try:
            self._context.run(definition.fn, given, connection)
        finally:
            self._info.lend(None)
