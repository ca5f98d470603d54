"""Delivers the events of a stream to one handler: lane by lane, and each key in order.

Laws: an event is handled until its handler returns, or it is parked; the next event
of its key is not begun before that is on disk. What is done is written with the next
commit, under the worker's lease. After a crash what was under way is delivered again,
with the same idempotency key; nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..codec.failures import encode_failure
from ..core.events import DeadEvent, DeadKind, EventPage, EventRow, LaneRow, SubscriptionRow
from ..core.retry import Retry
from ..errors import LeaseLost, NotDecodable, StoreCorrupt, StoreError
from ..stores.base import Batch, Store
from ..stores.sight import Reading
from ..stores.streams import lane_of
from .handling import HandlerAttempt
from .lanes import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from .driver import Driver

Order = Literal["key", "stream", "none"]

_PAGE = 1_000
_HELD_MAX = 2_000
"""So many events are in memory at most, waiting or being handled: the stream waits on disk."""
_STOP_MAY_TAKE_S = 10.0
_END = (1 << 63) - 1
_HELD_BACK_FIRST_S = 0.002
_HELD_BACK_LONGEST_S = 0.25


class HandlerDefinition(Protocol):
    """A function that handles events, and how."""

    name: str
    stream: str
    fn: Callable[[Any], Any]
    is_async: bool
    concurrency: int
    order: Order
    retry: Retry
    from_start: bool
    in_transaction: bool

    def wants(self, event: EventRow) -> bool:
        """Whether the event is of a type that it handles."""
        ...

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> Any:
        """What the function gets. Raises NotDecodable."""
        ...

    def check(self, store: Store) -> None:
        """Raise DefinitionError if it cannot read what the stream keeps; from the thread that writes."""
        ...

    def page(self, store: Store, *, after: int, limit: int) -> EventPage:
        """Events of the stream above a position, in order, which `read` is then ready for."""
        ...


class Subscriber:
    """One subscription, as far as its lanes are this worker's."""

    def __init__(self, driver: Driver, definition: HandlerDefinition, row: SubscriptionRow) -> None:
        """`driver` is a proxy: it outlives this."""
        self._driver = driver
        self._definition = definition
        self.row = row
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, Lane] = {}
        self._after = 0
        """The stream has been read up to here, for the lane that is least far."""
        self._is_reading = False
        self._look_again = False
        self._held_back_s = 0.0
        """How long it was waited for events that may not be read yet, the last time."""
        self._held_back: asyncio.TimerHandle | None = None
        self._held = 0
        self._queues: dict[str, deque[EventRow]] = {}
        """By key, what waits for the event of that key that is in hand."""
        self._ready: deque[EventRow] = deque()
        self._running: dict[int, tuple[EventRow, asyncio.Task[None]]] = {}
        self._resting: dict[int, EventRow] = {}
        """By position, what waits for its next attempt."""
        self._attempts: dict[int, int] = {}
        """By position, the number of the next attempt, where it is not the first."""
        self._finished: list[EventRow] = []
        """Done, or parked, since the last commit was put together."""
        self._begun: set[int] = set()
        """Positions of events that were begun: the next ones of their keys wait for them."""
        self._dead: list[DeadEvent] = []
        self._paused = False
        self._stopped = False
        driver.committer.fillers.append(self._fill)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, or waits to be written; handlers may run."""
        return not (self._is_reading or self._finished or self._held_back is not None)

    # -- reading along ---------------------------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """How far the stream has been read; past its end where there is no lane to read it for."""
        after = self._after if self._lanes else _END
        return Reading(self.row.number, self.row.stream, after, self.is_whole)

    @property
    def is_whole(self) -> bool:
        """Whether one worker has all lanes: events of different lanes wait for each other."""
        return self._definition.order == "stream"

    def take(self, rows: list[LaneRow]) -> None:
        """Deliver the events of these lanes from now on."""
        for row in rows:
            self._lanes[row.lane] = Lane(row)
        self._read_on()
        self.look()

    def _read_on(self) -> None:
        """Read next after the lane that is least far."""
        after = [lane.read_to for lane in self._lanes.values() if not lane.is_leaving]
        self._after = min(after, default=self._after)

    def keep(self, most: int) -> None:
        """Give up the lanes above so many, each when what runs of it is done, in the commit that says so."""
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        if len(staying) <= most or self._stopped:
            return
        for lane in staying[most:]:
            lane.is_leaving = True
        self._forget_leaving()
        self._driver.committer.schedule()

    def _forget_leaving(self) -> None:
        """What waits in memory of lanes that leave, and does not run, is for the worker that comes next."""
        for event in [*self._ready, *self._resting.values()]:
            if self._lane_of(event).is_leaving:
                self._forget(event)
        self._ready = deque(event for event in self._ready if event.position in self._begun)
        for queue in self._queues.values():
            kept = [event for event in queue if not self._lane_of(event).is_leaving]
            self._held -= len(queue) - len(kept)
            queue.clear()
            queue.extend(kept)

    def _forget(self, event: EventRow) -> None:
        """One that was begun, and does not run."""
        self._held -= 1
        self._begun.discard(event.position)
        self._resting.pop(event.position, None)
        self._attempts.pop(event.position, None)
        self._held -= len(self._queues.pop(self._order_key(event)))

    def _lane_of(self, event: EventRow) -> Lane:
        return self._lanes[lane_of(event, self.row.lanes)]

    def look(self) -> None:
        """See whether there is something new."""
        if self._stopped or not self._lanes or (self.is_whole and len(self._lanes) < self.row.lanes):
            return
        if self._is_reading or self._held >= _HELD_MAX:
            self._look_again = True
            return
        self._is_reading = True
        page, after = self._definition.page, self._after
        limit = min(_PAGE, _HELD_MAX - self._held)
        self._driver.reads.ask(
            lambda store: page(store, after=after, limit=limit),
            lambda found: self._found(found, asked_after=after),
        )

    def _found(self, page: EventPage | StoreError, *, asked_after: int) -> None:
        self._is_reading = False
        if self._stopped:
            return
        if isinstance(page, StoreError):
            self._driver.complain(page, f"reading stream {self._definition.stream!r}")
            return
        count = self.row.lanes
        # One that was taken meanwhile may not be as far as where this page begins.
        lanes = {
            number: lane
            for number, lane in self._lanes.items()
            if lane.read_to >= asked_after and not lane.is_leaving
        }
        for event in page.events:
            lane = lanes.get(lane_of(event, count))
            if lane is not None and event.position > lane.read_to and lane.enter(event.position):
                self._admit(event, lane)
        for lane in lanes.values():
            lane.pass_to(page.after)
        got_on = page.after > asked_after
        self._read_on()
        self._pump()
        if got_on or self._look_again:
            self._look_again = False
            self._held_back_s = 0.0
            self._loop.call_soon(self.look)
        elif page.is_held_back and self._held_back is None:
            # Nobody tells when it no longer is.
            self._held_back_s = min(_HELD_BACK_LONGEST_S, max(_HELD_BACK_FIRST_S, 2 * self._held_back_s))
            self._held_back = self._loop.call_later(self._held_back_s, self._look_at_held_back)

    def _look_at_held_back(self) -> None:
        self._held_back = None
        self.look()

    def _admit(self, event: EventRow, lane: Lane) -> None:
        self._held += 1
        if event.damage:
            self._park(event, DeadKind.UNREADABLE, 0, StoreCorrupt(event.damage))
            return
        if not self._definition.wants(event):
            self._finish(event)
            return
        if event.key and event.key in lane.parked:
            self._park(event, DeadKind.BEHIND, 0, None)
            return
        key = self._order_key(event)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            self._begin(event)
        else:
            queue.append(event)

    def _begin(self, event: EventRow) -> None:
        self._begun.add(event.position)
        self._ready.append(event)

    def _order_key(self, event: EventRow) -> str:
        """Events for which this is the same are handled one after another."""
        order = self._definition.order
        if order == "stream":
            return ""
        return event.key if event.key and order == "key" else f"\0{event.position}"

    # -- handling --------------------------------------------------------------------------------

    def _pump(self) -> None:
        most = 0 if self._paused or self._stopped else self._definition.concurrency
        while self._ready and len(self._running) < most:
            event = self._ready.popleft()
            name = f"{self.row.stream}/{self.row.name}/{event.position}"
            task = asyncio.Task(self._handle(event), loop=self._loop, name=name)
            self._running[event.position] = event, task

    async def _handle(self, event: EventRow) -> None:
        """One attempt."""
        attempt = self._attempts.get(event.position, 1)
        try:
            if self._definition.in_transaction:
                await self._handle_in_transaction(event, attempt)
            else:
                await self._call(self._definition.read(event, self.row, attempt))
        except NotDecodable as error:
            self._park(event, DeadKind.UNREADABLE, attempt, error)
        except asyncio.CancelledError as error:
            if self._stopped:
                raise
            self._failed(event, attempt, error)  # it cancelled itself
        except Exception as error:
            self._failed(event, attempt, error)
        else:
            if not self._definition.in_transaction:
                self._finish(event)
        self._running.pop(event.position, None)
        self._pump()

    async def _call(self, given: Any) -> None:
        definition = self._definition
        if definition.is_async:
            await definition.fn(given)
        else:
            context = copy_context()
            await self._driver.effects.on_thread(lambda: context.run(definition.fn, given))

    async def _handle_in_transaction(self, event: EventRow, attempt: int) -> None:
        lane = self._lanes[lane_of(event, self.row.lanes)]
        handling = HandlerAttempt(self._driver, self._definition, event, self.row, attempt)
        # The lane knows at once: the next commit's mark of it replaces the one that says so on disk.
        try:
            await handling.run(lambda: lane.finish(event.position))
        except LeaseLost:
            return  # the lane is another worker's, and so is the event
        self._attempts.pop(event.position, None)
        self._committed([event], None)
        self._driver.committer.schedule()  # the cursor is still to be moved

    def _failed(self, event: EventRow, attempt: int, error: BaseException) -> None:
        retry, driver = self._definition.retry, self._driver
        if retry.gives_up_on(error) or attempt >= retry.attempts:
            self._park(event, DeadKind.FAILED, attempt, error)
            return
        driver.complain(error, f"handling {self._name_of(event)}, attempt {attempt}")
        if self._lane_of(event).is_leaving:
            self._forget(event)
            driver.committer.schedule()
            return
        self._attempts[event.position] = attempt + 1
        self._resting[event.position] = event
        wait_ms = retry.delay_ms(attempt, drawn=driver.source.draw())
        driver.clock.arm(driver.clock.now_ms() + wait_ms, lambda: self._try_again(event))

    def _try_again(self, event: EventRow) -> None:
        if self._resting.get(event.position) is not event:
            return  # its lane has gone to another worker
        del self._resting[event.position]
        self._ready.append(event)
        self._pump()

    def _name_of(self, event: EventRow) -> str:
        return f"event {event.id!r} of stream {self.row.stream!r} by {self.row.name}()"

    def _park(self, event: EventRow, kind: DeadKind, attempts: int, error: BaseException | None) -> None:
        lane = lane_of(event, self.row.lanes)
        failure = None if error is None else encode_failure(error)
        dead = DeadEvent(
            self.row.number, event.position, lane, event.key, int(kind), attempts, failure,
            self._driver.clock.now_ms(),
        )  # fmt: skip
        if error is not None:
            self._driver.complain(error, f"handling {self._name_of(event)}, which is parked")
        if event.key:
            self._lanes[lane].parked.add(event.key)
        self._dead.append(dead)
        self._finish(event)

    # -- what is done ----------------------------------------------------------------------------

    def _finish(self, event: EventRow) -> None:
        self._attempts.pop(event.position, None)
        self._lanes[lane_of(event, self.row.lanes)].finish(event.position)
        self._finished.append(event)
        self._driver.committer.schedule()

    def _fill(self, batch: Batch) -> Callable[[Exception | None], None] | None:
        """Put what is done into a commit that is about to be written."""
        busy = {lane_of(event, self.row.lanes) for event, _ in self._running.values()}
        leaving = [lane for lane in self._lanes.values() if lane.is_leaving and lane.number not in busy]
        dirty = [lane for lane in self._lanes.values() if lane.is_dirty and lane not in leaving]
        if not (dirty or leaving):
            return None
        finished, self._finished = self._finished, []
        batch.dead.extend(self._dead)
        self._dead = []
        for lane in leaving:
            del self._lanes[lane.number]
            batch.lanes.append(lane.mark(last=True))
        batch.lanes.extend(lane.mark() for lane in dirty)
        return lambda error: self._committed(finished, error)

    def _committed(self, finished: list[EventRow], error: Exception | None) -> None:
        if error is not None or self._stopped:
            return
        self._held -= len(finished)
        for event in finished:
            if event.position in self._begun:
                self._begun.discard(event.position)
                self._let_next(self._order_key(event))
        self._pump()
        if self._look_again:
            self._look_again = False
            self.look()

    def _let_next(self, key: str) -> None:
        """The next one that waits may begin; those whose keys are parked now are parked behind."""
        queue = self._queues[key]
        while queue:
            event = queue.popleft()
            if event.key and event.key in self._lanes[lane_of(event, self.row.lanes)].parked:
                self._park(event, DeadKind.BEHIND, 0, None)
            else:
                self._begin(event)
                return
        del self._queues[key]

    # -- the end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Begin no more, and wait for the handlers that run."""
        self._paused = True
        while self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    def abandon(self) -> list[asyncio.Task[None]]:
        """Stop at once; gives the handlers that are cancelled: their events are delivered again."""
        self._stopped = True
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        return tasks

    async def stop(self) -> None:
        """The same, and wait for what handlers have to clean up."""
        tasks = self.abandon()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_MAY_TAKE_S)
