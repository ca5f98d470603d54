"""An engine on a temporary file, with time in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perdure.testing import Harness

_PATIENCE_S = 30


@pytest.fixture(autouse=True)
async def watchdog() -> AsyncIterator[None]:
    """Fails a test that hangs, and lets the others run."""
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel(f"nothing came for {_PATIENCE_S} s")

    timer = loop.call_later(_PATIENCE_S, give_up)
    yield
    timer.cancel()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """An engine whose time stands still until the test moves it."""
    async with Harness(tmp_path / "runs.db") as harness:
        yield harness


@pytest.fixture
async def flying(tmp_path: Path) -> AsyncIterator[Harness]:
    """An engine whose time goes by itself to the next moment that something waits for."""
    async with Harness(tmp_path / "runs.db", time_flies=True) as harness:
        yield harness
