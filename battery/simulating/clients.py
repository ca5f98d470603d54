"""Clients of a simulation, which ask until there is an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from perdure import Client, JournalMismatch, RunCancelled, RunClosed, RunFailed, RunParked, StoreError
from perdure.blocks.workflow import WorkflowCall
from perdure.errors import PerdureError

from .programs import word

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")


class Drive:
    """A client that insists: it starts a run, sends what it needs, and waits for its end."""

    def __init__(
        self, world: World, run_id: str, call: WorkflowCall[Any], receives: int, outside: Client | None
    ) -> None:
        self._world = world
        self._id = run_id
        self._call = call
        self._receives = receives
        self._outside = outside

    async def run(self, chance: Random) -> None:
        await asyncio.sleep(chance.random() * 3)
        await self._insist(lambda client: client.start(self._call, id=self._id))
        for number in range(self._receives):
            await asyncio.sleep(chance.choice((0.0, 0.5, 20.0)))
            await self._insist(lambda client, n=number: client.send(self._id, word, n, signal_id=f"{n}"))
        if chance.random() < 0.15:
            await asyncio.sleep(chance.random() * 30)
            await self._insist(lambda client: client.cancel(self._id, "enough"))
        while not await self._insist(self._has_ended):  # noqa: ASYNC110 (as a person looks in again)
            await asyncio.sleep(5.0)

    async def _insist(self, ask: Callable[[Client], Awaitable[T]]) -> T | None:
        return await insist(self._world, self._outside, ask)

    async def _has_ended(self, client: Client) -> bool:
        run = await client.get(self._id)
        try:
            async with asyncio.timeout(30):
                await run.result()
        except TimeoutError:
            return False
        except RunParked as parked:
            if isinstance(parked.__cause__, JournalMismatch):
                self._world.witness.breaks(f"I4: {parked}")
            await run.resume()
            return False
        except (RunCancelled, RunFailed):
            return True
        return True


async def insist(world: World, outside: Client | None, ask: Callable[[Client], Awaitable[T]]) -> T | None:
    """Ask until there is an answer; the same question twice must do no harm."""
    while True:
        try:
            async with asyncio.timeout(60):
                return await ask(world.door(outside))
        except RunClosed:
            return None
        except (StoreError, TimeoutError, PerdureError) as error:
            if isinstance(error, RunFailed):
                raise
            await asyncio.sleep(0.5)
