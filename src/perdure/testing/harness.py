"""An engine in a test's hands: its time, its chance, its faults, its crashes.

    async with Harness(tmp_path / "shop.db") as harness:
        run = await harness.engine.start(checkout(order), id="order-17")
        await harness.crash()
        await harness.advance(86_400)

The engine is a real one on a real file. Nothing here sleeps: `until` and
`settle` follow the engine, and fail after a while instead of hanging.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, cast

from ..blocks.workflow import Workflow
from ..engine import Engine
from ..runtime.clock import Source
from ..runtime.driver import RESIDENTS_KEPT, Driver
from ..stores.base import Store
from .clock import ManualClock, loop_turn
from .faulty import FaultyStore
from .source import SeededSource

_PATIENCE_S = 20.0
_QUIET_TURNS = 6
_NAP_S = 0.000_5
_TURNS_BEFORE_NAP = 25


class HarnessEngine(Engine):
    """An engine whose store can fail, and whose inside a test can look at."""

    faulty: FaultyStore

    async def _open(self, store: Store) -> None:
        self.faulty = FaultyStore(store)
        # A FaultyStore passes on what it does not define, which a type checker cannot see.
        await super()._open(cast(Store, self.faulty))

    @property
    def driver(self) -> Driver:
        """What drives the runs."""
        assert self._driver is not None, "the engine is not open"
        return self._driver

    @property
    def is_open(self) -> bool:
        """Whether it may be talked to."""
        return self._door is not None

    @property
    def running_steps(self) -> int:
        """Steps whose function runs now; not those that wait for their next attempt."""
        driver = self.driver
        return sum(len(run.in_flight) for run in driver.residents.values()) - driver.effects.waiting

    @property
    def is_quiet(self) -> bool:
        """Whether all that was done is on disk, and told to the runs."""
        committer = self.driver.committer
        return committer.is_idle or committer.error is not None

    def next_ms(self) -> int | None:
        """The next moment at which a run must be woken, in memory or asleep on disk."""
        if self._driver is None or self._driver.stopped:
            return None
        asleep = self.faulty.sleeping_runs(
            after=(self._driver.clock.now_ms(), 1 << 62), until_ms=1 << 62, limit=1
        )
        moments = [at_ms for at_ms, _ in asleep]
        in_memory = self._driver.timers.next_ms()
        if in_memory is not None:
            moments.append(in_memory)
        return min(moments, default=None)


class Harness:
    """One store, and the engines that open it one after another."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        seed: int = 0,
        clock: ManualClock | None = None,
        workflows: Iterable[Workflow[Any, Any]] | None = None,
        residents_kept: int = RESIDENTS_KEPT,
        time_flies: bool = False,
    ) -> None:
        """`time_flies`: whenever only time can get a run on, the clock goes to that time by itself."""
        self.url = f"sqlite:///{os.fspath(path)}"
        self.clock = clock or ManualClock()
        self.source: Source = SeededSource(seed)
        self.workflows = workflows
        self._residents_kept = residents_kept
        self._time_flies = time_flies
        self._pilot: asyncio.Task[None] | None = None
        self.engine = self._make_engine()
        self.clock.settle = self.settle
        self.clock.next_elsewhere = lambda: self.engine.next_ms()  # noqa: PLW0108 (the engine changes)

    def _make_engine(self) -> HarnessEngine:
        return HarnessEngine(
            self.url,
            clock=self.clock,
            source=self.source,
            workflows=self.workflows,
            residents_kept=self._residents_kept,
        )

    @property
    def store(self) -> FaultyStore:
        """The store of the engine that is open."""
        return self.engine.faulty

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        if self._time_flies:
            self._pilot = asyncio.get_running_loop().create_task(self._let_time_fly())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pilot is not None:
            self._pilot.cancel()
        await self.stop()

    # -- the lives of the engine -----------------------------------------------------------------

    async def stop(self) -> None:
        """Close the engine as a deploy does."""
        self.engine.faulty.release_commits()
        await self.engine.__aexit__(None, None, None)

    async def start(self) -> HarnessEngine:
        """Open the store with a new engine."""
        self.engine = self._make_engine()
        await self.engine.__aenter__()
        return self.engine

    async def restart(self) -> HarnessEngine:
        """Close the engine and open a new one on the same file."""
        await self.stop()
        return await self.start()

    async def crash(self) -> HarnessEngine:
        """Drop the engine as `kill -9` would, and open a new one: what was not on disk is gone."""
        await self.kill()
        return await self.start()

    async def kill(self) -> None:
        """Drop the engine as `kill -9` would. The lease is not given back, and nothing more is written.

        Steps on the loop are cancelled, which a real death would not do; a thread that
        is in a step goes on, which it would not.
        """
        engine = self.engine
        store = engine.faulty
        store.kill()
        committer = engine.driver.committer
        committer.batch.leases = 1  # something to write, so that the worker notices its death
        committer.schedule()
        await self.until(lambda: committer.error is not None)
        await engine.__aexit__(None, None, None)

    # -- waiting for moments ---------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], *, seconds: float = _PATIENCE_S) -> None:
        """Let the engine work until `condition()` is true. Raises AssertionError if it does not come."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        turns = 0
        while not condition():
            if loop.time() > give_up_at:
                raise AssertionError(f"waited {seconds:g} s for a moment that did not come")
            turns += 1
            # A loop that spins starves the writer's thread and the steps' threads.
            await (loop_turn() if turns % _TURNS_BEFORE_NAP else _nap())

    async def settle(self) -> None:
        """Let the engine work until nothing more comes of what was done: only time or a test gets it on.

        A step that a test holds up counts as settled; one on a thread does not wait here.
        """
        quiet = 0

        def is_settled() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if self.engine.is_quiet else 0
            return quiet > _QUIET_TURNS

        await self.until(is_settled)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, moment by moment."""
        await self.clock.advance(seconds)

    async def _let_time_fly(self) -> None:
        while True:
            await _nap()
            if self.engine.is_open and self.engine.is_quiet and not self.engine.running_steps:
                await self.settle()
                if not self.engine.running_steps:
                    await self.clock.advance_to_next()


async def _nap() -> None:
    """Give other threads room."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(_NAP_S, lambda: woken.done() or woken.set_result(None))
    await woken
