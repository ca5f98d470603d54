"""The engine of a simulation: the real one, whose commits come when the simulation lets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from perdure.errors import StoreUnavailable
from perdure.runtime.clock import SystemClock
from perdure.runtime.committer import Committer
from perdure.runtime.driver import Driver
from perdure.runtime.reads import Reads, found_or_error
from perdure.stores.base import Lease, Store
from perdure.testing.clock import START_MS
from perdure.testing.engine import HarnessEngine

from .flow import Life
from .witness import Witness

T = TypeVar("T")

_A_MOMENT_S = 1e-6


class VirtualClock(SystemClock):
    """The wall clock of the simulated machine; it can be set, and the loop's time cannot."""

    offset_ms = 0

    def now_ms(self) -> int:
        return START_MS + self.offset_ms + round(self.loop.time() * 1000)


class SimulatedCommitter(Committer):
    """Commits on the loop: at once, or a while later. No thread, no chance of its own."""

    def __init__(self, latency_s: Callable[[], float], *parts: Any) -> None:
        self._latency_s = latency_s
        self.is_paused = False
        """Whether commits wait, as those of a process that is stopped."""
        self._paused: list[Any] = []
        self._chores: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self._next_s = 0.0
        """Not before that is a chore done, or what it found told: one after the other, as on a thread."""
        super().__init__(*parts)

    def _start_writer(self) -> None:
        """There is none."""

    def _hand_over(self, group: Any) -> bool:
        latency_s = self._latency_s()
        if self.is_paused:
            self._paused.append(group)
        elif latency_s:
            self._loop.call_later(latency_s, self._write_now, group)
        else:
            self._write(group)
            return True
        return False

    def _write_now(self, group: Any) -> None:
        if self.is_paused:
            self._paused.append(group)
        else:
            self._write(group)
            self._finish(group)

    def _leave(self, group: Any) -> None:
        """Nobody has to step aside."""

    def _run_between(self, chore: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._in_turn(self._do_between, chore, then)

    def _in_turn(self, do: Callable[..., None], *arguments: Any) -> None:
        self._next_s = max(self._next_s + _A_MOMENT_S, self._loop.time() + self._latency_s())
        self._loop.call_at(self._next_s, do, *arguments)

    def _do_between(self, chore: Callable[[], Any], then: Callable[[Any], None]) -> None:
        if self.is_paused:
            self._chores.append((chore, then))
        else:
            self._in_turn(then, chore())

    def go_on(self) -> None:
        """What was stopped runs again."""
        self.is_paused = False
        paused, self._paused = self._paused, []
        for group in paused:
            self._write_now(group)
        chores, self._chores = self._chores, []
        for chore, then in chores:
            self._do_between(chore, then)


class SimulatedReads(Reads):
    """Reads of the store that take a while, as those of a server: what they find may be old when it is told,
    and what is asked first may be told last."""

    def __init__(self, latency_s: Callable[[], float], store: Store) -> None:
        self._latency_s = latency_s
        super().__init__(store)

    def ask(self, look: Callable[[Store], T], then: Callable[[T | Exception], object]) -> None:
        before_s, after_s = self._latency_s(), self._latency_s()
        if self._stopped or not before_s + after_s:
            super().ask(look, then)
            return
        asked = object()
        self._asked[asked] = then
        self._loop.call_later(before_s, self._look, look, asked, after_s)

    def _look(self, look: Callable[[Store], Any], asked: object, after_s: float) -> None:
        self._loop.call_later(after_s, self._found, asked, found_or_error(look, self._store))


class SimulatedEngine(HarnessEngine):
    """A worker of the simulated machine."""

    latency_s: Callable[[], float]
    read_latency_s: Callable[[], float]
    witness: Witness
    life: Life
    """As its handlers know it."""
    make_committer: Callable[..., Committer] = SimulatedCommitter
    lease: Lease

    def _make_driver(self, store: Store, lease: Lease, clock: Any, **parts: Any) -> Driver:
        self.lease = lease
        self.faulty.after_commit = partial(self.witness.committed, lease=lease.number, store=store)
        parts["make_committer"] = partial(self.make_committer, self.latency_s)
        parts["make_reads"] = partial(SimulatedReads, self.read_latency_s)
        return super()._make_driver(store, lease, clock, **parts)

    @property
    def committer(self) -> SimulatedCommitter:
        committer = self.driver.committer
        assert isinstance(committer, SimulatedCommitter)
        return committer

    @property
    def has_died(self) -> bool:
        """Whether it has stopped, with an error."""
        return self.driver.committer.error is not None

    async def kill(self) -> None:
        """It is gone, as by `kill -9`: nothing more is written, and the lease is not given back."""
        self.faulty.kill()
        self.driver.committer._dead = StoreUnavailable("killed")
        if self._subscriptions is not None:
            self._subscriptions.abandon()
        self.driver.abandon()
        await asyncio.sleep(0)  # what it ran on the loop is cancelled, where it waited
        await self.close()

    async def close(self) -> None:
        """End, as by a deploy; or, dead, just let go."""
        await self.__aexit__(None, None, None)
