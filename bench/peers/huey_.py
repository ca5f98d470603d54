"""huey on SQLite. It has no workflows: a run is a pipeline, in which each task starts the next.

So this is what a plain queue costs, with less promised: no replay, no journal,
and a task that was under way when its worker died is lost.
"""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (checked without the peer's packages, which live in its own environment)

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huey import SqliteHuey
from huey.contrib.asyncio import aget_result

from .measuring import Run, Variant, Work, main, note_step


@asynccontextmanager
async def open_with(folder: Path, work: Work, poll: float | None) -> AsyncGenerator[Run, None]:
    """Where `poll` is None, consumer and waiter poll as often as they do by default."""
    huey = SqliteHuey("bench", filename=str(folder / "huey.db"))

    @huey.task()
    def nothing(done: int = 0) -> int:
        note_step()
        return done + 1

    async def run(run_id: str, steps: int) -> object:
        pipeline = nothing.s()
        for _ in range(steps - 1):
            pipeline = pipeline.then(nothing)
        enqueued = huey.enqueue(pipeline)
        # A group of results; to index it would wait and block.
        last = enqueued if steps == 1 else list(enqueued)[-1]
        if poll is None:
            return await aget_result(last)
        # The library cannot tell us: it must be asked.
        while (result := last.get(preserve=True)) is None:  # noqa: ASYNC110
            await asyncio.sleep(poll)
        return result

    delays: dict[str, Any] = {} if poll is None else {"initial_delay": poll, "max_delay": poll}
    consumer = huey.create_consumer(**delays)
    consumer.start()
    try:
        yield run
    finally:
        await asyncio.to_thread(consumer.stop, graceful=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    durability = "a queue, no workflows; SQLite WAL, synchronous=FULL: synced on every commit; one worker"
    main(
        version("huey"),
        [
            Variant(
                "defaults",
                f"{durability}; consumer and waiter poll after 100 ms, then 15 % later each time, "
                "up to 10 s and 1 s",
                partial(open_with, poll=None),
            ),
            Variant(
                "polling every 2 ms",
                "the same; consumer and waiter poll every 2 ms",
                partial(open_with, poll=0.002),
            ),
        ],
    )
