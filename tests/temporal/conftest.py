"""Both homes for the tests of one; and on Temporal, each history is replayed when its test is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from perdure.blocks.workflow import Workflow
from perdure.temporal.address import connect, read_address
from perdure.temporal.workflows import make_replayer

_PATIENCE_S = 45


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[None]:
    """Fails a test that hangs, and lets the others run. Temporal's own tasks end with their worker."""
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        for task in asyncio.all_tasks(loop):
            code = getattr(task.get_coro(), "cr_code", None)
            if code is not None and "tests" in Path(code.co_filename).parts:
                task.cancel(f"nothing came for {_PATIENCE_S} s")

    timer = loop.call_later(_PATIENCE_S, give_up)
    yield
    timer.cancel()


@pytest.fixture(params=["sqlite", "temporal"])
def home_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both, one after the other."""
    if request.param == "temporal":
        return request.getfixturevalue("temporal_url")
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
async def home(home_url: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a home; what runs there does the same, whichever it is."""
    yield home_url
    if home_url.startswith("temporal:"):
        defined = [each for each in vars(request.module).values() if isinstance(each, Workflow)]
        assert await replay_all(home_url, defined) > 0


async def replay_all(url: str, workflows: Sequence[Workflow[Any, Any]]) -> int:
    """Have Temporal's own Replayer replay every run of the queue; gives how many."""
    address = read_address(url)
    client = await connect(address)
    count = 0
    async for execution in client.list_workflows(f"TaskQueue = '{address.task_queue}'"):
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        await make_replayer(workflows).replay_workflow(await handle.fetch_history())
        count += 1
    return count
