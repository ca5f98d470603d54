"""Time limits of steps that wait for a free place: the wait does not count as theirs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from perdure import Retry, step, workflow
from perdure.testing import Harness

THREADS = 32


async def test_a_step_that_waits_for_a_free_thread_is_not_out_of_time(tmp_path: Path) -> None:
    release = threading.Event()
    begun: list[int] = []

    @step(timeout=30, retry=Retry(attempts=1))
    def comes_last() -> str:
        return "in time"

    @step
    def occupies_a_thread(number: int) -> None:
        begun.append(number)
        release.wait(20)

    @workflow
    async def asks_for_more_than_there_are() -> str:
        *_, last = await asyncio.gather(*(occupies_a_thread(n) for n in range(THREADS)), comes_last())
        return str(last)

    async with Harness(tmp_path / "runs.db") as harness:
        run = await harness.engine.start(asks_for_more_than_there_are())
        await harness.until(lambda: len(begun) == THREADS)
        await harness.advance(60)
        release.set()

        assert await run.result() == "in time"
