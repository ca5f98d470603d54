"""Restate: the server in a process of its own, the service and the client in this one."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (checked without the peer's packages, which live in its own environment)

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from .measuring import Run, Variant, Work, main, note_step
from .servers import first_ready, free_port, server

count = restate.Workflow("count")


async def nothing() -> int:
    note_step()
    return 1


@count.main()
async def run_count(ctx: restate.WorkflowContext, steps: int) -> int:
    total = 0
    for _ in range(steps):
        total += await ctx.run_typed("nothing", nothing)
    return total


def find_binary() -> Path:
    """The server lies in the package for this machine, beside the environment."""
    packages = Path(sys.prefix).parent / "npm" / "node_modules" / "@restatedev"
    found = sorted(packages.glob("restate-server-*/bin/restate-server"))
    if not found:
        raise FileNotFoundError("npm brought no restate-server for this machine")
    return found[0]


def server_version() -> str:
    return json.loads((find_binary().parents[1] / "package.json").read_text())["version"]


@asynccontextmanager
async def serving(port: int) -> AsyncGenerator[None, None]:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    stopped = asyncio.Event()
    task = asyncio.create_task(serve(restate.app([count]), config, shutdown_trigger=stopped.wait))
    try:
        yield
    finally:
        stopped.set()
        await task


@asynccontextmanager
async def open_default(folder: Path, work: Work) -> AsyncGenerator[Run, None]:
    node, ingress, admin, service = (free_port() for _ in range(4))
    environ = {
        **os.environ,
        "RESTATE_BASE_DIR": str(folder / "data"),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
    }
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        # Entered first and so closed last: while the server lives it keeps a connection to the service.
        serving(service),
        server([find_binary(), "--no-logo"], folder=folder, environ=environ),
        httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as client,
    ):

        async def registered() -> bool:
            body = {"uri": f"http://127.0.0.1:{service}", "force": True}
            answer = await client.post(f"http://127.0.0.1:{admin}/deployments", json=body)
            return answer.is_success

        await first_ready(registered)

        async def run(run_id: str, steps: int) -> object:
            url = f"http://127.0.0.1:{ingress}/count/{run_id}/run_count"
            answer = await client.post(url, json=steps)
            answer.raise_for_status()
            return json.loads(answer.content)

        async def ready() -> bool:
            return await run("ready", 1) == 1

        await first_ready(ready)
        yield run


if __name__ == "__main__":
    main(
        f"{version('restate-sdk')} (server {server_version()})",
        [
            Variant(
                "defaults",
                "one node, 24 partitions, RocksDB, its log synced before an answer; HTTP/2 to the service",
                open_default,
            )
        ],
    )
