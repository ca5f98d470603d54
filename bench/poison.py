"""What one bad key and a producer that is far too fast cost all others.

- How long an event takes from `append` to its handler, in the 99th of a hundred, while every twentieth event
  is of a key whose handler fails, again and again. Limit: the same events with a handler that does not fail.
- The memory of a worker whose handler is a hundred times slower than who appends, in a process of its own.
  Limit: the same where they are as fast as each other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from perdure import Client, Engine, Event, Handler, Retry, Stream

from .measure import Figure, Work, percentile, resident_bytes
from .work import url_of

_KEYS = 100
_EVERY_MS = 2
_BAD = 20
"""Each event of so many is of the bad key."""
_OPENING_S = 1.0
_HANDLES_S, _AT_ONCE = 0.005, 4
_RATE = round(_AT_ONCE / _HANDLES_S)
"""So many events a second are handled."""
_ROUND_S = 0.05
_MB = 1_000_000


@dataclass(frozen=True)
class Drop:
    pipe: str
    number: int


def measure(work: Work) -> Iterator[Figure]:
    events = work.size(5_000, quick=100)
    beside: list[float] = []
    alone: list[float] = []
    for _ in work.repeats():
        for fails, found in ((False, alone), (True, beside)):
            waits = asyncio.run(_waits_ms(url_of(work.fresh_path()), events, fails=fails))
            found.append(percentile(waits, 0.99))
    yield Figure(
        "from append to handler beside a key that fails, p99", "ms", beside, "none fails", alone,
        target=2.0, target_of="ratio",
    )  # fmt: skip
    seconds = work.size(10, quick=1)
    fast: list[float] = []
    even: list[float] = []
    for _ in work.repeats(3):
        even.append(_memory_mb(work.fresh_path(), seconds, times=1))
        fast.append(_memory_mb(work.fresh_path(), seconds, times=100))
    yield Figure(
        "a worker's memory, events 100 times too fast", "MB", fast, "as fast as it handles them", even,
        target=1.5, target_of="ratio",
    )  # fmt: skip


async def _waits_ms(url: str, events: int, *, fails: bool) -> list[float]:
    """Of the events of all other keys."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # it tells of each attempt that fails
    drops = Stream("drops", Drop, key=lambda drop: drop.pipe)
    began: dict[int, float] = {}
    waits: list[float] = []
    wanted = events - len(range(0, events, _BAD))
    all_there = asyncio.Event()

    async def handle(event: Event[Drop]) -> None:
        if event.data.pipe == "bad":
            if fails:
                raise RuntimeError("it is bad")
            return
        waits.append(1_000 * (time.perf_counter() - began[event.data.number]))
        if len(waits) == wanted:
            all_there.set()

    handler = drops.on(retry=Retry(attempts=6, delay=0.01), on_exhausted="park_event")(handle)
    async with Engine(url, workflows=[], handlers=[handler]) as engine:
        for number in range(events):
            began[number] = time.perf_counter()
            await engine.append(drops, Drop("bad" if number % _BAD == 0 else f"{number % _KEYS}", number))
            await asyncio.sleep(_EVERY_MS / 1_000)
        await all_there.wait()
    return waits


def _memory_mb(path: Path, seconds: float, *, times: int) -> float:
    """Of a worker, after so long, while this process appends so many times as fast as it handles."""
    url = url_of(path)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        worker = pool.submit(work_for, url, seconds)
        asyncio.run(_append_for(url, seconds + _OPENING_S, _RATE * times))
        return worker.result() / _MB


def work_for(url: str, seconds: float) -> int:
    """Handle events for so long; what is resident then."""
    return asyncio.run(_work_for(url, seconds))


async def _work_for(url: str, seconds: float) -> int:
    async with Engine(url, workflows=[], handlers=[_slow()]):
        await asyncio.sleep(seconds)
        return resident_bytes()


def _slow() -> Handler[Drop]:
    stream = Stream("drops", Drop, key=lambda drop: drop.pipe)

    async def handle(event: Event[Drop]) -> None:
        await asyncio.sleep(_HANDLES_S)

    return stream.on(concurrency=_AT_ONCE)(handle)


async def _append_for(url: str, seconds: float, rate: int) -> None:
    drops = Stream("drops", Drop, key=lambda drop: drop.pipe)
    each = max(1, round(rate * _ROUND_S))
    async with Client(url) as client:
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            await client.append_batch(drops, [Drop(f"{number % _KEYS}", number) for number in range(each)])
            await asyncio.sleep(max(0.0, now + _ROUND_S - time.perf_counter()))
