"""Event streams on a file, and on PostgreSQL: appends in batches and one by one, events handled in the order
of 10,000 keys, and how long an event takes from `append` to its handler, also in another engine.

Limits: rows a second that the driver puts into a log with an index, in commits of 2,000 rows; and, for
the time to the handler, one commit of one row: an event is on disk before it is handled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from perdure import Client, Engine, Event, Stream

from .measure import Figure, Work, beside, commit_seconds, percentile, rows_per_second
from .server import Server, running_server
from .work import url_of

KEYS = 10_000
BATCH = 2_000
CALLERS = 200


@dataclass(frozen=True)
class Reading:
    meter: str
    value: int


class Tally:
    """How many events have been handled."""

    def __init__(self) -> None:
        self.count = 0
        self._wanted = 0
        self._reached = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        if self.count == self._wanted:
            self._reached.set()

    def expect(self, more: int) -> asyncio.Event:
        """Set when so many more have been handled."""
        self._wanted = self.count + more
        self._reached = asyncio.Event()
        return self._reached


readings = Stream("readings", Reading, key=lambda reading: reading.meter)
tally = Tally()


@readings.on(concurrency=256)
async def handle(event: Event[Reading]) -> None:
    tally.add()


def measure(work: Work) -> Iterator[Figure]:
    events = work.size(100_000, quick=2_000)
    for name, target, stretch, measured in (
        ("events appended in batches", 100_000, None, _in_batches),
        ("events appended one by one by 200 callers", 20_000, None, _one_by_one),
        ("events handled, in order of 10,000 keys", 20_000, 50_000, handle_all),
    ):
        pairs = [
            beside(
                lambda: rows_per_second(work, rows=events),
                lambda measured=measured: asyncio.run(measured(url_of(work.fresh_path()), events)),
            )
            for _ in work.repeats()
        ]
        values, limits = zip(*pairs, strict=True)
        yield Figure(
            name, "events/s", values, "rows/s in commits of 2,000", limits,
            better="more", target=target, stretch=stretch,
        )  # fmt: skip
    yield from _beside_many(work, events, retained=work.size(10_000_000, quick=5_000))
    samples = work.size(1_000, quick=20)
    commits = [[1_000 * seconds for seconds in commit_seconds(work, times=samples)] for _ in work.repeats()]
    waits = [asyncio.run(_waits_ms(url_of(work.fresh_path()), samples)) for _ in work.repeats()]
    yield Figure(
        "from append to handler, p50", "ms", [percentile(repeat, 0.5) for repeat in waits],
        "one commit, p50", [percentile(repeat, 0.5) for repeat in commits], target=5.0,
    )  # fmt: skip
    with running_server(work) as server:
        yield from _on_postgres(server, work)


def _on_postgres(server: Server, work: Work) -> Iterator[Figure]:
    events = work.size(100_000, quick=2_000)
    for name, target, measured in (
        ("events appended in batches on PostgreSQL", 50_000, _in_batches),
        ("events appended one by one by 200 callers on PostgreSQL", None, _one_by_one),
        ("events handled, in order of 10,000 keys, on PostgreSQL", None, handle_all),
    ):
        values: list[float] = []
        limits: list[float] = []
        for _ in work.repeats():
            limits.append(server.write_log(events)[0])
            with server.fresh_url() as url:
                values.append(asyncio.run(measured(url, events)))
        yield Figure(
            name, "events/s", values, "rows/s as arrays, in commits of 2,000", limits, better="more",
            target=target,
        )  # fmt: skip
    samples = work.size(500, quick=20)
    for name, target, waited in (
        ("from append to handler on PostgreSQL, p50", None, _waits_ms),
        ("from append to a handler of another engine on PostgreSQL, p50", 20.0, _waits_elsewhere_ms),
    ):
        waits: list[float] = []
        commits: list[float] = []
        for _ in work.repeats():
            commits.append(server.commit_ms(samples))
            with server.fresh_url() as url:
                waits.append(percentile(asyncio.run(waited(url, samples)), 0.5))
        yield Figure(name, "ms", waits, "one commit", commits, target=target)


def _beside_many(work: Work, events: int, *, retained: int) -> Iterator[Figure]:
    """The same in a stream that keeps very many events already; the limit is an empty one."""
    full = work.fresh_path()
    asyncio.run(_retain(full, retained))
    for name, alone, behind in (
        ("events appended in batches to a stream of 10,000,000", _in_batches, _in_batches),
        ("events handled behind 10,000,000", handle_all, _handle_next),
    ):
        pairs = [
            beside(
                lambda alone=alone: asyncio.run(alone(url_of(work.fresh_path()), events)),
                lambda behind=behind: asyncio.run(behind(url_of(full), events)),
            )
            for _ in work.repeats()
        ]
        limits, values = zip(*pairs, strict=True)
        yield Figure(name, "events/s", values, "the same in an empty stream", limits, better="more")


_FILL = """
WITH RECURSIVE more (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < ?1 - 1)
INSERT INTO event
SELECT pos + n, 'e' || n, '', type, 1, 'meter-' || n % ?2, time_ms, at_ms, '', payload, NULL, 0
FROM (SELECT * FROM event LIMIT 1), more
"""


async def _retain(path: Path, count: int) -> None:
    """Have a stream keep so many events, which nobody will read; by SQL, which takes a minute less."""
    async with Engine(url_of(path), handlers=[handle]) as engine:
        await engine.append_batch(readings, _some(1, 0))
    with apsw.Connection(str(path)) as connection:
        connection.execute(_FILL, (count, KEYS))
        connection.execute("UPDATE stream SET last = ?", (count,))


async def _handle_next(url: str, events: int) -> float:
    """As `handle_all`, of a handler that has been there before: it goes on at the end of the stream."""
    async with Client(url) as client:
        await client.subscription("handle", readings.name).seek("latest")
    return await handle_all(url, events)


def _some(count: int, first: int) -> list[Reading]:
    return [Reading(f"meter-{number % KEYS}", number) for number in range(first, first + count)]


async def _in_batches(url: str, events: int) -> float:
    async with Engine(url, handlers=[]) as engine:
        began = time.perf_counter()
        for first in range(0, events, BATCH):
            await engine.append_batch(readings, _some(BATCH, first))
        return events / (time.perf_counter() - began)


async def _one_by_one(url: str, events: int) -> float:
    each = events // 4 // CALLERS
    async with Engine(url, handlers=[]) as engine:
        began = time.perf_counter()
        await asyncio.gather(*(_append_each(engine, each, caller * each) for caller in range(CALLERS)))
        return CALLERS * each / (time.perf_counter() - began)


async def _append_each(engine: Engine, count: int, first: int) -> None:
    for reading in _some(count, first):
        await engine.append(readings, reading)


async def handle_all(url: str, events: int) -> float:
    """From the opening of an engine on a file with all events to the last of them handled."""
    async with Engine(url, handlers=[]) as engine:
        for first in range(0, events, BATCH):
            await engine.append_batch(readings, _some(BATCH, first))
    handled = tally.expect(events)
    began = time.perf_counter()
    async with Engine(url):
        await handled.wait()
        return events / (time.perf_counter() - began)


async def _waits_ms(url: str, samples: int) -> list[float]:
    waits: list[float] = []
    async with Engine(url) as engine:
        for number in range(samples):
            handled, began = tally.expect(1), time.perf_counter()
            await engine.append(readings, Reading("meter", number))
            await handled.wait()
            waits.append(1_000 * (time.perf_counter() - began))
    return waits


async def _waits_elsewhere_ms(url: str, samples: int) -> list[float]:
    """The same, where one engine appends and another handles."""
    waits: list[float] = []
    async with Engine(url, handlers=[]) as appends, Engine(url):
        for number in range(samples):
            handled, began = tally.expect(1), time.perf_counter()
            await appends.append(readings, Reading("meter", number))
            await handled.wait()
            waits.append(1_000 * (time.perf_counter() - began))
    return waits
