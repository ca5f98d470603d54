"""Row 14: events come twice, out of order, long after they happened or before, while workers die."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from perdure import DuplicateConflict, Handler, ParkedEvent, StoreUnavailable
from perdure.stores.base import Batch, Store
from perdure.stores.sqlite import streams
from perdure.testing import Harness
from perdure.testing.disk import FaultyDisk

from .planted import replaced
from .resent import ALL, HOLDS, PLANTS, Ledger, Moved, Planted, Play, World, counted_worlds
from .row import Counted, Row, Trials, Work, chance

T = TypeVar("T")

_TRIALS_OF_A_CONTROL = 300
_SLOW_S = 0.003


class _FileWorld(World):
    """One engine after another in virtual time, and producers who append through it, one after another."""

    def __init__(self, play: Play, seed: int, folder: Path, totals: Counter[str]) -> None:
        super().__init__(play, chance(seed, "events"), totals)
        self._play = play
        self._rate = self.draw.choice((0.0, 0.05, 0.2))
        """Of commits that fail: before they are written, or after, so that nobody can know."""
        self._harness = Harness(folder / "runs.db", seed=seed)

    async def live(self) -> None:
        await self._harness.open()
        self._arm()
        await super().live()
        await self._harness.stop()

    async def append(self, names: Sequence[str]) -> None:
        for name in names:
            self.begin(name)
            while not await self._is_appended(name):
                await self._take_over()

    async def _is_appended(self, name: str) -> bool:
        moved, when = self.kept[name]
        try:
            self.told(name, await self._harness.append(self._play.stream, moved, id=name, time=when))
        except StoreUnavailable:
            return False
        return True

    async def misuse(self, name: str, other: Moved, when: datetime) -> None:
        try:
            await self._harness.append(self._play.stream, other, id=name, time=when)
        except DuplicateConflict:
            self.totals["ids refused"] += 1
        except StoreUnavailable:
            await self._take_over()
        else:
            raise AssertionError(f"I7: the id of {name} was taken for another event")

    async def crash(self) -> None:
        self.totals["crashes"] += 1
        if self._harness.engine.is_open:
            await self._harness.crash()
            self._arm()
        else:
            await self._take_over()

    async def pass_time(self, seconds: float) -> None:
        await self._harness.advance(seconds)

    async def come_to_rest(self) -> None:
        self._rate = 0.0
        for _ in range(3):  # each crash might be the one that shows what was not on disk
            await self._harness.advance(minutes=15)
            await self._harness.settle()
            await self.crash()
        await self._harness.advance(minutes=15)
        await self._harness.settle()

    async def read(self, look: Callable[[Store], T]) -> T:
        return await self._harness.door.read(look)

    async def parked(self, handler: Handler[Moved]) -> list[ParkedEvent]:
        return await self._harness.subscription(handler).parked(limit=ALL)

    async def _take_over(self) -> None:
        await self._harness.stop()
        await self._harness.open()
        self._arm()

    def _arm(self) -> None:
        self._harness.store.before_commit = self._maybe_fail

    def _maybe_fail(self, batch: Batch) -> None:
        if self.draw.random() < self._rate:
            self.totals["commits failed"] += 1
            if self.draw.random() < 0.5:
                time.sleep(_SLOW_S)  # so that the loop goes on meanwhile
                self._harness.store.fail_before_commit()
            else:
                self._harness.store.fail_after_commit()


def _run(work: Work) -> Counted:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # it tells of each attempt that fails
    play = Play(Ledger())

    def trial(seed: int, folder: Path, totals: Counter[str], planted: Planted) -> None:
        play.ledger = Ledger()
        with FaultyDisk(), planted():  # for speed: nothing is really synced
            asyncio.run(_FileWorld(play, seed, folder, totals).live())

    return counted_worlds(work, trial, plants=_PLANTS, seeds_of_a_control=_TRIALS_OF_A_CONTROL)


def _forgetting_ids() -> AbstractContextManager[object]:
    """What was appended before is not looked for."""
    return replaced(streams, _stored=_nothing_stored)


def _nothing_stored(*_: object, **_options: object) -> dict[tuple[str, str], Any]:
    return {}


_PLANTS: dict[str, Planted] = {
    **PLANTS,
    "an id is not looked for before it is appended again": _forgetting_ids,
}

ROW = Row(
    14,
    "duplicate, late and reordered events",
    fault="Events come twice, out of order, decades late or early; some fail, and workers die.",
    how="A real engine in virtual time; producers resend what they appended, and commits fail, or lose "
    "their answers.",
    holds=HOLDS,
    trials=Trials(push=100, long=3_000, release=100_000),
    run=_run,
)
