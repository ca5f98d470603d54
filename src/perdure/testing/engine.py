"""The engine that tests use: a real one whose store can fail, and at whose steps a test can look on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

from ..core.commands import RunStep
from ..engine import Engine
from ..errors import DefinitionError
from ..runtime.clock import Clock, Source
from ..runtime.collector import collector
from ..runtime.definitions import WorkflowDefinition
from ..runtime.driver import Driver
from ..runtime.effects import Effects, Recorder
from ..runtime.registry import Registry
from ..runtime.resident import Resident
from ..stores.base import Lease, Store
from .faulty import FaultyStore

OnAsked = Callable[[Resident, RunStep], None]
RanBefore = WeakValueDictionary[str, WorkflowDefinition]


class WatchedEffects(Effects):
    """Effects that tell of each step before they run it."""

    def __init__(self, on_asked: OnAsked, recorder: Recorder, clock: Clock, source: Source) -> None:
        super().__init__(recorder, clock, source)
        self._on_asked = on_asked

    def start(self, resident: Resident, pending: RunStep) -> None:
        self._on_asked(resident, pending)
        super().start(resident, pending)


class Ran(Registry):
    """Knows which of two workflows of one name the engines before this one have run.

    A test suite is one process: its modules may each have a `checkout` of their own.
    """

    collects = False  # a test may open hundreds of engines, and what they ran is known

    def __init__(
        self,
        workflows: Iterable[WorkflowDefinition] | None,
        ran: WeakValueDictionary[str, WorkflowDefinition],
    ) -> None:
        self._ran = ran
        super().__init__(workflows)

    def add(self, definition: WorkflowDefinition) -> None:
        super().add(definition)
        self._ran[definition.name] = definition

    def names(self) -> list[str]:
        return sorted({*super().names(), *(self._ran if self._open else ())})

    def find(self, name: str) -> WorkflowDefinition | None:
        try:
            return super().find(name)
        except DefinitionError:
            known = self._ran.get(name)
            if known is None:
                raise
            return known


class HarnessEngine(Engine):
    """An engine whose store can fail, and whose inside a test can look at."""

    faulty: FaultyStore
    ran: RanBefore | None = None
    """Shared by the engines of one test: the workflows that they have run."""
    on_asked: OnAsked | None = None
    """Hears of each step that a run asks for, in this life or again after a crash."""

    serves: frozenset[str] | None = None
    """Its tags; None: all, and what asks for a worker runs in place."""

    async def _open(self, store: Store) -> None:
        self._tags = self.serves
        self.faulty = store if isinstance(store, FaultyStore) else FaultyStore(store)
        # A FaultyStore passes on what it does not define, which a type checker cannot see.
        await super()._open(cast(Store, self.faulty))

    def _make_registry(self) -> Registry:
        return super()._make_registry() if self.ran is None else Ran(self._workflows, self.ran)

    def _make_driver(self, store: Store, lease: Lease, clock: Clock, **parts: Any) -> Driver:
        on_asked = self.on_asked
        if on_asked is not None:
            parts["make_effects"] = partial(WatchedEffects, on_asked)
        return super()._make_driver(store, lease, clock, **parts)

    @property
    def driver(self) -> Driver:
        """What drives the runs."""
        assert self._driver is not None, "the engine is not open"
        return self._driver

    @property
    def is_open(self) -> bool:
        """Whether it may be talked to."""
        return self._door is not None

    def drop(self) -> None:
        """Let go of the store without a word, and of the writer's thread; also when the loop has gone."""
        store, self._store = self._store, None
        if store is None or self._driver is None:
            return
        self._door = None
        collector.restore()
        if self._watchdog is not None:
            self._watchdog.stop()
        self.faulty.kill()
        self._driver.committer.stop()
        store.close()

    @property
    def running_steps(self) -> int:
        """Steps whose function runs now; not those that wait for their next attempt."""
        driver = self.driver
        own = sum(len(run.in_flight) for run in driver.residents.values())
        return own + len(driver.jobs) - driver.effects.waiting

    @property
    def is_quiet(self) -> bool:
        """Whether all that was done is on disk, and told to the runs."""
        committer = self.driver.committer
        driver = self.driver
        busy = driver.loading or driver.claiming or driver.claiming_jobs or driver.is_trying_parked
        events = self._subscriptions
        busy = busy or (events is not None and not events.is_quiet) or not driver.reads.is_quiet
        return committer.error is not None or (committer.is_idle and not busy)

    def next_ms(self) -> int | None:
        """The next moment at which a run must be woken, in memory or asleep on disk."""
        if self._driver is None or self._driver.stopped:
            return None
        after = (self._driver.clock.now_ms(), 1 << 62)
        asleep = self.faulty.sleeping_runs(self._driver.lease, after=after, until_ms=1 << 62, limit=1)
        moments = [at_ms for at_ms, _ in asleep]
        in_memory = self._driver.timers.next_ms()
        if in_memory is not None:
            moments.append(in_memory)
        return min(moments, default=None)
