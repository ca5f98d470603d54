"""A Temporal development server for the tests that want one: real, and one for the whole session."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from perdure import Client

_PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a server that is up; it is stopped with the session."""
    program = Path(sysconfig.get_path("scripts")) / "temporal"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("temporal") / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                *(program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)),
                *("--log-level", "error"),
                # What a cluster holds back for a second, so that many come at once: tests need not wait.
                *("--dynamic-config-value", 'history.workflowIdReuseMinimalInterval="0s"'),
                *("--dynamic-config-value", 'history.defaultWorkflowTaskTimeout="1s"'),
                *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="1ms"'),
            ],
            stdout=output,
            stderr=output,
        )
    try:
        asyncio.run(_until_it_answers(f"temporal://127.0.0.1:{port}", server, log))
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


async def _until_it_answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _PATIENCE_S
    while True:
        try:
            async with Client(url):
                return
        except Exception:
            if server.poll() is not None or loop.time() > give_up_at:
                raise RuntimeError(f"the Temporal server did not come up: see {log}") from None


@pytest.fixture
def temporal_url(temporal_server: str) -> str:
    """A task queue of the test's own. A worker that died is noticed after two seconds."""
    return f"temporal://{temporal_server}/default?task_queue={uuid4().hex}&lost_after=2"
