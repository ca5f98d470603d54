"""The subscriptions of a worker: made where they are not, and their lanes claimed."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..core.events import LaneRow, SubscriptionRow, SubscriptionStanding
from ..errors import DefinitionError
from ..stores.base import Store
from ..stores.sight import Reading
from .giving import Giving

if TYPE_CHECKING:
    from .driver import Driver


class Served(Protocol):
    """One subscription, as far as its lanes are this worker's: a handler of events, or an intake of them."""

    row: SubscriptionRow

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, or waits to be written."""
        ...

    @property
    def readings(self) -> list[Reading]:
        """How far its streams have been read; past the end where there is nothing to look for."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether one worker has all lanes, and shares them with none."""
        ...

    def learn(self, stands: SubscriptionStanding) -> None:
        """The subscription's row says this: somebody may have resumed it, or redriven what it parked."""
        ...

    def holds(self, rows: list[LaneRow]) -> bool:
        """Whether any of these lanes is in its hands."""
        ...

    def take(self, rows: list[LaneRow]) -> None:
        """Serve these lanes from now on."""
        ...

    def keep(self, most: int) -> None:
        """Give up the lanes above so many, in the commits that say what of them is done."""
        ...

    def look(self) -> None:
        """See whether there is something new."""
        ...

    async def drain(self) -> None:
        """Begin no more, and wait for what is under way."""
        ...

    def abandon(self) -> object:
        """Stop at once and write nothing more."""
        ...

    async def stop(self) -> None:
        """Stop, and clean up."""
        ...

    async def make_way(self) -> None:
        """Stop for another one, which has its lanes now: nothing of this one is written any more."""
        ...


class Subscribing(Protocol):
    """What has a subscription, and is defined in code."""

    name: str
    stream: str
    """The stream that it subscribes to; an intake's is outside."""
    lanes: int
    from_start: bool
    is_intake: bool
    other: str
    """The second stream of a join; empty for all else."""

    def check(self, store: Store) -> None:
        """Raise DefinitionError if the store does not let it be served. From the thread that writes."""
        ...

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Serve the subscription in this worker, once it has lanes. `driver` is a proxy."""
        ...


class Subscriptions:
    """All handlers that this worker serves."""

    def __init__(self, driver: Driver, news: Callable[[], Sequence[Subscribing]]) -> None:
        """`news` gives the handlers, whenever there are others than before."""
        self._driver: Driver = weakref.proxy(driver)
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[int, Subscribing] = {}
        self._subscribers: dict[int, Served] = {}
        self._asked = 0
        """Subscriptions that are being made."""
        self._is_claiming = False
        self._claim_again = False
        self._moved: dict[int, dict[int, LaneRow]] = {}
        """Lanes of subscriptions that were sent elsewhere, while their handlers are being stopped."""
        self._moving: set[asyncio.Task[None]] = set()
        self.giving = Giving(driver)
        """For runs that wait for events."""
        driver.committer.on_events = self._look_at_what_was_appended
        driver.committer.on_written = self.look

    @property
    def is_quiet(self) -> bool:
        """Whether no event is under way."""
        busy = self._is_claiming or self._asked or self._moved
        quiet = [subscriber.is_quiet for subscriber in self._subscribers.values()]  # each is asked
        return not busy and self.giving.is_quiet and all(quiet)

    @property
    def names(self) -> list[str]:
        """`stream/handler` of all that are served, sorted."""
        return sorted(f"{one.row.stream}/{one.row.name}" for one in self._subscribers.values())

    async def open(self) -> None:
        """Serve all handlers from now on.

        Raises DefinitionError for two of one name, and for one that cannot read what its stream keeps.
        """
        wait_between = self._driver.committer.wait_between
        for handler in self._news():
            self._serve(handler, await wait_between(partial(_subscribe, handler)))
        self.look()
        if self._driver.store.streams.gives_later:
            self.giving.look()  # what a worker before has left

    def look(self) -> None:
        """See whether there are new handlers, new events, and lanes that are free."""
        driver = self._driver
        if not driver.stopped:
            self._look_at_events()
            self._claim()
            if driver.store.streams.gives_later and driver.store.streams.any_awaiting():
                self.giving.look()

    def reading(self) -> list[Reading]:
        """How far each stream has been read; sees to new handlers first."""
        self._look_for_handlers()
        return [reading for one in self._subscribers.values() for reading in one.readings]

    def _look_at_events(self) -> None:
        self._look_for_handlers()
        for subscriber in self._subscribers.values():
            subscriber.look()

    def _look_at_what_was_appended(self) -> None:
        self._look_at_events()
        driver = self._driver
        streams = driver.store.streams
        if streams.any_awaiting():
            if streams.gives_later:
                self.giving.look()
            else:
                self.giving.tell()

    def _look_for_handlers(self) -> None:
        driver = self._driver
        try:
            news = self._news()
        except DefinitionError as error:
            driver.complain(error, "looking for handlers")
            news = ()
        for handler in news:
            self._asked += 1
            driver.committer.ask_between(partial(_subscribe, handler), partial(self._subscribed, handler))

    def _subscribed(self, handler: Subscribing, found: SubscriptionRow | Exception) -> None:
        self._asked -= 1
        if isinstance(found, Exception):
            self._driver.complain(found, f"subscribing {handler.name}() to stream {handler.stream!r}")
            return
        self._serve(handler, found)
        self._claim()

    def _serve(self, handler: Subscribing, row: SubscriptionRow) -> None:
        if row.number not in self._subscribers:
            self._handlers[row.number] = handler
            self._subscribers[row.number] = handler.serve(self._driver, row)

    def _claim(self) -> None:
        """See how subscriptions stand, and then claim lanes: one that is stopped begins nothing."""
        if not self._subscribers:
            return
        if self._is_claiming:
            self._claim_again = True
            return
        self._is_claiming = True
        self._driver.reads.ask(lambda store: store.streams.dead.standings(), self._stand)

    def _stand(self, found: list[SubscriptionStanding] | Exception) -> None:
        driver = self._driver
        if isinstance(found, Exception):
            self._claimed(found)
            return
        for stands in found:
            subscriber = self._subscribers.get(stands.subscription)
            if subscriber is not None:
                subscriber.learn(stands)
        lease, now_ms, (numbers, whole) = driver.lease, driver.clock.now_ms(), self._served()
        driver.committer.ask_between(
            lambda store: store.streams.claim_lanes(lease, numbers, now_ms=now_ms, whole=whole), self._claimed
        )

    def _served(self) -> tuple[list[int], list[int]]:
        """The subscriptions, and those whose lanes are not shared."""
        return list(self._subscribers), [n for n, one in self._subscribers.items() if one.is_whole]

    def _claimed(self, found: list[LaneRow] | Exception) -> None:
        self._is_claiming = False
        if isinstance(found, Exception):
            self._driver.complain(found, "looking for lanes to take up")
            return
        by_subscription: dict[int, list[LaneRow]] = {}
        for row in found:
            by_subscription.setdefault(row.subscription, []).append(row)
        for number, rows in by_subscription.items():
            self._hand_over(number, rows)
        if self._claim_again:
            self._claim_again = False
            self._claim()
            return
        lease, (numbers, whole) = self._driver.lease, self._served()
        self._driver.reads.ask(lambda store: store.streams.shares(lease, numbers, whole=whole), self._give_up)

    def _give_up(self, shares: dict[int, int] | Exception) -> None:
        if isinstance(shares, Exception):
            self._driver.complain(shares, "looking how the lanes are shared")
            return
        for number, share in shares.items():
            self._subscribers[number].keep(share)

    def _hand_over(self, number: int, rows: list[LaneRow]) -> None:
        """Deliver the events of these lanes. Those that were delivered already were sent elsewhere."""
        subscriber = self._subscribers[number]
        if number in self._moved:
            self._moved[number].update((row.lane, row) for row in rows)
        elif subscriber.holds(rows):
            self._moved[number] = {row.lane: row for row in rows}
            task = self._loop.create_task(self._begin_anew(subscriber))
            self._moving.add(task)
            task.add_done_callback(self._moving.discard)
        else:
            subscriber.take(rows)

    async def _begin_anew(self, old: Served) -> None:
        """Go on at another place, once the handlers are stopped that are at the old one.

        A place is of all lanes: those that the old one has and that are not given yet come next.
        """
        number = old.row.number
        new = self._subscribers[number] = self._handlers[number].serve(self._driver, old.row)
        await old.make_way()
        rows = self._moved.pop(number)
        if not self._driver.stopped:
            new.take(list(rows.values()))

    async def drain(self, seconds: float) -> None:
        """Begin no more, and wait for the handlers that run; so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(subscriber.drain() for subscriber in self._subscribers.values()))

    def abandon(self) -> None:
        """Stop at once and write nothing more."""
        self.giving.stop()
        for subscriber in self._subscribers.values():
            subscriber.abandon()

    async def stop(self) -> None:
        """Stop handlers; what is done will be written with the last commit."""
        self.giving.stop()
        await asyncio.gather(*(one.stop() for one in self._subscribers.values()), *self._moving)


def _subscribe(handler: Subscribing, store: Store) -> SubscriptionRow:
    handler.check(store)
    return store.streams.subscribe(
        handler.stream, handler.name, lanes=handler.lanes, from_start=handler.from_start,
        is_intake=handler.is_intake, other=handler.other,
    )  # fmt: skip
