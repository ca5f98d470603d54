"""Bringing runs back into memory: after a restart, or one by one when their time comes.

A run is replayed from its journal through the same door as it first ran, and
then asks for what the journal did not answer.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from ..core.records import Record, RunRow, Status
from ..errors import JournalMismatch, PerdureError, StepFailed
from ..stores.base import AttemptRow
from .driver import CRASHES_BEFORE_PARKING
from .resident import Resident

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 500


class Recovery:
    """Loads runs."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver = weakref.proxy(driver)
        driver.load = self.load

    async def recover(self) -> int:
        """Bring back every run that was under way. Returns how many there were."""
        after = 0
        count = 0
        while page := self._driver.store.active_runs(after=after, limit=_PAGE):
            for row, records in page:
                if row.number not in self._driver.residents:
                    self._bring_in(row, records)
                    count += 1
            after = page[-1][0].number
            await asyncio.sleep(0)  # what they asked for may start, and others may be served
        return count

    def load(self, number: int) -> Resident | None:
        """Bring one run into memory; None when it has ended, is parked or is not known here."""
        driver = self._driver
        resident = driver.residents.get(number)
        if resident is not None or driver.stopped:
            return resident
        row = driver.store.run_by_number(number)
        if row is None or row.status != Status.RUNNING:
            return None
        return self._bring_in(row, driver.store.records(number))

    def _bring_in(self, row: RunRow, records: list[Record]) -> Resident | None:
        driver = self._driver
        try:
            definition = driver.registry.find(row.workflow)
        except PerdureError as error:
            driver.complain(error, f"looking for the workflow of run {row.id!r}")
            return None
        if definition is None:
            driver.unknown.add(row.workflow)
            return None
        resident = driver.make_resident(row)
        driver.residents[row.number] = resident
        execution = resident.execution
        if records:
            resident.seq = records[-1].seq + 1
            resident.last_at_ms = records[-1].at_ms
        try:
            execution.foresee_patches(records)
            execution.begin(definition.body(row.input), definition.encode_result)
            execution.replay(records)
        except Exception as error:
            driver.closing.park(resident, error)
            return None
        execution.go_live()
        if row.crashes >= CRASHES_BEFORE_PARKING and execution.outcome is None:
            driver.closing.park(resident, self._kills_its_worker(resident))
            return None
        resident.attempts = self._attempts(resident) if execution.commands else None
        driver.carry_out(resident)
        return driver.residents.get(row.number)

    def _attempts(self, resident: Resident) -> dict[str, list[AttemptRow]] | None:
        rows = self._driver.store.attempts(resident.number)
        if not rows:
            return None
        attempts: dict[str, list[AttemptRow]] = {}
        for row in rows:
            attempts.setdefault(row.key, []).append(row)
        return attempts

    @staticmethod
    def _kills_its_worker(resident: Resident) -> StepFailed:
        steps = ", ".join(repr(pending.key) for pending in resident.execution.pending) or "its own code"
        return StepFailed(
            f"The worker died {resident.row.crashes} times in a row while run {resident.row.id!r} was in "
            f"{steps}: a step may be killing it (memory, a crash in native code).",
            hint="Look at the step, then resume the run.",
        )


__all__ = ["JournalMismatch", "Recovery"]
