"""An engine that dies where its world says: the real one, on a disk in memory, with no thread to write.

What a test must hold in its hands is put in at three seams: the store (a commit
can die before or after it is written), the committer (a commit can be held up,
and is otherwise written at once, on the loop), the effects (a step's function is
called through a watch).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from ...blocks.handler import Handler
from ...blocks.serving import defined_handlers
from ...core.commands import RunStep
from ...core.events import EventRow, SubscriptionRow
from ...errors import LeaseLost
from ...runtime.attempt import current_attempt
from ...runtime.clock import Clock
from ...runtime.committer import Committer
from ...runtime.definitions import Place, StepDefinition
from ...runtime.driver import Driver
from ...runtime.resident import Resident
from ...runtime.subscriptions import Subscribing
from ...stores.base import Batch, Committed, Lease, Store
from ..engine import HarnessEngine
from ..faulty import FaultyStore
from ..journals import Asked
from .spots import is_one_effect
from .watching import dead, watched
from .world import Effect, World

T = TypeVar("T")


class DoomedStore(FaultyStore):
    """What one engine sees of the disk."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store)
        self._world = world
        self._moment = ""
        self.is_zombie = False

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int, tags: Sequence[str]) -> Lease:
        """Take the lease: in a later life, as a worker whose clock says that the one before is over."""
        late_ms = now_ms + self._world.late_ms(ttl_ms)
        return self.store.acquire(worker, now_ms=late_ms, ttl_ms=ttl_ms, tags=tags)

    def holds_up(self, batch: Batch) -> bool:
        """Whether this commit is held up; comes just before `commit`."""
        world = self._world
        self._moment = "" if self._killed or world.is_dead else world.names.of_batch(batch)
        if batch.handlings:
            world.deliveries.learn()
        if self._moment and not self._moment.startswith("wake/") and world.reach(self._moment, "zombie"):
            world.is_paused = self.is_zombie = True
        return self.is_zombie and not self._killed

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        """Write, or die before or after."""
        world, moment = self._world, self._moment
        if self.is_zombie and not self._killed:
            return self._commit_late(lease, batch)
        if self._killed or world.is_dead:
            raise dead()
        if moment:
            self._jump(moment, batch)
            if not is_one_effect(batch) and world.reach(moment, "before-record"):
                self._die()
        committed = self.store.commit(lease, batch)
        world.committed(batch, committed)
        if moment and world.reach(moment, "after-record"):
            self._die()
        return committed

    def _jump(self, moment: str, batch: Batch) -> None:
        if batch.records:
            for fault in ("clock-forward", "clock-back"):
                if self._world.reach(moment, fault):
                    self._world.jump(fault)

    def _commit_late(self, lease: Lease, batch: Batch) -> Committed:
        try:
            committed = self.store.commit(lease, batch)
        except LeaseLost:
            raise
        except BaseException as error:
            self._world.complain(f"a worker that had lost its lease was not refused by the fence: {error!r}")
            raise
        self._world.complain("a worker that had lost its lease has written")
        return committed

    def _die(self) -> None:
        self._world.die()
        self.kill()
        raise dead()

    def close(self) -> None:
        """The disk stays."""


class InlineCommitter(Committer):
    """Writes at once, on the loop: a disk in memory keeps nobody waiting."""

    _held: Any = None

    def _start_writer(self) -> None:
        """There is none."""

    def _hand_over(self, group: Any) -> bool:
        store: Any = self._store
        if store.holds_up(group.batch):
            self._held = group
            return False
        self._write(group)
        return True

    def _leave(self, group: Any) -> None:
        """It is held up until `let_go`."""

    def let_go(self) -> None:
        """Write what was held up."""
        group, self._held = self._held, None
        if group is not None:
            self._write(group)
            self._finish(group)

    def _run_between(self, chore: Callable[[], T], then: Callable[[T], object]) -> None:
        self._loop.call_soon(then, chore())


class WatchedStep:
    """A step's definition whose function is called through the world."""

    __slots__ = ("_definition", "_resident", "_store", "_world", "guarded", "name", "place", "settle")

    def __init__(
        self, definition: StepDefinition, world: World, store: DoomedStore, resident: Resident
    ) -> None:
        self._definition = definition
        self._world = world
        self._store = store
        self._resident = resident
        # These are asked for at each call; `__getattr__` takes its time.
        self.name, self.guarded, self.settle = definition.name, definition.guarded, definition.settle
        self.place: Place = definition.place if definition.place != "process" else "thread"

    @property
    def fn(self) -> Callable[..., Any]:
        """What the effects call."""
        return self._call_on_loop if self.place == "loop" else self._call_on_thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._definition, name)

    async def _call_on_loop(self, *args: Any, **kwargs: Any) -> Any:
        begun = self._begin(args, kwargs)
        if begun is None:
            await _never()
        try:
            value = await self._definition.fn(*args, **kwargs)
        except asyncio.CancelledError:
            self._world.running -= 1
            raise
        except BaseException:
            if self._dies_after(begun):
                await _never()
            raise
        if self._dies_after(begun):
            await _never()
        return value

    def _call_on_thread(self, *args: Any, **kwargs: Any) -> Any:
        begun = self._begin(args, kwargs)
        if begun is None:
            raise dead()
        is_dead = False
        try:
            return self._definition.fn(*args, **kwargs)
        finally:
            is_dead = self._dies_after(begun)
            self._world.stir()
            if is_dead and self.place == "transaction":
                raise dead()  # and so nothing of it is written

    def _is_gone(self) -> bool:
        # A worker that is held up goes on with the steps that it has begun, and begins no other.
        return self._world.is_dead or self._store._killed or self._store.is_zombie  # pyright: ignore[reportPrivateUsage]

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Effect] | None:
        """Note the call; None when the worker is dead, or dies here."""
        world, row = self._world, self._resident.row
        if self._is_gone():
            return None
        info = current_attempt.get().info()
        moment = world.names.of_call(row.number, info.key, info.attempt)
        key, attempt = info.idempotency_key, info.attempt
        effect = Effect(row.id, self.name, info.key, key, attempt, args, kwargs, world.life)
        if world.reach(moment, "before-effect"):
            world.die()
            return None
        world.called(row.number, effect)
        return moment, effect

    def _dies_after(self, begun: tuple[str, Effect] | None) -> bool:
        """Note that the function has come to its end; whether the worker is dead."""
        assert begun is not None
        moment, effect = begun
        self._world.came_to_its_end(effect)
        if self._is_gone():
            return True
        if self._world.reach(moment, "after-effect"):
            self._world.die()
            return True
        return False


async def _never() -> None:
    """Until the task is cancelled."""
    await asyncio.get_running_loop().create_future()


class DoomedEngine(HarnessEngine):
    """An engine of one life."""

    committer: InlineCommitter

    def __init__(self, world: World, handlers: Iterable[Subscribing] | None = None) -> None:
        """`handlers`: those that it serves; None: all that are defined now."""
        served = defined_handlers() if handlers is None else handlers
        self._watched = watched(served, world, self._is_gone)
        super().__init__(world.store.url, clock=world.clock, source=world.source, handlers=self._watched)
        self._world = world
        self.ran = world.ran
        self.on_asked = self._watch

    def _is_gone(self) -> bool:
        store: Any = self.faulty
        # As with steps: one that is held up goes on with what it has begun, and begins no other.
        return self._world.is_dead or store._killed or store.is_zombie

    @property
    def served(self) -> list[SubscriptionRow]:
        """The subscriptions of its handlers, windows and joins."""
        names = set(self.handlers)
        return [one for one in self.faulty.streams.subscriptions() if f"{one.stream}/{one.name}" in names]

    def was_handled(self, row: SubscriptionRow, event: EventRow) -> bool:
        """Whether a function has come to its end with the event; true of what is not watched, or wanted."""
        for one in self._watched:
            if (one.stream, one.name) == (row.stream, row.name) and type(one) is Handler:
                place = (row.stream, row.name, event.position)
                return place in self._world.deliveries.returned or not one.wants(event)
        return True

    async def __aenter__(self) -> Self:
        store = DoomedStore(self._world)
        try:
            await self._open(store)  # type: ignore[arg-type]
        except BaseException:
            await self._close()
            raise
        return self

    def _watch(self, resident: Resident, pending: RunStep) -> None:
        world, execution = self._world, resident.execution
        world.asked(resident.row.id, resident.number, execution.seq, pending.key)
        definition = pending.call.definition
        world.calls[resident.number, pending.key] = Asked(definition, pending.call.data)
        if not isinstance(definition, WatchedStep):
            store: Any = self.faulty
            pending.call.definition = WatchedStep(definition, world, store, resident)

    def _start_watchdog(self, driver: Driver) -> None:
        """None: a thread costs more than all the rest of a crash run."""

    def _make_driver(self, store: Store, lease: Lease, clock: Clock, **parts: Any) -> Driver:
        return super()._make_driver(store, lease, clock, make_committer=InlineCommitter, **parts)

    def _fatal(self, error: BaseException) -> None:
        """It was meant to die: no word in the log."""
        assert self._driver is not None
        if self._lookout is not None:
            self._lookout.stop()
        if self._keeper is not None:
            self._keeper.stop()
        if self._subscriptions is not None:
            self._subscriptions.abandon()
        self._driver.abandon()
        self._driver.closing.stop(error)

    def wake(self) -> None:
        """Let the commit that was held up go on."""
        committer: Any = self.driver.committer
        committer.let_go()

    async def vanish(self) -> None:
        """Drop the engine: nothing more is written, and the lease is not given back."""
        self.faulty.kill()
        await self.close()

    async def close(self) -> None:
        """Close it as a deploy does, and take it to pieces.

        They hold each other, and the collector would have to find that out.
        """
        await self.__aexit__(None, None, None)
        if self._driver is not None:
            if (error := self._driver.committer.error) is not None:
                error.__traceback__ = None
            vars(self._driver).clear()
            self._driver = self._lookout = self._claims = self._jobs = None
            self._parked = self._retention = self._subscriptions = self.on_asked = None
