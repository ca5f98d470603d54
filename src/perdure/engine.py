"""`Engine`: a worker and a client in one object. The composition root of what runs runs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from .blocks.keeping import keep_rules
from .blocks.serving import Handlers
from .blocks.step import steps_for
from .blocks.workflow import Workflow
from .client import Client
from .core.events import Append, Clash, Placed
from .core.records import Message, NewRun, RunRow
from .doors import Door, Looks, replies_by_request, stopped_row, stopped_rows
from .errors import StoreError, WorkflowNotRegistered
from .homes import open_working_home
from .runtime.claims import CAPACITY, Claims
from .runtime.clock import Clock, Source, SystemClock, SystemSource
from .runtime.collector import collector
from .runtime.definitions import WorkflowDefinition
from .runtime.driver import RESIDENTS_KEPT, Driver
from .runtime.glance import Glance
from .runtime.guard import install_guard
from .runtime.inbox import Inbox
from .runtime.jobs import Jobs
from .runtime.keeping import Keeping
from .runtime.lease import LeaseKeeper
from .runtime.lookout import Lookout
from .runtime.parked import Parked
from .runtime.recovery import Recovery
from .runtime.registry import Registry
from .runtime.retention import Retention
from .runtime.step_process import refuse_while_loading
from .runtime.subscriptions import Subscribing, Subscriptions
from .runtime.watchdog import Watchdog
from .stores.base import DROPPED, Lease, Reply, StartOutcome, Store
from .stores.opening import DEFAULT_URL, open_store

T = TypeVar("T")

_log = logging.getLogger("perdure")

_CLOCKS_MAY_DIFFER_MS = 2_000


class EngineDoor:
    """Through the worker of this process: what is sent is handed over without being looked for."""

    def __init__(self, driver: Driver, inbox: Inbox) -> None:
        self.clock = driver.clock
        self.source = driver.source
        self._driver = driver
        self._inbox = inbox
        self._reads = driver.reads
        self._ends = Looks(self._stopped)
        self._replies = Looks(self._answered)

    async def read(self, look: Callable[[Store], T]) -> T:
        return await self._reads.wait(look)

    async def write(self, verb: Callable[[Store], T]) -> T:
        self._check_alive()
        committer = self._driver.committer
        try:
            return await committer.wait_between(verb)
        finally:
            committer.on_written()

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        driver = self._driver
        driver.registry.add(definition)
        self._check_alive()
        starting = _Starting(driver, definition)
        driver.committer.add_start(new, starting, caller=True)
        return await starting.outcome

    def start_within(
        self, connection: Any, new: NewRun, definition: WorkflowDefinition
    ) -> StartOutcome | Awaitable[StartOutcome]:
        self._driver.registry.add(definition)
        return self._driver.store.start_within(connection, new)

    async def send(self, message: Message) -> int:
        driver = self._driver
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_message(position: int | Exception) -> None:
            if isinstance(position, Exception):
                if not sent.done():
                    sent.set_exception(position)
                return
            if position > 0:
                self._inbox.hand_over(message._replace(pos=position))
            if not sent.done():
                sent.set_result(position)

        self._check_alive()
        driver.committer.add_message(message, on_message, caller=True)
        return await sent

    def append(self, append: Append) -> asyncio.Future[list[Placed] | Clash]:
        told: asyncio.Future[list[Placed] | Clash] = asyncio.get_running_loop().create_future()

        def on_append(outcome: list[Placed] | Clash | Exception) -> None:
            if told.done():
                return
            if isinstance(outcome, Exception):
                told.set_exception(outcome)
            else:
                told.set_result(outcome)

        self._check_alive()
        _ = self._driver.store.streams  # says so where there are none
        self._driver.committer.add_append(append, on_append)
        return told

    def append_within(
        self, connection: Any, append: Append, register: Callable[[Store, Any], object] | None
    ) -> list[Placed] | Clash | Awaitable[list[Placed] | Clash]:
        store = self._driver.store
        bound = None if register is None else partial(register, store)
        return store.streams.append_within(connection, append, register=bound)

    async def ask(self, message: Message) -> Reply:
        with self._driver.closing.waiting_for_reply(message.request) as waiter:
            if await self.send(message) == DROPPED:
                return Reply(message.request, False, None, 0)
            if await self._is_here(message.run):
                return await waiter
            return await self._replies.wait(message.request, waiter)

    async def ended(self, number: int) -> RunRow:
        driver = self._driver
        # Listened for before it is looked for: no end is missed that comes in between.
        with driver.closing.waiting_for_end(number) as waiter:
            if number not in driver.residents:
                row = await self.read(lambda store: stopped_row(store, number))
                if row is not None:
                    return row
                await self._check_known(number)
            self._check_alive()
            if await self._is_here(number):
                return await waiter
            return await self._ends.wait(number, waiter)

    async def _stopped(self, numbers: Sequence[int]) -> dict[int, RunRow]:
        return await self.read(lambda store: stopped_rows(store, numbers))

    async def _answered(self, requests: Sequence[str]) -> dict[str, Reply]:
        return await self.read(lambda store: replies_by_request(store, requests))

    async def _is_here(self, number: int) -> bool:
        """Whether a run is this worker's, which is told of all that becomes of it; others' are looked at."""
        if self._driver.has_in_hand(number):
            return True
        row = await self.read(lambda store: store.run_by_number(number))
        return row is not None and row.lease == self._driver.lease.number

    async def _check_known(self, number: int) -> None:
        row = await self.read(lambda store: store.run_by_number(number))
        if row is None or self._driver.registry.find(row.workflow) is not None:
            return
        now_ms = self._driver.clock.now_ms()
        workers = await self.read(lambda store: store.workers(now_ms=now_ms))
        if len(workers) <= 1:
            raise WorkflowNotRegistered(
                f"Run {row.id!r} waits for workflow {row.workflow!r}, which this process does not define, "
                "and no other worker is alive.",
                run_id=row.id,
                hint="Import the module that defines it, before or while the engine is open.",
            )

    def _check_alive(self) -> None:
        error = self._driver.committer.error
        if error is not None:
            raise error

    async def close(self) -> None:
        """Nothing of its own to let go."""


class _Starting:
    """A start on its way to disk, and who waits for it."""

    __slots__ = ("_definition", "_driver", "outcome")

    def __init__(self, driver: Driver, definition: WorkflowDefinition) -> None:
        self._driver = driver
        self._definition = definition
        self.outcome: asyncio.Future[StartOutcome] = asyncio.get_running_loop().create_future()

    def __call__(self, outcome: StartOutcome | Exception) -> None:
        if isinstance(outcome, Exception):
            if not self.outcome.done():
                self.outcome.set_exception(outcome)
            return
        if outcome.verdict == "started":
            self._driver.begin(outcome.run, self._definition)
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Engine(Client):
    """Runs workflows in this process, kept in one store.

        async with Engine("sqlite:///shop.db") as engine:
            receipt = await engine.run(checkout(order), id="order-17")

    When it opens, it takes a lease of its own (StoreInUse if the file has four
    workers already), and goes on with every run that was interrupted and that no
    other worker has in hand. When it closes, steps under way are cancelled, what is
    done is written, and runs wait on disk for another worker, or the next engine.
    After `kill -9` others go on at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        workflows: Iterable[Workflow[Any, Any]] | None = None,
        handlers: Iterable[Subscribing] | None = None,
        clock: Clock | None = None,
        source: Source | None = None,
        residents_kept: int = RESIDENTS_KEPT,
        capacity: int = CAPACITY,
        tags: Iterable[str] = (),
    ) -> None:
        """`url` names the store. `workflows`: run only these; by default all that are defined;
        `handlers` of events, and bridges to brokers, the same.

        `clock` and `source` are for tests. `residents_kept`: how many waiting runs
        stay in memory; the others are replayed when their time comes. `capacity`: with
        so many steps under way it takes up no more of the runs that wait for a worker;
        what is started here, or was here before, it runs all the same. `tags`: it also runs
        the steps of other workers' runs that ask for one of these, `@step(worker="gpu")`.
        """
        super().__init__(url)
        self._workflows = workflows
        self._handlers = Handlers(handlers)
        self._clock = clock
        self._source: Source = source or SystemSource()
        self._residents_kept = residents_kept
        self._capacity = capacity
        self._tags: frozenset[str] | None = frozenset([tags] if isinstance(tags, str) else tags)
        self._store: Store | None = None
        self._home: Door | None = None
        self._driver: Driver | None = None
        self._lookout: Lookout | None = None
        self._keeper: LeaseKeeper | None = None
        self._claims: Claims | None = None
        self._jobs: Jobs | None = None
        self._parked: Parked | None = None
        self._subscriptions: Subscriptions | None = None
        self._retention: Retention | None = None
        self._keeping: Keeping | None = None
        self._watchdog: Watchdog | None = None
        self._stopped: asyncio.Future[BaseException] | None = None
        self.recovered = 0
        """How many runs were under way when this engine opened the store, and go on."""

    async def __aenter__(self) -> Self:
        """Open the store, take the lease, and go on with what was interrupted."""
        refuse_while_loading()
        install_guard()
        if await self._open_home():
            return self
        store = open_store(self._url)
        try:
            await self._open(store)
        except BaseException:
            await self._close()
            store.close()
            raise
        return self

    async def _open_home(self) -> bool:
        """Whether the URL names a home that is no store; it brings a worker of its own."""
        self._stopped = asyncio.get_running_loop().create_future()
        self._door = self._home = await open_working_home(
            self._url,
            self._make_registry(),
            self._fatal,
            capacity=self._capacity,
            residents_kept=self._residents_kept,
            tags=sorted(self._tags or ()),
            is_simulated=self._clock is not None or not isinstance(self._source, SystemSource),
        )
        if self._home is not None and (handlers := self._handlers.news()):
            home, self._home, self._door = self._home, None, None
            await home.close()
            names = ", ".join(f"{handler.name}() of {handler.stream!r}" for handler in handlers)
            raise StoreError(
                f"Store '{self.url}' keeps no event streams, and these handlers are defined here: {names}.",
                hint="Serve them by an engine on an SQLite file, and give this one handlers=[].",
            )
        return self._home is not None

    async def _open(self, store: Store) -> None:
        clock = self._clock or self._clock_of(store)
        keeper = LeaseKeeper(store, clock, f"{socket.gethostname()}:{os.getpid()}", sorted(self._tags or ()))
        lease = keeper.acquire()
        collector.relax()
        self._store, self._keeper = store, keeper
        self._stopped = asyncio.get_running_loop().create_future()
        driver = self._driver = self._make_driver(store, lease, clock)
        keeper.start(driver.committer)
        self._start_watchdog(driver)
        inbox = Inbox(driver)
        recovery = Recovery(driver)
        claims = self._claims = Claims(driver, recovery, capacity=self._capacity)
        jobs = self._jobs = self._make_jobs(driver)
        self._door = EngineDoor(driver, inbox)
        self.recovered = await claims.recover()
        driver.timers.start()
        inbox.look()
        self._parked = Parked(driver, recovery.find)
        await self._parked.retry()
        jobs.look()
        subscriptions = self._subscriptions = Subscriptions(driver, self._handlers.news)
        await subscriptions.open()
        self._lookout = Lookout(
            store,
            inbox.look,
            self._look_for_free,
            jobs.look,
            Glance(driver, inbox, keeper, subscriptions).ask,
        )
        self._lookout.start()
        self._retention = Retention(clock, driver.committer)
        self._retention.start()
        self._keeping = Keeping(clock, driver.committer, keep_rules)
        self._keeping.start()

    def _make_jobs(self, driver: Driver) -> Jobs:
        driver.effects.tags = tags = self._tags
        return Jobs(driver, lambda: steps_for(tags) if tags else [], capacity=self._capacity)

    def _look_for_free(self) -> None:
        if self._claims is not None and self._subscriptions is not None:
            self._claims.look()
            self._subscriptions.look()

    def _clock_of(self, store: Store) -> Clock:
        """The machine's clock, put right by that of the store, which all workers share."""
        offset_ms = store.clock_offset_ms()
        if abs(offset_ms) > _CLOCKS_MAY_DIFFER_MS:
            _log.warning(
                "This machine's clock is off by %.1f s from that of store %s; the store's is used.",
                -offset_ms / 1000, self.url,
            )  # fmt: skip
        return SystemClock(offset_ms=offset_ms)

    def _start_watchdog(self, driver: Driver) -> None:
        self._watchdog = Watchdog(driver)
        self._watchdog.start()

    def _make_registry(self) -> Registry:
        return Registry(self._workflows)

    def _make_driver(self, store: Store, lease: Lease, clock: Clock, **parts: Any) -> Driver:
        return Driver(
            store,
            lease,
            self._make_registry(),
            clock,
            self._source,
            on_fatal=self._fatal,
            residents_kept=self._residents_kept,
            **parts,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._registrar.drain()
        store, self._store = self._store, None
        home, self._home = self._home, None
        await self._close()
        if store is not None:
            store.close()
        if home is not None:
            await home.close()

    async def _close(self) -> None:
        """Stop what has been started, also where opening failed half-way."""
        keeper, self._keeper, self._door = self._keeper, None, None
        if keeper is None:
            return
        collector.restore()
        keeper.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._claims is not None:
            self._claims.stop()
        if self._jobs is not None:
            self._jobs.stop()
        if self._parked is not None:
            self._parked.stop()
        if self._retention is not None:
            self._retention.stop()
        if self._keeping is not None:
            self._keeping.stop()
        if self._lookout is not None:
            self._lookout.stop()
        if self._subscriptions is not None:
            await self._subscriptions.stop()
        if self._driver is not None:
            await self._driver.stop()
            closed = "The engine was closed before the run ended."
            self._driver.closing.stop(
                StoreError(closed, hint="The run goes on when an engine opens the store.")
            )
        try:
            keeper.release()
        except StoreError as failed:
            if self._stopped is None or not self._stopped.done():  # else the log says why nothing is written
                _log.warning("The lease could not be given back: %s", failed)

    def _fatal(self, error: BaseException) -> None:
        """The worker cannot write any more: everybody who waits hears why."""
        _log.error("The engine on %s has stopped: %s", self.url, error)
        if self._lookout is not None:
            self._lookout.stop()
        if self._driver is not None and self._keeper is not None:
            self._keeper.stop()
            if self._subscriptions is not None:
                self._subscriptions.abandon()
            self._driver.abandon()
            self._driver.closing.stop(error)
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(error)

    async def drain(self, seconds: float = 10.0) -> None:
        """Take up and begin nothing more, and wait until no step runs, so many seconds at most.

        For an orderly end: steps that are done are recorded, those that would come next
        are left, and when the engine closes other workers go on with all its runs. What
        still runs then is cancelled, and runs again elsewhere, as after a crash.
        """
        if self._claims is not None and self._driver is not None and self._subscriptions is not None:
            self._claims.stop()
            if self._jobs is not None:
                self._jobs.stop()
            await asyncio.gather(self._subscriptions.drain(seconds), self._driver.drain(seconds))
            await self._driver.committer.drain()

    async def serve(self) -> None:
        """Run until cancelled. Raises what stopped the worker, such as LeaseLost."""
        _ = self.door  # says so when the engine is not open
        assert self._stopped is not None
        raise await asyncio.shield(self._stopped)

    @property
    def handlers(self) -> list[str]:
        """The handlers of events that it serves, `orders/count_revenue`, sorted."""
        return [] if self._subscriptions is None else self._subscriptions.names

    @property
    def unknown_workflows(self) -> frozenset[str]:
        """Workflows of runs that wait for a worker, and that this process does not define."""
        if self._driver is None or self._store is None:
            return frozenset()
        driver = self._driver
        waiting = self._store.free_workflows(now_ms=driver.clock.now_ms())
        return frozenset(waiting).difference(driver.registry.names())
