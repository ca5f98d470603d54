"""Bringing runs back into memory: after a restart, or one by one when their time comes.

A run is replayed from its journal through the same door as it first ran, and
then asks for what the journal did not answer.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from ..core.records import Kind, Record, RunRow, Status
from ..errors import PerdureError, RunDamaged, StepFailed, StoreCorrupt
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
        driver.set_aside = self.set_aside

    async def recover(self) -> int:
        """Bring back every run that was under way. Returns how many there were."""
        after = 0
        count = 0
        suspects: list[int] = []
        store = self._driver.store
        while page := self._next_page(after):
            until = page[-1][0].number
            attempted = store.attempted(after=after, until=until)
            with self._driver.turn:
                for row, records in page:
                    count += 1
                    if row.crashes >= CRASHES_BEFORE_SUSPECT:
                        suspects.append(row.number)
                    elif not self._driver.has_in_hand(row.number):
                        self._bring_in(row, records, attempted=row.number in attempted)
            after = until
            await asyncio.sleep(0)  # what they asked for may start, and others may be served
        await self._try_one_by_one(suspects)
        return count

    def _next_page(self, after: int) -> list[tuple[RunRow, list[Record]]]:
        """The next runs with their journals; those of which something is damaged are set aside."""
        limit = _PAGE
        while True:
            try:
                return self._driver.store.active_runs(after=after, limit=limit)
            except StoreCorrupt as error:
                if limit == 1:
                    if not isinstance(error, RunDamaged):
                        raise
                    self.set_aside(error.number, error)
                    after = error.number
                limit = 1  # it is not known which: look at them one by one

    def set_aside(self, number: int, error: StoreCorrupt) -> None:
        """Park a run of which something is damaged on disk, so that the others go on."""
        driver = self._driver
        try:
            row = driver.store.run_by_number(number)
        except RunDamaged as worse:
            driver.closing.park_unread(number, worse)
        except StoreCorrupt as worse:  # what cannot be read must not be written either
            driver.complain(worse, f"setting aside run number {number}")
        else:
            if row is not None and row.status == Status.RUNNING and number not in driver.ending:
                driver.closing.park(driver.residents.get(number) or driver.make_resident(row), error)

    async def _try_one_by_one(self, suspects: list[int]) -> None:
        """Bring back runs that were under way in several deaths of the worker in a row.

        One of them may be what kills it. They come back in a random order with a
        pause between, so that those that are innocent mostly get on before it, and
        are not counted with it again.
        """
        driver = self._driver
        now_ms = driver.clock.now_ms()
        suspects.sort(key=lambda _: driver.source.draw())
        later: list[tuple[int, int]] = []
        for place, number in enumerate(suspects):
            row = driver.store.run_by_number(number)
            if place and row is not None:
                later.append((number, now_ms + place * _APART_MS))
                driver.committer.batch.wakes.append((later[-1][1], row.crashes, number))
                driver.committer.schedule()
        await driver.committer.drain()
        for number, at_ms in later:
            driver.timers.set_evicted(number, at_ms)  # a timer may have fired, and the sleepers been read
        if suspects:
            self.load(suspects[0])

    def load(self, number: int) -> Resident | None:
        """Bring one run into memory; None when it has ended, is parked or is not known here."""
        driver = self._driver
        resident = driver.residents.get(number)
        if resident is not None or driver.stopped or number in driver.ending:
            return resident
        try:
            row = driver.store.run_by_number(number)
            if row is None or row.status != Status.RUNNING:
                return None
            records = driver.store.records(number)
        except StoreCorrupt as error:
            self.set_aside(number, error)
            return None
        return self._bring_in(row, records, attempted=True)

    def find(self, workflow: str) -> WorkflowDefinition | None:
        """The workflow of this name; None when it is not known here, or (complained of) not for sure."""
        try:
            return self._driver.registry.find(workflow)
        except PerdureError as error:
            if workflow not in self._driver.unknown:  # else it has been said
                self._driver.complain(error, f"looking for workflow {workflow!r}")
            return None

    def take_up_unknown(self) -> None:
        """Bring in runs whose workflow was not known in this process, and now is."""
        for workflow in [name for name in self._driver.unknown if self.find(name) is not None]:
            for number in sorted(self._driver.unknown.pop(workflow)):
                self.load(number)
                self._driver.retry_messages(number)

    def _bring_in(self, row: RunRow, records: list[Record], *, attempted: bool) -> Resident | None:
        driver = self._driver
        definition = self.find(row.workflow)
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
                try:
                    resident.attempts = self._attempts(resident)
                except StoreCorrupt as error:
                    driver.closing.park(resident, error)
                    return None
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
