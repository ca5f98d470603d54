"""A watchdog. The engines are those that `perdure.testing` brings: `harness` and `flying_harness`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

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
