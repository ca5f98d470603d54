"""Row 64: row 14 on PostgreSQL: many append at once, transactions stay open, workers lose their leases."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import psycopg

from perdure import Client, DuplicateConflict, Handler, LeaseLost, ParkedEvent, StoreUnavailable
from perdure.runtime import lookout
from perdure.stores.base import Store
from perdure.stores.postgres import appending, lease, streams
from perdure.stores.postgres.connection import Database
from perdure.stores.postgres.link import Link
from perdure.testing import ManualClock
from perdure.testing.engine import HarnessEngine
from perdure.testing.source import SeededSource

from .planted import replaced
from .resent import ALL, HOLDS, PLANTS, Ledger, Moved, Planted, Play, World, counted_worlds
from .row import Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server
from .ways import Way, cutting

T = TypeVar("T")

_WORKERS = (2, 3)
_LOOKS_EVERY_S = 0.1
_DOUBT_MS = 20
_PAUSE_S = 0.003
_OPEN_S = 0.02
"""So long, at most, is a transaction of a producer's own left open before it appends, and after."""
_STILL_S = 0.05
_REST_S = 60.0
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 30.0, 2.0
_SEEDS_OF_A_CONTROL = 40
_NOT_NOW = (StoreUnavailable, LeaseLost)


class _Worker:
    """One engine among several, from its beginning to its end."""

    def __init__(self, url: str, clock: ManualClock, seed: int, ledger: Ledger) -> None:
        self.play = Play(ledger)
        source = SeededSource(seed)
        self.engine = HarnessEngine(
            url, clock=clock, source=source, workflows=[], handlers=self.play.handlers
        )

    async def begin(self) -> None:
        await self.engine.__aenter__()

    @property
    def is_well(self) -> bool:
        """Whether it may be talked to, and has not found that it must end."""
        return self.engine.is_open and self.engine.driver.committer.error is None

    @property
    def lease(self) -> int:
        return self.engine.driver.lease.number

    def stand_still(self) -> None:
        """Its commits wait, while it reads and handles what comes."""
        self.engine.faulty.hold_up_commits()

    async def die(self, *, after_s: float = 0.0) -> None:
        """As of `kill -9`: nothing more is written, and its connections break. What it runs ends."""
        await asyncio.sleep(after_s)
        self.play.has_lanes = False
        committer = self.engine.driver.committer
        self.engine.faulty.kill()
        committer.check_lease()  # something to write, so that it notices its death
        while committer.error is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(_PAUSE_S)
        await self.end()

    async def end(self) -> None:
        self.play.has_lanes = False
        with suppress(*_NOT_NOW):
            await self.engine.__aexit__(None, None, None)


class _ServerWorld(World):
    """Several workers and many producers at once, on one store."""

    def __init__(
        self, server: Server, schema: str, way: Way, seed: int, totals: Counter[str], *, patience_s: float
    ) -> None:
        super().__init__(Play(Ledger()), chance(seed, "events"), totals)
        self._server = server
        self._schema = schema
        self._way = way
        self._through = way.url(schema)
        self._seed = seed
        self._patience_s = patience_s
        self._clock = ManualClock()
        self._workers: list[_Worker] = []
        self._size = self.draw.choice(_WORKERS)
        self._begun = 0
        self._client = self._cut_client = Client(server.store_url(schema))
        self._appending: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._client)
                self._cut_client = await self._new_client(stack)
                self._workers = await self._new_workers(self._size)
                await super().live()
        finally:
            for task in self._appending:
                task.cancel()
            await asyncio.gather(*self._appending, return_exceptions=True)
            for worker in self._workers:
                await worker.end()

    async def _new_client(self, stack: AsyncExitStack) -> Client:
        while True:
            with suppress(*_NOT_NOW):
                return await stack.enter_async_context(Client(self._through))

    # -- producers ---------------------------------------------------------------------------------

    async def append(self, names: Sequence[str]) -> None:
        """Begin to, and do not wait: by one producer, or by several at once."""
        ways = [self._by_worker, self._by_client, self._in_own_transaction]
        for way in self.draw.sample(ways, self.draw.choice((1, 1, 2, 3))):
            self._appending.add(asyncio.create_task(way(names)))

    async def _by_worker(self, names: Sequence[str]) -> None:
        """Through whichever worker is there."""
        await self._one_by_one(names, self._any_worker)

    def _any_worker(self) -> Client:
        return self.draw.choice(
            [worker.engine for worker in self._workers if worker.is_well] or [self._client]
        )

    async def _by_client(self, names: Sequence[str]) -> None:
        """Through a client, whose COMMITs are cut as well."""
        await self._one_by_one(names, lambda: self._cut_client)

    async def _one_by_one(self, names: Sequence[str], whose: Callable[[], Client]) -> None:
        for name in names:
            self.begin(name)
            while not await self._is_appended(name, whose()):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(_PAUSE_S)

    async def _is_appended(self, name: str, client: Client) -> bool:
        moved, when = self.kept[name]
        try:
            self.told(name, await client.append(self._play.stream, moved, id=name, time=when))
        except _NOT_NOW:
            self.totals["appends broken off"] += 1
            return False
        return True

    async def _in_own_transaction(self, names: Sequence[str]) -> None:
        """In a transaction of the producer's own, which stays open, and is perhaps taken back at first."""
        while not await self._is_committed(names):
            self.totals["transactions taken back"] += 1

    async def _is_committed(self, names: Sequence[str]) -> bool:
        idle = [self.draw.random() * _OPEN_S for _ in range(2)]
        is_wanted = self.draw.random() < 0.7
        try:
            async with await psycopg.AsyncConnection.connect(self._server.url) as connection:
                for name in names:
                    self.begin(name)
                await connection.execute("SELECT pg_current_xact_id()")  # its events come here, not later
                await asyncio.sleep(idle[0])
                told = [await self._append_in(connection, name) for name in names]
                await asyncio.sleep(idle[1])
                if not is_wanted:
                    await connection.rollback()
                    return False
        except (psycopg.OperationalError, *_NOT_NOW):
            return False
        for name, appended in zip(names, told, strict=True):
            self.told(name, appended)
        return True

    async def _append_in(self, connection: psycopg.AsyncConnection[Any], name: str) -> Any:
        moved, when = self.kept[name]
        return await self._client.append(self._play.stream, moved, id=name, time=when, connection=connection)

    async def misuse(self, name: str, other: Moved, when: datetime) -> None:
        try:
            await self._client.append(self._play.stream, other, id=name, time=when)
        except DuplicateConflict:
            self.totals["ids refused"] += 1
        else:
            raise AssertionError(f"I7: the id of {name} was taken for another event")

    # -- workers -----------------------------------------------------------------------------------

    async def _new_workers(self, count: int) -> list[_Worker]:
        return await asyncio.gather(*(self._new_worker() for _ in range(count)))

    async def _new_worker(self) -> _Worker:
        while True:
            self._begun += 1
            worker = _Worker(self._through, self._clock, self._seed + self._begun, self._play.ledger)
            try:
                await worker.begin()
            except _NOT_NOW:
                await worker.end()
            else:
                return worker

    async def crash(self) -> None:
        """Let one die, or have its lease end: then it goes on until it finds out, and can write nothing."""
        worker = self.draw.choice(self._workers)
        if worker.is_well and self.draw.random() < 0.3:
            self.totals["leases lost"] += 1
            await self._end_lease(worker)
        elif worker.is_well:
            self.totals["crashes"] += 1
            worker.stand_still()
            await self._one_by_one([self.new() for _ in range(self.draw.randrange(4))], lambda: self._client)
            await worker.die(after_s=self.draw.choice((0.0, _STILL_S)))
        await self._see_to_workers()

    async def _end_lease(self, worker: _Worker) -> None:
        worker.play.has_lanes = False
        over = f"UPDATE {self._schema}.lease SET until_ms = 0 WHERE number = {worker.lease} AND held"
        await asyncio.to_thread(self._server.query, over)

    async def _see_to_workers(self) -> None:
        """Another begins for each that has ended."""
        gone = [worker for worker in self._workers if not worker.is_well]
        await asyncio.gather(*(worker.end() for worker in gone))
        well = [worker for worker in self._workers if worker not in gone]
        self._workers = well + await self._new_workers(len(gone))

    async def pass_time(self, seconds: float) -> None:
        self._clock.jump(seconds)
        await asyncio.sleep(self.draw.random() * _OPEN_S)
        await self._see_to_workers()

    async def come_to_rest(self) -> None:
        until = monotonic() + self._patience_s
        while any(not task.done() for task in self._appending):
            self.look()
            assert monotonic() < until, "I5: what is appended does not come to an end"
            await self.pass_time(1)
        for task in self._appending:
            task.result()
        self._way.cut_no_more()
        await self._rest(until)
        await asyncio.gather(*(worker.die() for worker in self._workers if worker.is_well))
        await self._see_to_workers()  # they go by what is on disk, and by nothing else
        await self._rest(until)

    async def _rest(self, until: float) -> None:
        """What is seen while workers are at it is not of one moment: so only what stays wrong is wrong."""
        while wrong := await self._what_is_left():
            self.look()
            assert monotonic() < until, wrong
            await self.pass_time(_REST_S)

    async def _what_is_left(self) -> str:
        try:
            found = {one.name: len((await self.accounts(one)).pending) for one in self._play.handlers}
        except AssertionError as wrong:
            return str(wrong)
        return f"I5: still pending: {found}" if any(found.values()) else ""

    # -- looking -----------------------------------------------------------------------------------

    async def read(self, look: Callable[[Store], T]) -> T:
        return await self._client.door.read(look)

    async def parked(self, handler: Handler[Moved]) -> list[ParkedEvent]:
        return await self._client.subscription(handler).parked(limit=ALL)


@contextmanager
def _hurried() -> Iterator[None]:
    """Who has died is looked for more often, and doubted for less long: both are hints."""
    with replaced(lookout, _TICK_OF_SERVER_S=_LOOKS_EVERY_S), replaced(lease, _DOUBT_MS=_DOUBT_MS):
        yield


def _run(work: Work, server: Server) -> Counted:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # it tells of each attempt that fails
    server.set("deadlock_timeout", "20ms")

    def trial(seed: int, folder: Path, totals: Counter[str], planted: Planted) -> None:
        draw = chance(seed, "cuts")
        way = Way(server, folder, answers=cutting(draw, draw.choice((0.0, 0.05, 0.2))))
        patience_s = _PATIENCE_S if planted is nullcontext else _PATIENCE_OF_A_CONTROL_S
        schema = f"trial_{next(schemas)}"
        world = _ServerWorld(server, schema, way, seed, totals, patience_s=patience_s)
        try:
            with _hurried(), planted():
                asyncio.run(world.live())
        finally:
            totals["COMMITs cut"] += way.cuts
            way.end()

    schemas = count(1)
    # At each push row 14 has those that are not of one store.
    plants = _PLANTS if work.tier == "push" else {**PLANTS, **_PLANTS}
    return counted_worlds(work, trial, plants=plants, seeds_of_a_control=_SEEDS_OF_A_CONTROL)


def _reading_past_the_horizon() -> AbstractContextManager[object]:
    """Whatever is there above a position is read, though some below it may be yet to come."""
    look = streams._look

    def look_at_all(*asked: Any) -> Any:
        _, *found = look(*asked)
        return (1 << 62, *found)

    return replaced(streams, _look=look_at_all)


def _forgetting_ids() -> AbstractContextManager[object]:
    """An event that is appended again has another name."""
    return replaced(appending, identity_of=lambda *name: os.urandom(16))


def _believing_in_appends() -> AbstractContextManager[object]:
    """Nobody asks what became of a COMMIT that was not answered, if it was of events."""
    ask = Database._was_written

    def was_written(self: Database, broken: Link, error: psycopg.Error) -> bool:
        is_of_events = broken.witness is not None and broken.witness[0] == "witness_event"
        return is_of_events or ask(self, broken, error)

    return replaced(Database, _was_written=was_written)


_PLANTS: dict[str, Planted] = {
    "events are read above the horizon": _reading_past_the_horizon,
    "an id is not looked for before it is appended again": _forgetting_ids,
    "an append whose answer is lost is taken for written": _believing_in_appends,
}

ROW = Row(
    64,
    "duplicate, late and reordered events, PostgreSQL",
    fault="Events come twice and at once, out of order, decades late or early; some fail; workers die, or "
    "lose their lease.",
    how="Two or three real engines and many producers in one process, over a way that cuts up to 20 % of the "
    "COMMITs; transactions in which events are appended stay open while others commit, and are taken back.",
    holds=HOLDS,
    trials=Trials(push=2, long=200, release=5_000),
    run=with_a_server(_run),
)
