"""Bringing runs back into memory: after a restart, or one by one when their time comes.

A run is replayed from its journal through the same door as it first ran, and
then asks for what the journal did not answer.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from ..core.records import Kind, Record, RunRow, Status
from ..errors import PerdureError, StepFailed
from ..stores.base import AttemptRow
from .definitions import WorkflowDefinition
from .driver import CRASHES_BEFORE_PARKING
from .resident import Resident

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 500
CRASHES_BEFORE_SUSPECT = 2
_APART_MS = 2_000


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
        suspects: list[int] = []
        store = self._driver.store
        while page := store.active_runs(after=after, limit=_PAGE):
            until = page[-1][0].number
            attempted = store.attempted(after=after, until=until)
            with self._driver.turn:
                for row, records in page:
                    count += 1
                    if row.crashes >= CRASHES_BEFORE_SUSPECT:
                        suspects.append(row.number)
                    elif row.number not in self._driver.residents:
                        self._bring_in(row, records, attempted=row.number in attempted)
            after = until
            await asyncio.sleep(0)  # what they asked for may start, and others may be served
        await self._try_one_by_one(suspects)
        return count

    async def _try_one_by_one(self, suspects: list[int]) -> None:
        """Bring back runs that were under way in several deaths of the worker in a row.

        One of them may be what kills it. They come back in a random order with a
        pause between, so that those that are innocent mostly get on before it, and
        are not counted with it again.
        """
        driver = self._driver
        now_ms = driver.clock.now_ms()
        suspects.sort(key=lambda _: driver.source.draw())
        for place, number in enumerate(suspects):
            row = driver.store.run_by_number(number)
            if place and row is not None:
                driver.committer.batch.wakes.append((now_ms + place * _APART_MS, row.crashes, number))
                driver.committer.schedule()
        await driver.committer.drain()
        if suspects:
            self.load(suspects[0])

    def load(self, number: int) -> Resident | None:
        """Bring one run into memory; None when it has ended, is parked or is not known here."""
        driver = self._driver
        resident = driver.residents.get(number)
        if resident is not None or driver.stopped or number in driver.ending:
            return resident
        row = driver.store.run_by_number(number)
        if row is None or row.status != Status.RUNNING:
            return None
        return self._bring_in(row, driver.store.records(number), attempted=True)

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

    def _bring_in(self, row: RunRow, records: list[Record], *, attempted: bool) -> Resident | None:
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
            if not self._replay(resident, definition, records):
                return None
            if attempted and resident.execution.commands:
                resident.attempts = self._attempts(resident)
            driver.carry_out(resident)
            if resident.crashes and resident.stored_wake_ms and not resident.is_idle:
                driver.store_wake(resident, 0)  # should the worker die again, it was under way
            return driver.residents.get(row.number)

    def _replay(self, resident: Resident, definition: WorkflowDefinition, records: list[Record]) -> bool:
        """Whether the run stands where it stood; else it has been parked."""
        driver, row, execution = self._driver, resident.row, resident.execution
        try:
            execution.foresee_patches(records)
            execution.begin(definition.body(row.input), definition.encode_result)
            execution.replay(records)
        except Exception as error:
            driver.closing.park(resident, error)
            return False
        execution.go_live()
        if execution.loop.cancelling:
            reasons = [record.payload or b"" for record in records if record.kind == Kind.CANCEL]
            resident.cancel_reason = reasons[0].decode()
        if row.crashes >= CRASHES_BEFORE_PARKING and execution.outcome is None:
            driver.closing.park(resident, self._kills_its_worker(resident))
            return False
        return True

    def _attempts(self, resident: Resident) -> dict[str, list[AttemptRow]]:
        rows = self._driver.store.attempts(resident.number)
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
