"""One crash run: the disk, the clock, what has been done to the world, and the laws that must hold.

A world outlives its engines. They tell it of all that happens; it says where to
die, and notes when a law is broken. The laws: nothing is delivered to a run that
is not on disk; a step whose result is on disk is not called again; all calls of
one step of one run have one idempotency key, and no other step has it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from reprlib import Repr
from typing import Any

from ...blocks.event import Event
from ...core.positions import place_at
from ...core.records import Kind
from ...stores.base import Batch, Committed, Store
from ..clock import ManualClock
from ..engine import RanBefore
from ..journals import Asked
from ..source import SeededSource
from .delivering import Deliveries
from .spots import Fault, Names, Spot

_STEPS = (Kind.STEP, Kind.STEP_FAILED)
_HOUR_MS = 3_600_000
_short = Repr()
_short.maxother = 60


@dataclass(slots=True)
class Effect:
    """One call of the function of a step, or of a handler."""

    run_id: str
    """Empty for a handler."""
    step: str
    """Its name, or the handler's."""
    key: str
    """The call's place in the run: `0/2/charge`; of a handler, `orders/ship/3` for the third of `orders`."""
    idempotency_key: str
    attempt: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    life: int
    """Which worker called it: 1 before the crash."""
    is_done: bool = False
    """Whether the function came to its end."""

    def __str__(self) -> str:
        args: tuple[Any, ...] = self.args if self.run_id else tuple(event.data for event in self.args)
        shown = [_short.repr(value) for value in args]
        shown += [f"{name}={_short.repr(value)}" for name, value in self.kwargs.items()]
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        done = "" if self.is_done else ", not done"
        run = f" of run {self.run_id!r}" if self.run_id else ""
        return f"{self.step}({', '.join(shown)}) at '{self.key}'{run}{attempt}{done}"


class World:
    """What one crash run is about."""

    def __init__(self, store: Store, clock: ManualClock, spots: Iterable[Spot] = ()) -> None:
        """`spots`: where to crash, one after another."""
        self.store = store
        self.clock = clock
        self.source = WorldSource()
        self.deliveries = Deliveries(store)
        self.names = Names(self.deliveries.name)
        self.ran = RanBefore()
        self.armed = deque(spots)
        self.life = 0
        self.passed: list[list[tuple[str, Fault]]] = []
        """The spots that were come by with none armed, for each life."""
        self.effects: list[Effect] = []
        self.calls: dict[tuple[int, str], Asked] = {}
        """The steps that were asked for, by run and key."""
        self.is_dead = False
        """The worker of this life has died; nothing that it does counts any more."""
        self.is_paused = False
        """The worker of this life is held up in a commit."""
        self.is_over = False
        """Nothing is to happen any more: the last engine closes, and writes what it has left."""
        self.down_until_ms = 0
        self.latest_ms = 0
        """The latest time before the clock was set."""
        self.broken = ""
        """Which law was broken first; empty while all hold."""
        self.events = 0
        """How much has happened: as long as this grows, something is under way."""
        self.running = 0
        """How many functions of steps and handlers run now."""
        self.handling = 0
        """How many of them are handlers'."""
        self._stirred: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._recorded: set[tuple[int, str]] = set()
        self._on_disk: dict[int, int] = {}
        self._key_of_call: dict[tuple[int, str], str] = {}
        self._call_of_key: dict[str, tuple[int, str]] = {}
        self._runs = 0

    def begin_life(self) -> None:
        """A new worker begins."""
        self.life += 1
        self.passed.append([])
        self.is_dead = self.is_paused = False
        self.source.drawn = self._runs

    def reach(self, moment: str, fault: Fault) -> bool:
        """Whether this is where, and how, to crash now."""
        if self.is_over:
            return False
        if not self.armed:
            self.passed[-1].append((moment, fault))  # to learn where it can be crashed, or crashed again
            return False
        next_moment, next_fault = self.armed[0]
        if fault != next_fault or moment != next_moment:
            return False
        self.armed.popleft()
        return True

    def die(self) -> None:
        """The worker dies here."""
        self.is_dead = True

    def has_stopped(self) -> bool:
        """Whether the worker of this life is dead, or held up."""
        return self.is_dead or self.is_paused

    def late_ms(self, ttl_ms: int) -> int:
        """How far ahead the clock of the worker of this life is, so that the lease before it is over."""
        return ttl_ms * (self.life - 1)

    def sent(self, count: int) -> None:
        """So many events are sure to have been sent."""

    def complain(self, what: str) -> None:
        """A law is broken."""
        self.broken = self.broken or what

    def let_go(self) -> None:
        """The crash run is over: refer to no engine and no workflow any more.

        What is left of it is in circles, and waits for the collector. Weak references among
        that crash Python 3.11 when it frees what they refer to and collects on the way.
        """
        self.clock.next_elsewhere = _nothing
        self.ran.clear()

    # -- waiting for functions -------------------------------------------------------------------

    async def wait_for_stir(self, seconds: float) -> None:
        """Leave the processor to others until a step's function ends, or for so long."""
        loop = asyncio.get_running_loop()
        stirred = self._stirred = loop.create_future()
        loop.call_later(seconds, self._wake, stirred)
        await stirred

    def stir(self) -> None:
        """A function on a thread has ended."""
        if self._stirred is not None:
            self._loop.call_soon_threadsafe(self._wake, self._stirred)

    @staticmethod
    def _wake(stirred: asyncio.Future[None]) -> None:
        if not stirred.done():
            stirred.set_result(None)

    # -- the laws --------------------------------------------------------------------------------

    def asked(self, run_id: str, run: int, delivered: int, what: str) -> None:
        """A run asks for something, after so many records were delivered to it."""
        on_disk = self._on_disk.get(run, 0)
        if delivered > on_disk:
            self.complain(
                f"run {run_id!r} went on to {what} with {delivered} records delivered, "
                f"when only {on_disk} were on disk"
            )

    def called(self, run: int, effect: Effect) -> None:
        """A step's function is about to be called."""
        call = run, effect.key
        if call in self._recorded:
            self.complain(f"{_named(effect)} was called again, and its result was on disk")
        self.known(run, effect)
        self.effects.append(effect)
        self.events += 1
        self.running += 1

    def handled(self, handler: str, event: Event[Any]) -> Effect:
        """A handler's function is about to be called."""
        place = f"{event.stream}/{handler}/{place_at(event.position)}"
        effect = Effect("", handler, place, event.idempotency_key, event.attempt, (event,), {}, self.life)
        self.called(0, effect)
        self.handling += 1
        return effect

    def known(self, run: int, effect: Effect) -> None:
        """A step's function was called: by its idempotency key, and no other call's."""
        call = run, effect.key
        key = self._key_of_call.setdefault(call, effect.idempotency_key)
        if key != effect.idempotency_key:
            self.complain(f"{_named(effect)} was called again with another idempotency key")
        other = self._call_of_key.setdefault(effect.idempotency_key, call)
        if other != call:
            self.complain(f"{_named(effect)} has the idempotency key of '{other[1]}'")

    def came_to_its_end(self, effect: Effect) -> None:
        """A step's function has returned, or raised."""
        effect.is_done = True
        self.events += 1
        self.running -= 1

    def committed(self, batch: Batch, answer: Committed) -> None:
        """A batch is on disk."""
        self.events += 1
        self.deliveries.committed(batch)
        for outcome in answer.starts:
            self._runs += outcome.verdict == "started"
        for run, _ in batch.forgotten:
            self._recorded = {call for call in self._recorded if call[0] != run}
            self._on_disk.pop(run, None)
        for record in batch.records:
            self._on_disk[record.run] = record.seq + 1
            if record.kind in _STEPS:
                self._recorded.add((record.run, record.key))

    # -- time ------------------------------------------------------------------------------------

    def jump(self, fault: Fault) -> None:
        """Set the clock an hour back; or forward, but not past anything that is due."""
        self.latest_ms = max(self.latest_ms, self.clock.now_ms())
        if fault == "clock-back":
            self.clock.jump(-_HOUR_MS / 1000)
            return
        due_ms = self.clock.next_ms()
        ahead_ms = _HOUR_MS if due_ms is None else min(_HOUR_MS, due_ms - self.clock.now_ms() - 1)
        if ahead_ms > 0:
            self.clock.jump(ahead_ms / 1000)


class WorldSource:
    """Chance that does not depend on where a run was crashed: the n-th run has the n-th seed."""

    def __init__(self) -> None:
        self.drawn = 0
        self._retries = SeededSource()

    def bytes(self, count: int) -> bytes:
        """That many bytes."""
        self.drawn += 1
        return blake2b(self.drawn.to_bytes(8, "big"), digest_size=count).digest()

    def draw(self) -> float:
        """A number evenly in [0, 1)."""
        return self._retries.draw()


def _named(effect: Effect) -> str:
    run = f" of run {effect.run_id!r}" if effect.run_id else ""
    kind = "step" if effect.run_id else "handler"
    return f"{kind} {effect.step!r} ('{effect.key}'{run})"


def _nothing() -> None:
    """What waits elsewhere when no engine is open."""
