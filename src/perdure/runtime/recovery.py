"""Bringing runs back into memory: after a restart, or one by one when their time comes.

A run is replayed from its journal through the same door as it first ran, and
then asks for what the journal did not answer.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from ..core.records import Kind, Record, RunRow, Status
from ..errors import JournalMismatch, PerdureError, StepFailed
from ..stores.base import AttemptRow
from .definitions import WorkflowDefinition
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
        driver.take_up_unknown = self.take_up_unknown

    async def recover(self) -> int:
        """Bring back every run that was under way. Returns how many there were."""
        after = 0
        count = 0
        while page := self._driver.store.active_runs(after=after, limit=_PAGE):
            with self._driver.turn:
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
        if resident is not None or driver.stopped or number in driver.ending:
            return resident
        row = driver.store.run_by_number(number)
        if row is None or row.status != Status.RUNNING:
            return None
        return self._bring_in(row, driver.store.records(number))

    def _find(self, workflow: str) -> WorkflowDefinition | None:
        try:
            return self._driver.registry.find(workflow)
        except PerdureError as error:
            if workflow not in self._driver.unknown:  # else it has been said
                self._driver.complain(error, f"looking for workflow {workflow!r}")
            return None

    def take_up_unknown(self) -> None:
        """Bring in runs whose workflow was not known in this process, and now is."""
        for workflow in [name for name in self._driver.unknown if self._find(name) is not None]:
            for number in sorted(self._driver.unknown.pop(workflow)):
                self.load(number)
                self._driver.retry_messages(number)

    def _bring_in(self, row: RunRow, records: list[Record]) -> Resident | None:
        driver = self._driver
        definition = self._find(row.workflow)
        if definition is None:
            driver.unknown.setdefault(row.workflow, set()).add(row.number)
            return None
        resident = driver.make_resident(row)
        driver.residents[row.number] = resident
        if records:
            resident.seq = records[-1].seq + 1
            resident.last_at_ms = records[-1].at_ms
        with driver.turn:
            return self._replay(resident, definition, records)

    def _replay(
        self, resident: Resident, definition: WorkflowDefinition, records: list[Record]
    ) -> Resident | None:
        driver, row, execution = self._driver, resident.row, resident.execution
        try:
            execution.foresee_patches(records)
            execution.begin(definition.body(row.input), definition.encode_result)
            execution.replay(records)
        except Exception as error:
            driver.closing.park(resident, error)
            return None
        execution.go_live()
        if execution.loop.cancelling:
            reasons = [record.payload or b"" for record in records if record.kind == Kind.CANCEL]
            resident.cancel_reason = reasons[0].decode()
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
