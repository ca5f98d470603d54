"""How a client reaches runs: through the store, or through the worker in the same process.

What many callers ask at once is done at once: what they start, send and append is written in
one commit, and one look is for all the ends, or all the answers, that they wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from .core.events import Append, Clash, Placed
from .core.records import Message, MessageKind, NewRun, RunRow, Status
from .errors import RunDamaged, StoreMoved, StoreUnavailable
from .runtime.clock import Clock, Source, SystemClock, SystemSource
from .runtime.definitions import WorkflowDefinition
from .stores.base import DROPPED, Batch, Committed, Reply, StartOutcome, Store
from .stores.moves import refuse_closed_store

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

_LOOK_FIRST_S = 0.01
_LOOK_LATER_S = 0.25
_LOOKS_FOR_A_PART = 4
"""How many times longer than the look itself the pause after it is, at least."""
_WRITTEN_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4_000_000
_OPENS_AGAIN = (MessageKind.RESUME, MessageKind.CANCEL, MessageKind.TERMINATE)


class Door(Protocol):
    """What a client needs of the other side."""

    clock: Clock
    source: Source

    async def read(self, look: Callable[[Store], T]) -> T:
        """Read from the store."""
        ...

    async def write(self, verb: Callable[[Store], T]) -> T:
        """Have the store do what writes, between two commits."""
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

    def append(self, append: Append) -> Awaitable[list[Placed] | Clash]:
        """Append events, in the order of the calls; they are on disk when what this gives is done."""
        ...

    def append_within(
        self, connection: Any, append: Append, register: Callable[[Store, Any], object] | None
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        """Append in the transaction of a connection; to be awaited where that is. See `StreamStore`."""
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


def stopped_rows(store: Store, numbers: Sequence[int]) -> dict[int, RunRow]:
    """The same for many runs: the rows of those that have stopped."""
    rows: dict[int, RunRow] = {}
    for number, row in store.stopped_runs(numbers).items():
        # One that is missing raises, and one that is parked may be asked to go on.
        found = row if row is not None and row.status != Status.PARKED else stopped_row(store, number)
        if found is not None:
            rows[number] = found
    return rows


def replies_by_request(store: Store, requests: Sequence[str]) -> dict[str, Reply]:
    """The answers that there are to these requests."""
    return {reply.request: reply for reply in store.replies(requests)}


def replies_or_refuse(store: Store, requests: Sequence[str]) -> dict[str, Reply]:
    """The same. Raises StoreMoved if none will come here."""
    replies = replies_by_request(store, requests)
    if not replies:
        refuse_closed_store(store)
    return replies


def stopped_or_refuse(store: Store, numbers: Sequence[int]) -> dict[int, RunRow]:
    """The same as `stopped_rows`. Raises StoreMoved if they go on elsewhere."""
    rows = stopped_rows(store, numbers)
    if not rows:
        refuse_closed_store(store)
    return rows


class Looks(Generic[Key, Found]):
    """Looks for what others do, the ends of runs or answers: one look is for all that is waited for.

    At once when somebody comes, often for a while, four times a second later; and however
    many are waited for, for a fifth of the time at most.
    """

    def __init__(self, look: Callable[[Sequence[Key]], Awaitable[dict[Key, Found]]]) -> None:
        """`look` gives what there is: the rows of runs that have stopped, the answers to requests."""
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, list[asyncio.Future[Found]]] = {}
        self._came = False
        self._wait_s = _LOOK_FIRST_S
        self._not_before_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, key: Key, told: asyncio.Future[Found] | None = None) -> Found:
        """Wait until it is there; somebody else may know it first, and set `told`."""
        waiter: asyncio.Future[Found] = told or self._loop.create_future()
        self._waiting.setdefault(key, []).append(waiter)
        self._came = True
        if self._looking is None:
            self._look_at(self._not_before_s)
        try:
            return await waiter
        finally:
            waiter.cancel()
            self._leave(key, waiter)

    def _leave(self, key: Key, waiter: asyncio.Future[Found]) -> None:
        waiters = self._waiting.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[key]
        if not self._waiting and self._timer is not None:
            self._timer.cancel()

    def _look_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._begin)

    def _begin(self) -> None:
        self._looking = self._loop.create_task(self._look_once())

    async def _look_once(self) -> None:
        began, self._came = self._loop.time(), False
        found = await self._find(list(self._waiting))
        self._looking = None
        now = self._loop.time()
        self._not_before_s = now + _LOOKS_FOR_A_PART * (now - began)
        self._wait_s = _LOOK_FIRST_S if found or self._came else min(_LOOK_LATER_S, self._wait_s * 1.5)
        if self._waiting:
            self._look_at(max(self._not_before_s, now + self._wait_s))

    async def _find(self, keys: Sequence[Key]) -> bool:
        """Tell those for whom there is something; whether there was anything."""
        try:
            found = await self._look(keys)
        except Exception as error:
            if len(keys) > 1 and not isinstance(error, _OF_ALL):
                for key in keys:  # it is not known which: look at them one by one
                    await self._find([key])
                return True
            for waiter in chain.from_iterable(self._waiting.pop(key, ()) for key in keys):
                if not waiter.done():
                    waiter.set_exception(error)
            return True
        for key, what in found.items():
            for waiter in self._waiting.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(what)
        return bool(found)


class _Outbox:
    """Writes what many callers start, send and append: all since the last commit goes into one."""

    def __init__(self, write: Callable[[Batch], Awaitable[Committed]]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Asked] = []
        self._writing: asyncio.Task[None] | None = None

    def put(self, what: _What) -> asyncio.Future[Any]:
        """Write it: gives the outcome of a start or an append, the position of a message."""
        told: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append((what, told))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write_all())
        return told

    async def drain(self) -> None:
        """Wait until all that was asked for is written, or refused."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._asked:
                group = self._next_group()
                if group:
                    await self._write_group(group)
        finally:
            self._writing = None

    def _next_group(self) -> list[_Asked]:
        """What comes next, as far as one commit should hold it; without what nobody waits for any more."""
        group: list[_Asked] = []
        size = 0
        for place, (what, told) in enumerate(self._asked):
            if len(group) == _WRITTEN_AT_ONCE or size > _BYTES_AT_ONCE:
                self._asked = self._asked[place:]
                return group
            if not told.done():
                group.append((what, told))
                size += _size_of(what)
        self._asked = []
        return group

    async def _write_group(self, group: list[_Asked]) -> None:
        starts = [(what, told) for what, told in group if isinstance(what, NewRun)]
        messages = [(what, told) for what, told in group if isinstance(what, Message)]
        appends = [(what, told) for what, told in group if isinstance(what, Append)]
        batch = Batch(
            starts=[what for what, _ in starts],
            messages=[what for what, _ in messages],
            appends=[what for what, _ in appends],
        )
        try:
            committed = await self._write(batch)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, _OF_ALL):
                for asked in group:  # it is not known which is refused: nothing was written
                    await self._write_group([asked])
                return
            for _, told in group:
                if not told.done():
                    told.set_exception(error)
            return
        answers = chain(committed.starts, committed.messages, committed.appends)
        for (_, told), answer in zip(chain(starts, messages, appends), answers, strict=True):
            if not told.done():
                told.set_result(answer)


def _size_of(what: _What) -> int:
    """About how many bytes it is to write."""
    if isinstance(what, Append):
        return sum(len(event.payload) for event in what.events)
    return len((what.input if isinstance(what, NewRun) else what.payload) or b"")


_What = NewRun | Message | Append
_Asked = tuple[_What, asyncio.Future[Any]]

_OF_ALL = (StoreUnavailable, StoreMoved)
"""Errors that do not come of one start, message or run among many."""


class StoreDoor:
    """Through the store: for processes that run nothing. A worker takes it from there."""

    def __init__(self, store: Store) -> None:
        self.clock: Clock = SystemClock(offset_ms=store.clock_offset_ms())
        self.source: Source = SystemSource()
        self._store = store
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="perdure-client-reads")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="perdure-client-writes")
        self._outbox = _Outbox(self._submit)
        self._ends = Looks(self._stopped)
        self._replies = Looks(self._answered)

    async def read(self, look: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, look, self._store)

    async def write(self, verb: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, verb, self._store)

    async def _submit(self, batch: Batch) -> Committed:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._store.submit, batch)

    async def _stopped(self, numbers: Sequence[int]) -> dict[int, RunRow]:
        return await self.read(lambda store: stopped_or_refuse(store, numbers))

    async def _answered(self, requests: Sequence[str]) -> dict[str, Reply]:
        return await self.read(lambda store: replies_or_refuse(store, requests))

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        return await self._outbox.put(new)

    def start_within(
        self, connection: Any, new: NewRun, definition: WorkflowDefinition
    ) -> StartOutcome | Awaitable[StartOutcome]:
        return self._store.start_within(connection, new)

    async def send(self, message: Message) -> int:
        return await self._outbox.put(message)

    def append(self, append: Append) -> asyncio.Future[list[Placed] | Clash]:
        _ = self._store.streams  # says so where there are none
        return self._outbox.put(append)

    def append_within(
        self, connection: Any, append: Append, register: Callable[[Store, Any], object] | None
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        store = self._store
        bound = None if register is None else partial(register, store)
        return store.streams.append_within(connection, append, register=bound)

    async def ask(self, message: Message) -> Reply:
        if await self.send(message) == DROPPED:
            return Reply(message.request, False, None, 0)
        return await self._replies.wait(message.request)

    async def ended(self, number: int) -> RunRow:
        return await self._ends.wait(number)

    async def close(self) -> None:
        await self._outbox.drain()
        await self.read(lambda store: None)  # those that are under way
        await asyncio.get_running_loop().run_in_executor(self._writer, self._store.close)
        self._reader.shutdown()
        self._writer.shutdown()
