"""Waiting for what threads, other workers and a server do: looked at until it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Let the engines work until that is so; what it gives may be awaited. Raises TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.005)
