"""Perdure itself, from the checkout: engine, worker and client in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from perdure import Engine, step, workflow

from .measuring import Run, Variant, Work, main, note_step


@step
async def nothing() -> int:
    note_step()
    return 1


@workflow
async def count(steps: int) -> int:
    total = 0
    for _ in range(steps):
        total += await nothing()
    return total


@asynccontextmanager
async def open_default(folder: Path, work: Work) -> AsyncGenerator[Run, None]:
    async with Engine(f"sqlite:///{folder / 'perdure.db'}") as engine:

        async def run(run_id: str, steps: int) -> int:
            started = await engine.start(count(steps), id=run_id)
            return await started.result()

        yield run


if __name__ == "__main__":
    main(
        version("perdure"),
        [Variant("defaults", "SQLite WAL, synchronous=FULL: synced on every commit", open_default)],
    )
