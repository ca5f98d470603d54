"""DBOS on SQLite: a workflow of async steps, started and awaited in one process."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (checked without the peer's packages, which live in its own environment)

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from dbos import DBOS, SetWorkflowID

from .measuring import POSTGRES, Run, Variant, Work, main, note_step


@DBOS.step()
async def nothing() -> int:
    note_step()
    return 1


@DBOS.workflow()
async def count(steps: int) -> int:
    total = 0
    for _ in range(steps):
        total += await nothing()
    return total


async def run(run_id: str, steps: int) -> int:
    with SetWorkflowID(run_id):
        handle = await DBOS.start_workflow_async(count, steps)
    return await handle.get_result()


@asynccontextmanager
async def open_at(url: str) -> AsyncGenerator[Run, None]:
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        yield run
    finally:
        DBOS.destroy()


def open_default(folder: Path, work: Work) -> AbstractAsyncContextManager[Run]:
    return open_at(f"sqlite:///{folder / 'dbos.sqlite'}")


def open_postgres(folder: Path, work: Work) -> AbstractAsyncContextManager[Run]:
    # It makes the database, if there is none of that name.
    server = urlsplit(os.environ[POSTGRES])
    return open_at(server._replace(path=f"/bench_peers_{os.getpid()}").geturl())


@asynccontextmanager
async def open_wal(folder: Path, work: Work) -> AsyncGenerator[Run, None]:
    # The mode is kept in the file: DBOS has no setting for it.
    connection = sqlite3.connect(folder / "dbos.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    async with open_default(folder, work) as run_once:
        yield run_once


if __name__ == "__main__":
    main(
        version("dbos"),
        [
            Variant(
                "defaults",
                "SQLite, rollback journal, synchronous=FULL: synced on every commit",
                open_default,
            ),
            Variant("WAL", "the same, the file put into WAL before: synced on every commit", open_wal),
            Variant("PostgreSQL", "on a server that all have in common", open_postgres, needs=POSTGRES),
        ],
    )
