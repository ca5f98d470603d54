"""Servers that a peer needs: on the loopback address, on free ports, and never left behind.

Each is stopped by its process id, by the program that started it: when its
block ends, and also when the program itself is told to end. A library that
holds up cancellation cannot keep a server alive.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_GRACE_SECONDS = 5
_running: list[subprocess.Popen[bytes]] = []


def end_servers_on_signals() -> None:
    """From now on SIGTERM and SIGINT stop the servers and end the program, with no clean-up of its own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, _frame: object) -> None:
    for process in _running:
        _stop(process)
    # Not `sys.exit`: what unwinds may wait for ever for the server that is gone.
    os._exit(128 + number)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@asynccontextmanager
async def server(
    command: Sequence[str | Path], *, folder: Path, environ: dict[str, str]
) -> AsyncGenerator[None, None]:
    """Run a server in `folder` while the block runs. What it prints goes to `server.log` there."""
    with (folder / "server.log").open("wb") as log:
        # Waited for on a thread, later: the asyncio way would need the loop, which a signal stops.
        process = subprocess.Popen(  # noqa: ASYNC220
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    _running.append(process)
    try:
        yield
    finally:
        await asyncio.to_thread(_stop, process)
        _running.remove(process)


def free_port() -> int:
    """A port on the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def first_ready(ready: Callable[[], Awaitable[bool]], *, seconds_max: float = 60) -> None:
    """Wait until `ready()` says yes; an error in it means not yet."""
    last: Exception | None = None
    ends = time.monotonic() + seconds_max
    while time.monotonic() < ends:
        try:
            if await ready():
                return
        except Exception as error:
            last = error
        await asyncio.sleep(0.1)
    raise TimeoutError(f"not ready within {seconds_max:.0f} s: {last}")
