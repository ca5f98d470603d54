"""Claims: how a worker takes up runs that no living worker has in hand.

Those of a worker that died or closed, and those that a process that runs nothing has
started. A run that is claimed is this worker's until it ends, or its lease does.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..stores.base import Store

if TYPE_CHECKING:
    from .driver import Driver
    from .recovery import Recovery

CAPACITY = 10_000
_PAGE = 200
_PAUSE_S = 0.02


class Claims:
    """Looks for free runs, and has them brought into memory."""

    def __init__(self, driver: Driver, recovery: Recovery, *, capacity: int) -> None:
        """`capacity`: how many steps may be under way before no more runs are claimed."""
        self._driver: Driver = weakref.proxy(driver)
        driver.look_for_runs = self.look
        self._recovery = recovery
        self._loop = asyncio.get_running_loop()
        self._capacity = capacity
        self._again = False

    async def recover(self) -> int:
        """Take up all that is due now, as far as there is room. Returns how many runs that were."""
        count = 0
        while (room := self._room()) > 0:
            numbers = await self._claim_now(room)
            count += len(numbers)
            await self._recovery.loaded()
            if len(numbers) < room or await self._are_others_alive():
                break  # that was all, or others take their share
        return count

    async def _claim_now(self, limit: int) -> list[int]:
        driver, numbers = self._driver, list[int]()
        driver.claiming = True
        try:
            numbers = await driver.committer.wait_between(self._claim(limit))
        finally:
            driver.claiming = False
            self._recovery.claim_was_told(numbers)
        return numbers

    async def _are_others_alive(self) -> bool:
        now_ms = self._driver.clock.now_ms()
        return len(await self._driver.reads.wait(lambda store: store.workers(now_ms=now_ms))) > 1

    def _room(self) -> int:
        return self._driver.room(self._capacity, most=_PAGE)

    def _claim(self, limit: int) -> Callable[[Store], list[int]]:
        """What the writer's thread is to do."""
        driver = self._driver
        lease, now_ms, workflows = driver.lease, driver.clock.now_ms(), driver.registry.names()
        return lambda store: store.claim(lease, workflows=workflows, now_ms=now_ms, limit=limit)

    def stop(self) -> None:
        """Claim no more."""
        self._capacity = 0

    def look(self) -> None:
        """Look now: something may have been started, or freed."""
        if not self._capacity:
            return  # it was stopped, and what it would look with may be gone
        if self._driver.claiming:
            self._again = True
            return
        limit = self._room()
        if limit > 0 and self._driver.committer.error is None:
            self._driver.claiming = True
            self._driver.committer.ask_between(self._claim(limit), self._got)

    def _got(self, found: list[int] | Exception) -> None:
        self._driver.claiming = False
        if isinstance(found, Exception):
            self._driver.complain(found, "looking for runs to take up")
            found = []
        self._recovery.claim_was_told(found)
        if found:
            self._loop.call_later(_PAUSE_S, self.look)  # not at once: other workers take their share
        if self._again:
            self._again = False
            self.look()
