"""Delivers the events of a stream to one handler: lane by lane, and each key in order.

Laws: an event is handled until its handler returns, or it is parked; the next event
of its key is not begun before that is on disk. What is done is written with the next
commit, under the worker's lease. After a crash what was under way is delivered again,
with the same idempotency key; nothing is left out.

Events in memory are bounded. When that bound is reached and yet nothing can begin, what
waits behind slow keys is put in line on disk, so that no key keeps the others from their turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..codec.failures import encode_failure
from ..core.events import DeadEvent, DeadKind, EventRow, LaneRow, SubscriptionRow, SubscriptionStanding
from ..errors import LeaseLost, NotDecodable, StoreCorrupt
from ..stores.base import Batch
from ..stores.dead import DEATHS_BEFORE_PARKING
from ..stores.sight import Reading
from ..stores.streams import lane_of
from .behind import Behind, Line
from .calling import Caller
from .following import Following
from .handlers import Done, HandlerDefinition, event_name, killed_by, said_when_parked
from .handling import HandlerAttempt
from .lanes import Lane
from .memory import Memory
from .standing import Stand

if TYPE_CHECKING:
    from collections.abc import Callable

    from .driver import Driver

_HELD_MAX = 2_000
"""So many events are in memory at most, waiting or being handled: the stream waits on disk."""
_STOP_MAY_TAKE_S, _END = 10.0, (1 << 63) - 1


class Subscriber:
    """One subscription, as far as its lanes are this worker's."""

    def __init__(self, driver: Driver, definition: HandlerDefinition, row: SubscriptionRow) -> None:
        """`driver` is a proxy: it outlives this."""
        self._driver = driver
        self._definition = definition
        self.row = row
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, Lane] = {}
        self._along = Following(
            driver, row, self._lanes, page=definition.page, look=self.look, found=self._admit,
            passed=self._passed,
        )  # fmt: skip
        self._memory = Memory(definition.order)
        self._running: dict[int, tuple[EventRow, asyncio.Task[None] | None]] = {}
        self._done = Done()
        """Since the last commit was put together."""
        self._unwritten = 0
        """How many are done, or parked, and that is not on disk yet: then there will be room."""
        self._behind = Behind(
            driver, row, self._lanes, prepare=definition.prepare, deliver=self._deliver_due,
            may_read=self._may_read_due, room=lambda: _HELD_MAX - self._memory.count, pump=self._pump,
        )  # fmt: skip
        self._stand = Stand(driver, row, self._pump)
        self._caller = Caller(definition, driver.effects)
        self._floor = driver.floor
        self._paused = self._stopped = self._has_moved = False
        self._floor.join(self, lambda: bool(self._memory.suspects) and self._may_begin(), self._pump)
        driver.committer.fillers.append(self._fill)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is read or written, nor has begun or ended since it was asked; handlers may run."""
        has_moved, self._has_moved = self._has_moved, False
        quiet = not (has_moved or self._done) and self._along.is_quiet
        return quiet and self._behind.is_quiet and self._stand.is_quiet

    def holds(self, rows: list[LaneRow]) -> bool:
        """Whether any of these lanes is in its hands."""
        return any(row.lane in self._lanes for row in rows)

    # -- reading along ---------------------------------------------------------------------------

    def learn(self, stands: SubscriptionStanding) -> None:
        """The subscription's row says this: somebody may have resumed it, or redriven what it parked."""
        if stands.edition != self._behind.edition and not self._stopped:
            self._behind.edition = stands.edition
            self._stand.learn(stands)
            self._behind.look()

    @property
    def readings(self) -> list[Reading]:
        """How far the stream has been read; past its end where there is no lane to read it for."""
        after = self._along.after if self._lanes else _END
        return [Reading(self.row.number, self.row.stream, after, self.is_whole, self._behind.edition)]

    @property
    def is_whole(self) -> bool:
        """Whether one worker has all lanes: events of different lanes wait for each other."""
        return self._definition.order == "stream"

    def take(self, rows: list[LaneRow]) -> None:
        """Deliver the events of these lanes from now on."""
        for row in rows:
            self._lanes[row.lane] = Lane(row)
            self._behind.learn([(row.lane, key, False) for key in row.parked], [row.lane])
        self._along.turn()
        self._behind.look()
        self.look()

    def keep(self, most: int) -> None:
        """Give up the lanes above so many, each when what runs of it is done, in the commit that says so."""
        staying = [lane for lane in self._lanes.values() if not lane.is_leaving]
        if len(staying) <= most or self._stopped:
            return
        for lane in staying[most:]:
            lane.is_leaving = True
        self._forget_leaving()
        self._along.turn()
        self._driver.committer.schedule()
        self._floor.let_on()

    def _forget_leaving(self) -> None:
        self._memory.forget(lambda event: self._lane(event).is_leaving)

    def _deliver_due(self, event: EventRow, line: Line) -> None:
        if self._lanes[line.lane].is_leaving:
            return
        self._memory.count += 1
        self._memory.from_disk[event.position] = line
        if event.damage:
            self._park(event, DeadKind.UNREADABLE, 0, StoreCorrupt(event.damage))
        else:
            self._line_up(event)

    def look(self) -> None:
        """See whether there is something new."""
        if self._stopped or not self._lanes or (self.is_whole and len(self._lanes) < self.row.lanes):
            return
        self._behind.see_to()
        self._along.read_on(_HELD_MAX - self._memory.count)

    def _passed(self) -> None:
        """A page has been read."""
        self._see_whether_over()
        self._behind.see_to()
        self._pump()

    def _admit(self, event: EventRow, lane: Lane) -> None:
        self._memory.count += 1
        if event.damage:
            self._park(event, DeadKind.UNREADABLE, 0, StoreCorrupt(event.damage))
        elif not self._definition.wants(event):
            self._finish(event)
        elif self._is_behind(event, "key"):
            self._put_in_line(event)
        else:
            self._line_up(event)

    # -- in which order --------------------------------------------------------------------------

    def _line_up(self, event: EventRow) -> None:
        key = self._memory.key_of(event)
        queue = self._memory.queues.get(key)
        if queue is None:
            self._memory.queues[key] = deque()
            self._begin(event)
        else:
            queue.append(event)

    def _may_read_due(self, lane: int, key: str) -> bool:
        """Whether none of a key stands before what is due of it on disk."""
        reads = self._lanes[lane].is_caught_up and not self._lanes[lane].is_leaving
        return reads and (self._definition.order != "key" or key not in self._memory.queues)

    def _is_behind(self, event: EventRow, order: str) -> bool:
        """Whether others of its key wait on disk, and this is the order."""
        ordered = self._definition.order == order
        return ordered and self._behind.has(lane_of(event, self.row.lanes), event.key)

    def _begin(self, event: EventRow) -> None:
        """It is its turn."""
        self._memory.begun.add(event.position)
        deaths = self._lane(event).deaths(event.position)
        parks_key = self._definition.on_exhausted == "park_key"  # else what is redriven comes when it comes
        if self._is_behind(event, "stream") and parks_key and event.position not in self._memory.from_disk:
            self._put_in_line(event)  # when that is on disk, the next one begins, which may be of another key
        elif deaths >= DEATHS_BEFORE_PARKING and self._definition.may_kill:
            self._give_up(event, DeadKind.CRASHED, deaths, killed_by(deaths))
        elif deaths:
            self._memory.suspects.append(event)
        else:
            self._memory.ready.append(event)

    def _let_next(self, key: str) -> None:
        """The next one that waits may begin, unless others of its key wait on disk."""
        queue = self._memory.queues[key]
        while queue:
            event = queue.popleft()
            line = self._memory.from_disk.get(event.position)
            if line is not None and line.is_halted:
                self._drop(event, line)
            elif line is None and self._is_behind(event, "key"):
                self._put_in_line(event)
            else:
                self._begin(event)
                return
        del self._memory.queues[key]

    def _drop(self, event: EventRow, line: Line) -> None:
        """It is on disk, parked behind one that has just failed."""
        del self._memory.from_disk[event.position]
        self._memory.count -= 1
        self._behind.returned(line)

    def _make_room(self) -> None:
        """Put what waits behind slow events in line on disk: others could begin, and find no room."""
        if self._definition.order != "key":
            return
        for queue in self._memory.queues.values():
            while queue:
                event = queue.pop()
                line = self._memory.from_disk.get(event.position)
                if line is None:
                    self._put_in_line(event)
                else:
                    self._drop(event, line)

    # -- handling --------------------------------------------------------------------------------

    def _may_begin(self) -> bool:
        most = 0 if self._paused or self._stopped else self._stand.most(self._definition.concurrency)
        return len(self._running) < most

    def _pump(self) -> None:
        if self._floor.is_tense:
            if self._memory.suspects and self._may_begin() and self._floor.is_empty:
                self._start(self._memory.suspects.popleft(), alone=True)
            return
        while self._memory.ready and self._may_begin():
            self._start(self._memory.ready.popleft())
        if self._may_begin() and self._memory.count >= _HELD_MAX and not self._unwritten:
            self._make_room()

    def _start(self, event: EventRow, *, alone: bool = False) -> None:
        lane = self._lane(event)
        self._floor.enter(self, event.position, alone=self._name_of(event) if alone else "")
        self._stand.begins(event.position)
        self._running[event.position] = event, None
        if lane.is_watched:
            lane.begin(event.position)
            self._done.marked.append(event)
            self._driver.committer.schedule()
        else:
            self._launch(event)

    def _launch(self, event: EventRow) -> None:
        self._has_moved = True
        name = f"{self.row.stream}/{self.row.name}/{event.position}"
        self._running[event.position] = event, asyncio.Task(self._handle(event), loop=self._loop, name=name)

    async def _handle(self, event: EventRow) -> None:
        """One attempt."""
        attempt = self._memory.attempts.get(event.position, 1)
        try:
            if self._definition.in_transaction:
                await self._handle_in_transaction(event, attempt)
            else:
                await self._caller.call(self._definition.read(event, self.row, attempt))
        except NotDecodable as error:
            self._stand.ended(event.position, failed=False)
            self._give_up(event, DeadKind.UNREADABLE, attempt, error)
        except asyncio.CancelledError as error:
            if self._stopped:
                raise
            self._failed(event, attempt, error)  # it cancelled itself
        except (Exception, SystemExit) as error:  # a handler must not end the worker
            self._failed(event, attempt, error)
        else:
            if not self._definition.in_transaction:
                self._stand.ended(event.position, failed=False)
                self._succeeded(event)
        self._end(event)
        self._pump()

    async def _handle_in_transaction(self, event: EventRow, attempt: int) -> None:
        lane, was_on_disk = self._lane(event), event.position in self._memory.from_disk
        handling = HandlerAttempt(
            self._driver, self._definition, event, self.row, attempt, was_on_disk=was_on_disk
        )
        # The lane knows at once: the next commit's mark of it replaces the one that says so on disk.
        try:
            await handling.run(lambda: lane.finish(event.position), generation=lane.generation)
        except LeaseLost:
            self._stand.undone(event.position)
            return  # the lane is another worker's, and so is the event
        self._stand.ended(event.position, failed=False)
        self._memory.attempts.pop(event.position, None)
        self._has_moved = True
        self._unwritten += 1
        self._committed(Done([event]), None)
        self._driver.committer.schedule()  # the cursor is still to be moved

    def _end(self, event: EventRow) -> None:
        """It is not in hand any more."""
        self._running.pop(event.position, None)
        lane = self._lane(event)
        lane.let_go(event.position)
        if lane.is_news:
            self._driver.committer.schedule()
        if lane.is_news and self._floor.is_alone(self, event.position):
            # Until that is on disk: who dies of another event before would be laid to this one.
            self._done.survived.append(event)
        else:
            self._floor.leave(self, event.position)

    def _succeeded(self, event: EventRow) -> None:
        if event.position in self._memory.from_disk:
            self._done.cleared.append((self.row.number, event.position))
        self._finish(event)

    def _failed(self, event: EventRow, attempt: int, error: BaseException) -> None:
        retry, driver = self._definition.retry, self._driver
        is_for_good = retry.gives_up_on(error)
        if not self._stand.ended(event.position, failed=not is_for_good, why=repr(error)):
            self._memory.attempts.clear()  # an outage: no event is to blame
            self._memory.ready.append(event)
            self._forget_if_leaving(event)
            return
        if is_for_good or attempt >= retry.attempts:
            self._give_up(event, DeadKind.FAILED, attempt, error)
            return
        driver.complain(error, f"handling {self._name_of(event)}, attempt {attempt}")
        self._memory.attempts[event.position] = attempt + 1
        self._memory.resting[event.position] = event
        if self._forget_if_leaving(event):
            return
        wait_ms = retry.delay_ms(attempt, drawn=driver.source.draw())
        driver.clock.arm(driver.clock.now_ms() + wait_ms, lambda: self._try_again(event))

    def _forget_if_leaving(self, event: EventRow) -> bool:
        if self._lane(event).is_leaving:
            self._forget_leaving()
            self._driver.committer.schedule()
            return True
        return False

    def _try_again(self, event: EventRow) -> None:
        if self._memory.resting.get(event.position) is not event:
            return  # its lane has gone to another worker
        del self._memory.resting[event.position]
        self._memory.ready.append(event)
        self._pump()

    def _give_up(self, event: EventRow, kind: DeadKind, attempts: int, error: BaseException) -> None:
        """It is not tried again, or not before somebody has looked at it."""
        self._lane(event).let_go(event.position)
        if self._definition.on_exhausted != "stop":
            self._park(event, kind, attempts, error)
            return
        self._memory.attempts.pop(event.position, None)
        self._memory.ready.appendleft(event)
        self._driver.complain(error, f"handling {self._name_of(event)}, which stops the handler")
        self._stand.stop(f"{self._name_of(event)}: {type(error).__name__}: {error}")
        self._forget_if_leaving(event)

    def _lane(self, event: EventRow) -> Lane:
        line = self._memory.from_disk.get(event.position)
        return self._lanes[lane_of(event, self.row.lanes) if line is None else line.lane]

    def _name_of(self, event: EventRow) -> str:
        return event_name(event, self.row)

    # -- what is parked, or waits on disk --------------------------------------------------------

    def _park(self, event: EventRow, kind: DeadKind, attempts: int, error: BaseException) -> None:
        self._driver.complain(error, f"handling {self._name_of(event)}, {said_when_parked(event, self.row)}")
        self._write_dead(event, kind, attempts, encode_failure(error))
        self._finish(event)

    def _put_in_line(self, event: EventRow) -> None:
        """Whether it is parked there depends on those before it: the store knows."""
        self._write_dead(event, DeadKind.BEHIND, 0, None)
        self._finish(event)

    def _write_dead(self, event: EventRow, kind: DeadKind, attempts: int, failure: bytes | None) -> None:
        definition, line = self._definition, self._memory.from_disk.get(event.position)
        lane, key = (lane_of(event, self.row.lanes), event.key) if line is None else (line.lane, line.key)
        holds = bool(key) and definition.order != "none" and definition.on_exhausted == "park_key"
        if holds or kind == DeadKind.BEHIND:
            self._behind.put(lane, key).is_halted |= kind != DeadKind.BEHIND
        now_ms = self._driver.clock.now_ms()
        self._lanes[lane].is_dirty = True  # so that its mark says whether it is parked
        self._done.dead.append(
            DeadEvent(
                self.row.number, event.position, lane, key, int(kind), attempts, failure, now_ms, int(holds)
            )
        )

    # -- what is done ----------------------------------------------------------------------------

    def _finish(self, event: EventRow) -> None:
        self._has_moved = True
        self._memory.attempts.pop(event.position, None)
        self._lane(event).finish(event.position)
        self._done.finished.append(event)
        self._unwritten += 1
        self._driver.committer.schedule()

    def _see_whether_over(self) -> None:
        for lane in self._lanes.values():
            if lane.is_watched:
                lane.see_whether_over()
                if lane.is_news:
                    self._driver.committer.schedule()

    def _fill(self, batch: Batch) -> Callable[[Exception | None], None] | None:
        """Put what is done into a commit that is about to be written."""
        busy = {self._lane(event).number for event, _ in self._running.values()}
        leaving = [lane for lane in self._lanes.values() if lane.is_leaving and lane.number not in busy]
        dirty = [lane for lane in self._lanes.values() if lane.is_dirty and lane not in leaving]
        batch.watches.extend(lane.watch() for lane in self._lanes.values() if lane.is_news)
        if not (self._done or dirty or leaving):
            return None
        done, self._done = self._done, Done()
        batch.dead.extend(done.dead)
        batch.cleared.extend(done.cleared)
        now_ms, end = self._driver.clock.now_ms(), self._along.end_of_stream
        for lane in leaving:
            del self._lanes[lane.number]
            self._behind.drop(lane.number)
            batch.lanes.append(lane.mark(now_ms=now_ms, end=end, is_given_up=True))
        batch.lanes.extend(lane.mark(now_ms=now_ms, end=end) for lane in dirty)
        return lambda error: self._committed(done, error)

    def _committed(self, done: Done, error: Exception | None) -> None:
        if error is not None or self._stopped:
            return
        self._memory.count -= len(done.finished)
        self._unwritten -= len(done.finished)
        for one in done.dead:
            if one.holds or one.kind == DeadKind.BEHIND:
                self._behind.written(one.lane, one.key)
        for event in done.finished:
            if event.position in self._memory.begun:
                self._memory.begun.discard(event.position)
                self._let_next(self._memory.key_of(event))
            if (line := self._memory.from_disk.pop(event.position, None)) is not None:
                self._behind.returned(line)
        for event in done.survived:
            self._floor.leave(self, event.position)
        for event in done.marked:
            self._begin_marked(event)
        self._see_whether_over()
        self._behind.see_to()
        self._pump()
        self._along.go_on()

    def _begin_marked(self, event: EventRow) -> None:
        if not self._paused:
            self._launch(event)
            return
        self._memory.ready.appendleft(event)
        self._end(event)

    # -- the end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Begin no more, and wait for the handlers that run."""
        self._paused = True
        while self._running and not self._stopped:
            tasks = [task for _, task in self._running.values() if task is not None]
            await (asyncio.wait(tasks) if tasks else self._driver.committer.drain())

    def abandon(self) -> list[asyncio.Task[None]]:
        """Stop at once; gives the handlers that are cancelled: their events are delivered again."""
        self._stopped = True
        self._stand.end()
        self._along.end()
        self._behind.end()
        tasks = [task for _, task in self._running.values() if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    async def stop(self) -> None:
        """The same, and wait for what handlers have to clean up."""
        self._along.sweep()
        if tasks := self.abandon():
            await asyncio.wait(tasks, timeout=_STOP_MAY_TAKE_S)
        self._floor.part(self)

    async def make_way(self) -> None:
        """Stop for another one, which has its lanes now: nothing of this one is written any more."""
        self._driver.committer.fillers.remove(self._fill)
        await self.stop()
