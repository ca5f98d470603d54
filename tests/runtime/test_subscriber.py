"""A subscription in the hands of a worker, while its reads take long and its lanes come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from perdure.core.events import DueEvents, EventPage, EventRow, LaneRow, LaneWatch, SubscriptionRow
from perdure.core.retry import Retry
from perdure.runtime.floor import Floor
from perdure.runtime.horizon import Horizon
from perdure.runtime.subscriber import Subscriber
from perdure.stores.base import Batch
from perdure.stores.streams import lane_of_key

LANES = 2
KEYS = {lane_of_key(key, 0, LANES): key for key in ("a", "b", "c", "d")}
"""A key of each lane."""


class _Later(Exception):
    """The stream is read when the test says so."""


class _Handler:
    """Notes what it handles; waits at what it is told to."""

    name = "note"
    stream = "orders"
    is_async = True
    concurrency = 9
    order = "key"
    retry = Retry(attempts=3, delay=10, jitter=False)
    on_exhausted = "park_key"
    from_start = True
    in_transaction = False

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.fails: set[int] = set()

    def wants(self, event: EventRow) -> bool:
        return True

    def page(self, store: object, *, after: int, limit: int) -> EventPage:
        raise _Later

    def prepare(self, store: object, events: Sequence[EventRow]) -> None: ...

    def read(self, event: EventRow, subscription: SubscriptionRow, attempt: int) -> EventRow:
        return event

    async def fn(self, event: EventRow) -> None:
        self.begun.append(event.position)
        if event.position in self.gates:
            await self.gates[event.position].wait()
        if event.position in self.fails:
            raise ValueError("no")


class _Timer:
    """Called when the test says so."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def __call__(self) -> None:
        if self.callback is not None:
            self.callback()

    def cancel(self) -> None:
        self.callback = None


class _Worker:
    """Stands for the driver, its parts and the store; what is read of a stream comes when it is told to, and
    commits, too. Nothing waits in line on disk."""

    def __init__(self) -> None:
        self.committer = self.reads = self.clock = self.source = self.effects = self.streams = self.dead = (
            self
        )
        self.timers: list[_Timer] = []
        self.floor = Floor(self)
        self.horizon = Horizon(self, self, self.complain)  # type: ignore[arg-type]
        self.fillers: list[Callable[[Batch], Callable[[Exception | None], None] | None]] = []
        self.asked: list[Callable[[Any], object]] = []

    def ask(self, look: Callable[[Any], object], then: Callable[[Any], object]) -> None:
        try:
            found = look(self)
        except _Later:
            self.asked.append(then)
        else:
            then(found)

    def held(self, subscription: int) -> list[tuple[int, str, bool]]:
        return []

    def due(self, subscription: int, lane: int, key: str, *, limit: int) -> DueEvents:
        return DueEvents([], False)

    def schedule(self) -> None: ...

    def complain(self, error: BaseException, doing: str) -> None: ...

    def draw(self) -> float:
        return 0.0

    def now_ms(self) -> int:
        return 0

    def arm(self, at_ms: int, callback: Callable[[], object], *, background: bool = False) -> _Timer:
        timer = _Timer(callback)
        if not background:
            self.timers.append(timer)
        return timer

    def commit(self) -> Batch:
        """What the next commit holds, which is on disk now."""
        batch = Batch()
        for fill in self.fillers:
            written = fill(batch)
            if written is not None:
                written(None)
        return batch

    async def answer(self, *events: EventRow, after: int) -> None:
        """Answer the oldest read."""
        self.asked.pop(0)(EventPage(list(events), after))
        await some_turns()


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def worker() -> _Worker:
    return _Worker()


@pytest.fixture
def handler() -> _Handler:
    return _Handler()


def make(worker: Any, handler: Any) -> Subscriber:
    return Subscriber(worker, handler, SubscriptionRow(1, "orders", "note", LANES))


def lane(number: int, cursor: int = 0) -> LaneRow:
    return LaneRow(1, number, cursor, (), ())


def event(position: int, number: int) -> EventRow:
    """Of the key of a lane."""
    return EventRow(position, f"{position}", "", "t", 1, KEYS[number], 0, 0, "", b"1")


async def test_a_lane_that_is_taken_while_a_read_is_under_way_is_read_from_its_own_cursor(
    worker: _Worker, handler: _Handler
) -> None:
    subscriber = make(worker, handler)
    subscriber.take([lane(0, cursor=10)])

    subscriber.take([lane(1, cursor=2)])  # the read after 10 has not come back
    await worker.answer(event(11, 0), event(12, 1), after=12)
    before, reads_after = list(handler.begun), subscriber.readings[0].after
    await worker.answer(event(3, 1), event(11, 0), event(12, 1), after=12)

    assert (before, reads_after) == ([11], 2)
    assert handler.begun == [11, 3]
    worker.commit()
    await some_turns()
    assert handler.begun == [11, 3, 12]


async def test_a_lane_goes_with_the_commit_that_says_that_what_ran_of_it_is_done(
    worker: _Worker, handler: _Handler
) -> None:
    gate = handler.gates[1] = asyncio.Event()
    subscriber = make(worker, handler)
    subscriber.take([lane(0), lane(1)])
    await worker.answer(event(1, 1), event(2, 0), event(3, 1), after=3)

    subscriber.keep(1)
    first = worker.commit()
    gate.set()
    await some_turns()
    second = worker.commit()

    assert [(mark.lane, mark.is_given_up) for mark in first.lanes] == [(0, False)]
    assert [(mark.lane, mark.cursor, mark.is_given_up) for mark in second.lanes] == [(1, 2, True)]
    assert handler.begun == [1, 2]


async def test_what_rests_or_waits_is_forgotten_with_its_lane_and_delivered_again_when_that_comes_back(
    worker: _Worker, handler: _Handler
) -> None:
    handler.fails = {1}
    subscriber = make(worker, handler)
    subscriber.take([lane(0), lane(1)])
    await worker.answer(event(1, 1), event(3, 1), after=3)

    subscriber.keep(1)
    given_up = worker.commit().lanes
    handler.fails = set()
    subscriber.take([lane(1)])
    await worker.answer(after=3)  # the one that was under way
    await worker.answer(event(1, 1), event(3, 1), after=3)
    worker.timers[0]()  # of the attempt that was to come
    await some_turns()
    worker.commit()
    await some_turns()
    worker.commit()

    assert [(mark.lane, mark.cursor) for mark in given_up if mark.is_given_up] == [(1, 0)]
    assert handler.begun == [1, 1, 3]
    assert subscriber._memory.count == 0


@pytest.mark.parametrize("leaves_before", [True, False], ids=["it has left", "it leaves then"])
async def test_the_others_go_on_when_only_a_lane_that_leaves_would_need_what_the_stream_let_go_of(
    worker: _Worker, handler: _Handler, leaves_before: bool
) -> None:
    subscriber = make(worker, handler)
    subscriber.take([lane(0, cursor=4), lane(1)])

    if leaves_before:
        subscriber.keep(1)
    worker.asked.pop(0)(EventPage([], 0, gone=3))
    await some_turns()
    if not leaves_before:
        subscriber.keep(1)
    await some_turns()
    await worker.answer(event(5, 0), after=5)

    assert handler.begun == [5]


# -- suspects ------------------------------------------------------------------------------------------


def suspicious(*positions: int) -> LaneRow:
    """A lane with which workers died, with these events in hand."""
    suspects = tuple((position, 1) for position in positions)
    return LaneRow(1, 0, 0, (), (), LaneWatch(1, 0, crashes=1, until=max(positions), suspects=suspects))


async def begin_suspects(worker: _Worker, handler: _Handler, *positions: int) -> tuple[Subscriber, _Handler]:
    """Handle suspects, which wait at gates; and beside them an event at 9 by another handler."""
    other = _Handler()
    for position in positions:
        handler.gates[position] = asyncio.Event()
    subscriber = make(worker, handler)
    subscriber.take([suspicious(*positions)])
    beside = make(worker, other)
    await worker.answer(*(event(position, 0) for position in positions), after=max(positions))
    worker.commit()
    await some_turns()
    worker.asked.clear()  # there is nothing more to read for the first
    beside.take([lane(0)])
    await worker.answer(event(9, 0), after=9)
    return subscriber, other


async def test_nothing_begins_before_it_is_on_disk_that_a_suspect_was_survived(
    worker: _Worker, handler: _Handler
) -> None:
    _, other = await begin_suspects(worker, handler, 1)

    handler.gates[1].set()
    await some_turns()
    before = list(other.begun)
    (survived,) = worker.commit().watches
    await some_turns()

    assert handler.begun == [1]
    assert before == []
    assert (survived.begun, survived.suspects) == ((), ())
    assert other.begun == [9]


async def test_the_others_wait_for_a_suspect_that_hangs_as_long_as_a_lease_lasts(
    worker: _Worker, handler: _Handler
) -> None:
    _, other = await begin_suspects(worker, handler, 1)

    before = list(other.begun)
    worker.timers[-1]()
    await some_turns()

    assert (before, other.begun) == ([], [9])
    handler.gates[1].set()
    await some_turns()
    worker.commit()
    assert not worker.floor.is_tense
    assert worker.floor.is_empty


async def test_a_suspect_that_hangs_keeps_its_own_handler_from_no_more_than_one_place(
    worker: _Worker, handler: _Handler
) -> None:
    handler.concurrency, handler.order = 1, "none"
    _, other = await begin_suspects(worker, handler, 1, 2)

    worker.timers[-1]()
    await some_turns()
    worker.commit()
    await some_turns()

    assert (handler.begun, other.begun) == ([1], [9])


async def test_the_others_go_on_when_a_handler_is_sent_elsewhere_while_a_suspect_of_it_runs(
    worker: _Worker, handler: _Handler
) -> None:
    subscriber, other = await begin_suspects(worker, handler, 1)

    await subscriber.make_way()
    await some_turns()

    assert other.begun == [9]
    assert not worker.floor.is_tense
