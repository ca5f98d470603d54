"""How long a commit waits, at worst, when the program's own callbacks keep the loop busy.

Callbacks of 0.5 ms run back to back, as in a server under load: the loop never
sleeps, and holds the interpreter's lock nearly all the time. Meanwhile signals
are sent to a run, one after the other; each is on disk when `send` returns.

Limit: the worst of as many one-row commits with nothing else running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from perdure import Engine, Signal, workflow

from .measure import Figure, Work, commit_seconds
from .work import url_of

CALLBACK_S = 0.000_5

ping = Signal[int]("ping")


@workflow
async def listen(signals: int) -> None:
    for _ in range(signals):
        await ping.receive()


def measure(work: Work) -> Iterator[Figure]:
    commits = work.size(500, quick=20)
    values: list[float] = []
    limits: list[float] = []
    for _ in work.repeats():
        limits.append(max(commit_seconds(work, times=commits)) * 1_000)
        values.append(max(asyncio.run(_waits_ms(work.fresh_path(), commits))))
    yield Figure("busy loop, worst commit", "ms", values, "worst commit of one row", limits, target=50)


class _Busy:
    """Keeps the loop busy until it is stopped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._loop.call_soon(self._work)

    def _work(self) -> None:
        until = time.perf_counter() + CALLBACK_S
        while time.perf_counter() < until:
            pass
        if not self._stopped:
            self._loop.call_soon(self._work)

    def stop(self) -> None:
        self._stopped = True


async def _waits_ms(path: Path, commits: int) -> list[float]:
    waits: list[float] = []
    async with Engine(url_of(path)) as engine:
        run = await engine.start(listen(commits))
        busy = _Busy()
        for number in range(commits):
            began = time.perf_counter()
            await run.send(ping, number)
            waits.append((time.perf_counter() - began) * 1_000)
        busy.stop()
        await run.result()
    return waits
