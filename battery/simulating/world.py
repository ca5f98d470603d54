"""One simulation: workers that die, clients that insist, a clock that jumps; all of it from one seed."""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import perdure.engine
import perdure.runtime.lookout
from perdure import Client, StoreError
from perdure.core.records import RunRow, Status
from perdure.doors import StoreDoor
from perdure.errors import PerdureError, StoreFull, StoreUnavailable
from perdure.stores.base import Batch, Committed, RunQuery, Store
from perdure.stores.opening import open_store
from perdure.testing import SeededSource

from ..row import chance
from .clients import Drive, insist
from .engine import SimulatedEngine, VirtualClock
from .flow import Flow, Life, report
from .loop import VirtualLoop
from .programs import Author, Stage, play
from .witness import BrokenLaw, Witness

_PATIENCE_S = 40_000.0
"""After the last fault, everything must come to its end in so much virtual time."""
_LOOK_EVERY_S = 5.0
_COLLECT_EVERY = 50
_TRIES_BEFORE_THE_CLOCK_IS_SET_RIGHT = 60


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of one seed."""

    trace: str
    steps: int
    """Recorded."""
    commits: int
    effects: int
    faults: int
    deaths: int
    """How many workers died, one way or another."""
    handled: int = 0
    """How often a handler came to the end of an event."""


def simulate(
    seed: int, *, runs: int = 5, size: int = 12, faults: int = 14, events: int = 0, workers: int = 1
) -> Simulated:
    """Play the simulation of a seed to its end: so many runs of about so many steps, and so many events.

    One worker, or two that share them; a fault strikes either. Raises BrokenLaw.
    """
    if next(_played) % _COLLECT_EVERY == 0:
        gc.collect()
    with _folder() as folder, quiet(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        world = World(seed, folder / "runs.db")
        try:
            return runner.run(world.play(runs=runs, size=size, faults=faults, events=events, workers=workers))
        finally:
            world.clear_up()


@contextmanager
def _folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Deaths are no news here; nobody need look fifty times in a virtual second."""
    log, engine = logging.getLogger("perdure"), perdure.engine
    lookout = perdure.runtime.lookout
    before = log.level, lookout._TICK_S, engine.Watchdog
    log.setLevel(logging.CRITICAL + 1)
    lookout._TICK_S = _LOOK_EVERY_S
    engine.Watchdog = _NoWatchdog  # type: ignore[misc]  # it looks at real time, from a thread
    gc.disable()  # when it looks depends on what ran before
    try:
        yield
    finally:
        gc.enable()
        log.setLevel(before[0])
        lookout._TICK_S, engine.Watchdog = before[1:]  # type: ignore[misc]


class _NoWatchdog:
    """Watches nothing."""

    def __init__(self, driver: object) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class _Outside(StoreDoor):
    """A client's way through the store, with no thread."""

    async def read(self, look: Any) -> Any:
        return look(self._store)

    async def write(self, verb: Any) -> Any:
        return verb(self._store)

    async def _submit(self, batch: Batch) -> Committed:
        return self._store.submit(batch)

    async def close(self) -> None:
        self._store.close()


_played = count(1)


class World:
    """The machine, and all that goes wrong with it."""

    def __init__(self, seed: int, path: Path) -> None:
        self._seed = seed
        self._url = f"sqlite:///{path}"
        self._chance = chance(seed, "faults")
        self._latency = chance(seed, "latency")
        self._read_latency = chance(seed, "latency of reads")
        self._slow_reads, self._longest_s = 0.0, 0.05
        self._source = SeededSource(seed)
        self.witness = Stage.witness = Witness()
        self.engine: SimulatedEngine
        """The worker that clients speak with, and faults strike."""
        self._other: SimulatedEngine | None = None
        """The second one, where there are two."""
        self._zombies: list[SimulatedEngine] = []
        self._opened: list[SimulatedEngine] = []
        self._faults = 0
        self._deaths = 0
        self._latest_ms = 0
        self._flow: Flow | None = None

    async def play(self, *, runs: int, size: int, faults: int, events: int, workers: int) -> Simulated:
        """Let clients drive runs while things break; then let all come right, and look at what is left."""
        self._clock = VirtualClock()
        self._slow = self._chance.choice((0.0, 0.2, 1.0))
        self._residents_kept = self._chance.choice((0, 1, 3, 10_000))
        store = open_store(self._url)
        if events:
            self._flow = Flow(chance(self._seed, "events"), self.witness, store)
        if workers > 1:  # at what is like a server: to read takes a while, too, and at times long
            self._slow_reads = self._read_latency.choice((0.0, 0.2, 1.0))
            self._longest_s = self._read_latency.choice((0.05, 2.0))
        self.engine = await self._open()
        if workers > 1:
            self._other = await self._open()
        outside = Client(self._url)
        outside._door = _Outside(store)
        outside._door.clock, outside._door.source = self._clock, self._source
        author = Author(chance(self._seed, "programs"))
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._accident)
        drives: list[asyncio.Task[None]] = []
        for number in range(runs):
            program = author.write(size)
            client = outside if self._chance.random() < 0.3 else None
            drive = Drive(self, f"run-{number}", play(program), author.receives, client)
            drives.append(loop.create_task(drive.run(Random(self._chance.random()))))
        drives += self._drive_events(events, outside)
        await self._break_things(faults)
        await self._come_right(drives)
        self._look_at_what_is_left()
        for engine in self._workers():
            await engine.close()
        await outside._door.close()
        if self.witness.broken:
            raise BrokenLaw(self.witness.broken[0])
        witness = self.witness
        handled = 0 if self._flow is None else self._flow.handled
        return Simulated(
            witness.trace,
            witness.steps,
            witness.commits,
            witness.effects,
            self._faults,
            self._deaths,
            handled,
        )

    def _drive_events(self, events: int, outside: Client) -> list[asyncio.Task[None]]:
        """Append them: a part from outside, a part by another client, and the rest from a run."""
        flow, loop = self._flow, asyncio.get_running_loop()
        if flow is None:
            return []
        parts = [flow.draw(range(start, events + 1, 3)) for start in (1, 2, 3)]
        drives = [
            loop.create_task(flow.drive(partial(insist, self, client), facts, self._clock.now_ms))
            for client, facts in zip((None, outside), parts, strict=False)
        ]
        reporting = Drive(self, "report", report(parts[2]), 0, None)
        return [*drives, loop.create_task(reporting.run(Random(self._seed)))]

    def _accident(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something was raised where nobody hears it. What callers of the dead do not fetch is no news."""
        if "handle" in context:
            self.witness.breaks(f"I5: {context['message']}: {context.get('exception')!r}")

    def clear_up(self) -> None:
        """Let go of engines that a broken law has left open."""
        for engine in self._opened:
            engine.drop()

    # -- workers -----------------------------------------------------------------------------------

    def _workers(self) -> list[SimulatedEngine]:
        return [self.engine] if self._other is None else [self.engine, self._other]

    def _change_places(self) -> None:
        """The next fault strikes the other worker, where there is one."""
        if self._other is not None:
            self.engine, self._other = self._other, self.engine

    async def _open(self) -> SimulatedEngine:
        tries = 0
        while True:
            if tries == _TRIES_BEFORE_THE_CLOCK_IS_SET_RIGHT:
                self._set_the_clock_right()
            life = Life()
            engine = SimulatedEngine(
                self._url,
                workflows=[play, report],
                handlers=[] if self._flow is None else self._flow.handlers(life),
                clock=self._clock,
                source=self._source,
                residents_kept=self._residents_kept,
            )
            engine.witness, engine.life = self.witness, life
            engine.latency_s = partial(self._draw_latency, self._latency, self._slow)
            engine.read_latency_s = partial(self._draw_latency, self._read_latency, self._slow_reads)
            try:
                await engine.__aenter__()
            except StoreError:
                # The lease of one that is paused, or that has left the lock to one, has not ended.
                tries += 1
                await asyncio.sleep(1.0)
            else:
                self._opened.append(engine)
                return engine

    def _draw_latency(self, drawn: Random, share: float) -> float:
        return drawn.random() * self._longest_s if drawn.random() < share else 0.0

    async def _reopen(self) -> None:
        """Another worker takes over from one that has ended."""
        self._deaths += 1
        self.engine = await self._open()

    async def _revive(self) -> None:
        """A worker that has died of an error is replaced, as by systemd."""
        for _ in self._workers():
            if self.engine.has_died:
                await self.engine.close()
                await self._reopen()
            self._change_places()

    # -- what goes wrong ---------------------------------------------------------------------------

    async def _break_things(self, faults: int) -> None:
        kinds = (
            self._kill, self._kill, self._kill_in_a_commit, self._lose_an_answer, self._fill_the_disk,
            self._deploy, self._take_over, self._set_the_clock,
            *[self._kill_after_a_handler] * (2 if self._flow else 0),
        )  # fmt: skip
        for _ in range(faults):
            await asyncio.sleep(
                self._chance.choice((0.0, 0.01, 0.1, 1.0, 5.0, 100.0)) * self._chance.random()
            )
            await self._revive()
            if self._other is not None and self._chance.random() < 0.5:
                self._change_places()
            fault = self._chance.choice(kinds)
            self.witness.note(fault.__name__)
            self._faults += 1
            await fault()

    async def _kill(self) -> None:
        await self.engine.kill()
        await self._reopen()

    async def _kill_in_a_commit(self) -> None:
        """Die in the next commit: before it is on disk, or just after."""
        if self._chance.random() < 0.5:
            self.engine.faulty.fail_before_commit()
        else:
            self.engine.faulty.fail_after_commit()
        await self._until_it_dies()

    async def _kill_after_a_handler(self) -> None:
        """Die when a handler's writes are on disk, and nothing that comes after them."""
        faulty = self.engine.faulty
        look_on = faulty.after_commit

        def die(batch: Batch) -> None:
            look_on(batch)
            if any(handling.failed is None for handling in batch.handlings):
                raise StoreUnavailable("The worker died after a handler had written.")

        faulty.after_commit = die
        await self._until_it_dies()

    async def _lose_an_answer(self) -> None:
        """The next commit is on disk, and its worker hears of an error."""
        self.engine.faulty.fail_after_commit(StoreUnavailable("no answer came"))
        await self._until_it_dies()

    async def _until_it_dies(self) -> None:
        for _ in range(100):
            if self.engine.has_died:
                break
            await asyncio.sleep(0.1)
        await self._revive()

    async def _fill_the_disk(self) -> None:
        self.engine.faulty.fail_before_commit(
            StoreFull("The store is full."), times=self._chance.randint(1, 4)
        )

    async def _deploy(self) -> None:
        await self.engine.close()
        await self._reopen()

    async def _take_over(self) -> None:
        """The worker is stopped for longer than its lease; another takes over; then the first goes on."""
        zombie = self.engine
        zombie.committer.is_paused = True
        self._may_lose_their_leases()
        self._zombies.append(zombie)
        now_ms = self._clock.now_ms()
        for worker in zombie.faulty.workers(now_ms=now_ms):
            if worker.lease == zombie.lease.number:
                self._clock.offset_ms += worker.until_ms - now_ms
        await self._reopen()
        asyncio.get_running_loop().call_later(self._chance.choice((0.0, 0.1, 20.0)), zombie.committer.go_on)

    def _may_lose_their_leases(self) -> None:
        """The time of their leases ends before they renew them: another takes over, and they know later."""
        for worker in self._workers():
            self.witness.zombies.add(id(worker.driver))
            worker.life.is_zombie = True

    def _doubt_each_other(self) -> None:
        """The clock is set: of two workers each may find the other's time over; nobody looks at one alone."""
        if self._other is not None:
            self._may_lose_their_leases()

    async def _set_the_clock(self) -> None:
        self._doubt_each_other()
        by_s = self._chance.choice((-259_200, -3_600, -0.001, -0.001, 60, 3_600, 259_200))
        self._clock.offset_ms += round(by_s * 1000)
        self._latest_ms = max(self._latest_ms, self._clock.offset_ms)

    def _set_the_clock_right(self) -> None:
        """A clock that was set back makes all that waits for it wait as much longer: it is right again."""
        self._doubt_each_other()
        self._clock.offset_ms = max(self._latest_ms, self._clock.offset_ms)

    # -- how it must end ---------------------------------------------------------------------------

    async def _come_right(self, drives: list[asyncio.Task[None]]) -> None:
        """No fault comes any more, and the clock is right again: every run must come to its end."""
        self._set_the_clock_right()
        if self._flow is not None:
            self._flow.is_mended = True
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _PATIENCE_S
        while (pending := [drive for drive in drives if not drive.done()]) or not self._is_settled():
            if loop.time() > give_up_at or self.witness.broken:
                for drive in pending:
                    drive.cancel()
                self.witness.breaks(f"I5: {len(pending)} runs did not come to their end: {self._open_runs()}")
                break
            await asyncio.sleep(1.0)
            await self._revive()
            await self._resume_children()
            if self._flow is not None:
                await self._flow.tend(self.engine)
        for zombie in self._zombies:
            zombie.committer.go_on()
            await zombie.close()
        ended = await asyncio.gather(*drives, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _is_settled(self) -> bool:
        """Whether nothing is under way of events, either."""
        return self._flow is None or self._flow.is_settled(self.engine.faulty.store)

    async def _resume_children(self) -> None:
        """Somebody looks after children that are parked; clients look after the runs that they drive."""
        for row in self.engine.faulty.list_runs(RunQuery(statuses=(Status.PARKED,))):
            if row.parent is not None or row.id.startswith("fact-"):
                with suppress(PerdureError):
                    await self.engine.resume(row.id)

    def _open_runs(self) -> list[str]:
        rows = self.engine.faulty.list_runs(RunQuery())
        return [f"{row.id} ({row.status}, wake {row.wake_at_ms})" for row in rows if row.status <= 2]

    def _look_at_what_is_left(self) -> None:
        store: Store = self.engine.faulty.store
        for wrong in store.check():
            self.witness.breaks(f"I12: {wrong}")
        if self._flow is not None and not self.witness.broken:
            self._flow.look(store)
        for row in store.list_runs(RunQuery(limit=10_000, all_generations=True)):
            self.witness.note(row)
            self._replay(row, store)

    def _replay(self, row: RunRow, store: Store) -> None:
        """I4: the journal, replayed once more, leads to the same end."""
        driver = self.engine.driver
        execution = driver.make_resident(row).execution
        definition = report if row.workflow == report.name else play
        records = store.records(row.number)
        with driver.turn:
            try:
                execution.foresee_patches(records)
                execution.begin(definition.body(row.input), definition.encode_result)
                execution.replay(records)
            except PerdureError as error:
                self.witness.breaks(f"I4: the journal of {row.id} does not replay: {error}")
                return
            finally:
                execution.drop()
        outcome = execution.outcome
        if row.status == Status.COMPLETED and (outcome is None or outcome.output != row.output):
            self.witness.breaks(f"I4: {row.id} came to another end in its replay")

    def door(self, outside: Client | None) -> Client:
        """The way in that a client takes."""
        return outside or self.engine
