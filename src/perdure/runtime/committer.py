"""Group commit: what all runs produced since the last commit goes to disk in one transaction.

One writer thread holds the store. The loop hands it a batch and then waits for
it, but only for a moment: a commit of a fraction of a millisecond is answered
without a trip through the loop, and one that takes longer (a slow disk, a large
batch) does not stop the loop. Python's threads share one lock, and a loop that
is always busy would starve the writer for seconds; so while a commit is under
way the loop steps aside for it every now and then. Where a server does the work, much
is sent on while the loop makes more.

The order in which records are added is the order in which they are written and
delivered. After a StoreFull, StoreLocked or StoreUnreachable, what callers asked for is
refused to them, and what runs did is kept and tried again until it can be written.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..core.events import Append, Clash, Placed
from ..core.ready import Ready
from ..core.records import Message, NewRun, Record
from ..errors import LeaseLost, StoreError, StoreFull, StoreLocked, StoreUnreachable
from ..stores.base import Batch, Committed, Lease, StartOutcome, Store, Transaction
from .reads import told

if TYPE_CHECKING:
    from .resident import Resident

T = TypeVar("T")

_log = logging.getLogger("perdure")

# Long enough for the usual commit, short enough for the caller's loop.
_PATIENCE_S = 0.001
# How long the loop steps aside for a commit that takes longer, and how often.
_ASIDE_S = 0.005
_ASIDE_EVERY_S = 0.001
# From how many records on a server is given them while the loop goes on to make more.
_ENOUGH = 1_000
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0

OnStart = Callable[[StartOutcome | Exception], None]
OnMessage = Callable[[int | Exception], None]
OnAppend = Callable[[list[Placed] | Clash | Exception], None]

Filler = Callable[[Batch], Callable[[Exception | None], None] | None]
"""Adds to a batch that is about to be written; gives what is to be called once it is on disk."""


class Deliver(Protocol):
    """What the driver does with a commit that is on disk."""

    def __call__(
        self, residents: list[Resident | None], records: list[Record], values: list[Any]
    ) -> None: ...


class _Group:
    """One batch and what waits for it."""

    __slots__ = (
        "batch", "done", "finished", "on_appends", "on_commit", "on_messages", "on_starts", "residents",
        "result", "told", "values",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batch = Batch()
        self.residents: list[Resident | None] = []
        """Whose the records of the batch are, one for one."""
        self.values: list[Any] = []
        """Their payloads as Python values, where known: one for one."""
        self.on_starts: list[tuple[OnStart, bool]] = []
        self.on_messages: list[tuple[OnMessage, bool] | None] = []
        self.on_appends: list[OnAppend] = []
        self.on_commit: list[Callable[[Exception | None], None]] = []
        self.result: Committed | BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self.finished = False
        self.told = False
        """Whether the loop has gone away and must be told by call_soon_threadsafe."""


class Committer:
    """The one door to the store for everything that a worker writes."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        turn: Ready,
        deliver: Deliver,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._turn = turn
        self._store = store
        self._lease = lease
        self._deliver = deliver
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._overlaps = store.reads_block
        """Whether another process does the work of a commit, so that the loop may as well go on."""
        self._group = _Group()
        self._scheduled = False
        self._waits = False
        """Whether something was to be written while a commit was under way."""
        self._in_flight: _Group | None = None
        self._mutex = threading.Lock()
        self._work: SimpleQueue[_Group | Callable[[], object] | None] = SimpleQueue()
        self._wait_s = 0.0
        self._idle: list[asyncio.Future[None]] = []
        self.fillers: list[Filler] = []
        """Who has something for each commit, that is put together as late as can be."""
        self.on_events: Callable[[], None] = lambda: None
        """Called when events may have been appended."""
        self.on_written: Callable[[], None] = lambda: None
        """Called when somebody of this process has had the store write otherwise than by a commit."""
        self._dead: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._start_writer()

    # -- adding to the next commit ---------------------------------------------------------------

    @property
    def batch(self) -> Batch:
        """The batch that is being filled; call `schedule` after adding to it."""
        return self._group.batch

    def add_record(self, resident: Resident | None, record: Record, value: Any) -> None:
        """Write a record, and deliver it to its run, if that is in memory, once it is on disk."""
        group = self._group
        group.batch.records.append(record)
        group.residents.append(resident)
        group.values.append(value)
        if not self._scheduled:
            self.schedule()

    def add_transaction(
        self,
        resident: Resident,
        record: Record,
        work: Callable[[Any], bytes],
        told: Callable[[BaseException | None], None],
    ) -> None:
        """Do a step's work in the commit that writes its record; `told` hears how it went, once done."""
        transaction = Transaction(len(self._group.batch.records), record.key, record.digest, work, told)
        self._group.batch.transactions.append(transaction)
        self.add_record(resident, record, ...)

    def add_start(self, new: NewRun, on_start: OnStart, *, caller: bool) -> None:
        """Start a run. `caller`: somebody waits who can be told of a full disk."""
        self._group.batch.starts.append(new)
        self._group.on_starts.append((on_start, caller))
        self.schedule()

    def withdraw_starts(self, unwanted: Callable[[NewRun], bool]) -> None:
        """Take back starts that are not on their way to disk yet; their callbacks are not called."""
        group = self._group
        pairs = zip(group.batch.starts, group.on_starts, strict=True)
        kept = [(new, on_start) for new, on_start in pairs if not unwanted(new)]
        group.batch.starts[:] = [new for new, _ in kept]
        group.on_starts[:] = [on_start for _, on_start in kept]

    def add_message(self, message: Message, on_message: OnMessage | None, *, caller: bool) -> None:
        """Send a message; `on_message` gets its position."""
        self._group.batch.messages.append(message)
        self._group.on_messages.append(None if on_message is None else (on_message, caller))
        self.schedule()

    def add_append(self, append: Append, on_append: OnAppend) -> None:
        """Append events; `on_append`, of somebody who waits, gets what became of them."""
        self._group.batch.appends.append(append)
        self._group.on_appends.append(on_append)
        self.schedule()

    def after_commit(self, callback: Callable[[Exception | None], None]) -> None:
        """Call back when what was added so far is on disk, or with the error that stopped the worker."""
        self._group.on_commit.append(callback)
        self.schedule()

    def schedule(self) -> None:
        """Commit soon: at the end of this turn of the loop, so that others can join."""
        if not self._scheduled and self._dead is None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def ask_between(self, verb: Callable[[Store], T], then: Callable[[T | Exception], object]) -> None:
        """Run a verb of the store that writes on the writer's thread, between two commits.

        Its result, or whatever error it raised, goes to `then`, on the loop.
        """
        if self._dead is not None:
            then(_as_store_error(self._dead))
            return
        self._run_between(partial(_result_or_error, verb, self._store), partial(self._found, then))

    async def wait_between(self, verb: Callable[[Store], T]) -> T:
        """The same; gives the result, or raises the error."""
        return await told(partial(self.ask_between, verb))

    def check_lease(self) -> None:
        """Commit soon, with nothing to write if need be: a worker that has lost its lease finds it out."""
        self._group.batch.leases = max(self._group.batch.leases, 1)
        self.schedule()

    # -- the loop's side -------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        if self._in_flight is not None or self._dead is not None:
            self._waits = True  # what is added meanwhile goes with the next commit
            return
        self._waits = False
        group = self._next_group()
        if _is_empty(group.batch):
            for callback in group.on_commit:
                callback(None)
            self._wake_idle()
            return
        self._in_flight = group
        if self._hand_over(group):
            self._finish(group)
        else:
            self._leave(group)

    def _next_group(self) -> _Group:
        group, self._group = self._group, _Group()
        for fill in self.fillers:
            written = fill(group.batch)
            if written is not None:
                group.on_commit.append(written)
        return group

    def send_on(self) -> None:
        """Have much written at once, and go on meanwhile: runs that go in step would all wait for one commit.

        Called between two things that runs do, of which neither may be written in part.
        """
        if len(self._group.batch.records) >= _ENOUGH and self._in_flight is None and self._overlaps:
            self._send_on()

    def _send_on(self) -> None:
        if self._dead is not None:
            return
        group = self._in_flight = self._next_group()
        group.told = True
        self._work.put(group)
        self._loop.call_later(_ASIDE_EVERY_S, self._step_aside, group)

    def _leave(self, group: _Group) -> None:
        with self._mutex:
            if not group.finished:
                group.told = True
                self._loop.call_later(_ASIDE_EVERY_S, self._step_aside, group)
                return
        self._finish(group)

    def _step_aside(self, group: _Group) -> None:
        if self._in_flight is not group or group.finished:
            return
        if group.done.acquire(timeout=_ASIDE_S):
            group.done.release()
        else:
            self._loop.call_later(_ASIDE_EVERY_S, self._step_aside, group)

    def _finish(self, group: _Group) -> None:
        if self._in_flight is not group:
            return
        self._in_flight = None
        result = group.result
        if isinstance(result, StoreFull | StoreLocked | StoreUnreachable):
            self._keep(group, result)
            return
        if isinstance(result, BaseException):
            self._die(result, group)
            return
        assert result is not None
        self._wait_s = 0.0
        if self._overlaps and self._group.batch.records:
            self._send_on()  # it is written while what has been written is delivered
        try:
            with self._turn:
                self._hand_back(group, result)
        except Exception as error:  # ours: nobody may be left waiting for what cannot come
            self._die(error, group)
            raise
        if self._waits or self._group.on_commit or not _is_empty(self._group.batch):
            self.schedule()
        else:
            self._wake_idle()

    def _hand_back(self, group: _Group, result: Committed) -> None:
        for (on_start, _), outcome in zip(group.on_starts, result.starts, strict=True):
            on_start(outcome)
        for callback, position in zip(group.on_messages, result.messages, strict=True):
            if callback is not None:
                callback[0](position)
        for on_append, outcome in zip(group.on_appends, result.appends, strict=True):
            on_append(outcome)
        for transaction in group.batch.transactions:
            transaction.told(transaction.failed)
        for handling in group.batch.handlings:
            handling.told(handling.failed)
        self._deliver(group.residents, group.batch.records, group.values)
        batch = group.batch
        if batch.appends or batch.transactions or batch.handlings or batch.windows:
            self.on_events()
        for callback in group.on_commit:
            callback(None)

    def _keep(self, group: _Group, hindered: StoreFull | StoreLocked | StoreUnreachable) -> None:
        """Not now: refuse what callers wait for, keep what runs did, and try again in a while."""
        batch, newer = group.batch, self._group
        starts = [(new, back) for new, back in zip(batch.starts, group.on_starts, strict=True) if not back[1]]
        sent = [
            (message, back)
            for message, back in zip(batch.messages, group.on_messages, strict=True)
            if back is None or not back[1]
        ]
        for on_start, caller in group.on_starts:
            if caller:
                on_start(hindered)
        for back in group.on_messages:
            if back is not None and back[1]:
                back[0](hindered)
        for on_append in group.on_appends:
            on_append(hindered)
        batch.appends, group.on_appends = [], []
        batch.starts, group.on_starts = [new for new, _ in starts], [back for _, back in starts]
        batch.messages, group.on_messages = [message for message, _ in sent], [back for _, back in sent]
        _append(group, newer)
        group.done, group.finished, group.told, group.result = threading.Lock(), False, False, None
        group.done.acquire()
        self._group = group
        # For a lock the store itself has waited already, and once it is gone the lease must be renewed soon.
        longer_s = 0.0 if isinstance(hindered, StoreLocked) else 2 * self._wait_s
        self._wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, longer_s))
        _log.warning("%s Trying again in %.1f s; nothing is lost.", hindered, self._wait_s)
        self._scheduled = True
        self._loop.call_later(self._wait_s, self._flush)

    def _die(self, error: BaseException, group: _Group | None = None) -> None:
        """The worker can write no more: tell all who wait, once. What is under way comes back too late.

        `group`: what has just come back.
        """
        in_flight, self._in_flight = self._in_flight, None
        self._dead = error
        refusal = error if isinstance(error, Exception) else _as_store_error(error)
        for waiting in (group or _Group(), in_flight or _Group(), self._group):
            for on_start, _ in waiting.on_starts:
                on_start(refusal)
            for back in waiting.on_messages:
                if back is not None:
                    back[0](refusal)
            for on_append in waiting.on_appends:
                on_append(refusal)
            for callback in waiting.on_commit:
                callback(refusal)
        self._group = _Group()
        self._wake_idle()
        self._on_fatal(error)

    def _wake_idle(self) -> None:
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether everything added so far is on disk."""
        busy = self._in_flight is not None or self._scheduled or self._group.on_commit
        return not busy and _is_empty(self._group.batch)

    async def drain(self) -> None:
        """Wait until everything added so far is on disk (or the worker is dead)."""
        while self._dead is None and not self.is_idle:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            self.schedule()
            await waiter

    def stop(self) -> None:
        """End the writer thread; what was not drained is lost to this process, not to the store."""
        self._dead = self._dead or LeaseLost("The engine has stopped.")
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    @property
    def error(self) -> BaseException | None:
        """Why nothing more is written; None while all is well."""
        return self._dead

    # -- the writer's side -----------------------------------------------------------------------

    def _start_writer(self) -> None:
        self._thread = threading.Thread(target=self._write_forever, name="perdure-committer", daemon=True)
        self._thread.start()

    def _hand_over(self, group: _Group) -> bool:
        """Have a group written. Whether it was done at once."""
        self._work.put(group)
        return group.done.acquire(timeout=_PATIENCE_S)

    def _write(self, group: _Group) -> None:
        try:
            group.result = self._store.commit(self._lease, group.batch)
        except BaseException as error:
            group.result = error

    def _write_forever(self) -> None:
        while (group := self._work.get()) is not None:
            if not isinstance(group, _Group):
                group()  # a chore, which tells its result itself
                continue
            self._write(group)
            with self._mutex:
                group.finished = True
                told = group.told
            group.done.release()
            if told:
                self._tell(self._finish, group)

    def _tell(self, callback: Callable[[T], object], found: T) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, found)

    def _run_between(self, chore: Callable[[], T], then: Callable[[T], object]) -> None:
        """`chore` raises nothing: it would be the end of the thread, with nobody told."""
        self._work.put(lambda: self._tell(then, chore()))

    def _found(self, then: Callable[[T | Exception], object], found: T | BaseException) -> None:
        """On the loop: what a verb found. What is no Exception stops the worker, as in a commit."""
        if isinstance(found, BaseException) and not isinstance(found, Exception):
            then(_as_store_error(found))
            self._die(found)
        else:
            then(found)


def _result_or_error(verb: Callable[[Store], T], store: Store) -> T | BaseException:
    """Any error: the writer's thread goes on, and whoever asked hears of it."""
    try:
        return verb(store)
    except BaseException as error:
        return error


def _as_store_error(error: BaseException) -> StoreError:
    """Of what stopped the worker."""
    return error if isinstance(error, StoreError) else LeaseLost(f"The worker stopped: {error!r}.")


def _append(group: _Group, newer: _Group) -> None:
    """Put what was added later behind what could not be written."""
    for transaction in newer.batch.transactions:
        transaction.place += len(group.batch.records)
    for name in Batch.__struct_fields__:
        if name != "leases":
            getattr(group.batch, name).extend(getattr(newer.batch, name))
    group.batch.leases = max(group.batch.leases, newer.batch.leases)
    group.residents.extend(newer.residents)
    group.values.extend(newer.values)
    group.on_starts.extend(newer.on_starts)
    group.on_messages.extend(newer.on_messages)
    group.on_appends.extend(newer.on_appends)
    group.on_commit.extend(newer.on_commit)


def _is_empty(batch: Batch) -> bool:
    """Whether a batch would write nothing."""
    return not (
        batch.starts or batch.records or batch.forgotten or batch.ends or batch.wakes or batch.freed
        or batch.states or batch.attempts or batch.jobs or batch.withdrawn or batch.messages or batch.taken
        or batch.replies or batch.appends or batch.lanes or batch.dead or batch.cleared
        or batch.watches or batch.handlings or batch.windows or batch.leases
    )  # fmt: skip
