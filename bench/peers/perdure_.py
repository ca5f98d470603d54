"""Perdure itself, from the checkout: engine, worker and client in one process."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from perdure import Engine, step, workflow

from .measuring import POSTGRES, Run, Variant, Work, main, note_step


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
async def open_engine(url: str) -> AsyncGenerator[Run, None]:
    async with Engine(url) as engine:

        async def run(run_id: str, steps: int) -> int:
            started = await engine.start(count(steps), id=run_id)
            return await started.result()

        yield run


def open_default(folder: Path, work: Work) -> AbstractAsyncContextManager[Run]:
    return open_engine(f"sqlite:///{folder / 'perdure.db'}")


def open_postgres(folder: Path, work: Work) -> AbstractAsyncContextManager[Run]:
    url = os.environ[POSTGRES]
    return open_engine(f"{url}{'&' if '?' in url else '?'}schema=bench_peers_{os.getpid()}")


if __name__ == "__main__":
    main(
        version("perdure"),
        [
            Variant("defaults", "SQLite WAL, synchronous=FULL: synced on every commit", open_default),
            Variant("PostgreSQL", "on a server that all have in common", open_postgres, needs=POSTGRES),
        ],
    )
