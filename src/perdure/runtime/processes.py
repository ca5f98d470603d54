"""A pool of child processes for CPU-bound steps. A child that dies fails its attempt, and no other.

Each child runs one attempt at a time, and is asked by a pipe. Children are
spawned, not forked: a fork would copy the parent's locks, connections and the
lock that says which worker is alive.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from .attempt import StepInfo
from .definitions import StepDefinition


class Processes:
    """To be filled."""

    async def run(self, definition: StepDefinition, data: bytes, info: StepInfo) -> Any:
        raise NotImplementedError

    async def stop(self) -> None: ...
