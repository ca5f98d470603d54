"""unhinged on SQLite: an async worker in the same process, as many tasks at once as there are runs."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (checked without the peer's packages, which live in its own environment)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unhinged.aio import AsyncUnhinged

from .measuring import Run, Variant, Work, main, note_step


async def nothing() -> int:
    note_step()
    return 1


async def count(steps: int, context: Any) -> int:
    total = 0
    for _ in range(steps):
        total += await context.step("nothing", nothing)
    return total


@asynccontextmanager
async def open_with(folder: Path, work: Work, poll: float | None) -> AsyncGenerator[Run, None]:
    """Where `poll` is None, worker and waiter poll as often as they do by default."""
    app = AsyncUnhinged(str(folder / "unhinged.db"))
    app.register_task("count")(count)

    async def run(run_id: str, steps: int) -> object:
        task_id = app.spawn("count", steps, idempotency_key=run_id)["task_id"]
        if poll is None:
            return (await app.await_task_result(task_id)).result
        # The library cannot tell us: it must be asked.
        while not (snapshot := app.fetch_task_result(task_id)) or not snapshot.terminal:  # noqa: ASYNC110
            await asyncio.sleep(poll)
        return snapshot.result

    options: dict[str, Any] = {} if poll is None else {"poll_interval": poll}
    worker = asyncio.create_task(app.start_worker(concurrency=work.runs, **options))
    try:
        yield run
    finally:
        app.stop_worker()
        await worker
        app.close()


if __name__ == "__main__":
    main(
        version("unhinged"),
        [
            Variant(
                "defaults",
                "SQLite WAL, synchronous=FULL: synced on every commit; concurrency set to the runs at once; "
                "the worker polls every 250 ms when idle, the waiter after 50 ms, then ever later up to 1 s",
                partial(open_with, poll=None),
            ),
            Variant(
                "polling every 2 ms",
                "the same; worker and waiter poll every 2 ms",
                partial(open_with, poll=0.002),
            ),
        ],
    )
