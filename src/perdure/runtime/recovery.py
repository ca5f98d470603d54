"""Bringing runs back into memory: those that were claimed, and those whose time has come.

A run is replayed from its journal through the same door as it first ran, and
then asks for what the journal did not answer. Runs are loaded many at a time; what
is sent to one meanwhile waits for it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..core.records import Kind, Record, RunRow, Status
from ..errors import PerdureError, RunDamaged, StepFailed, StoreCorrupt
from ..stores.base import Loaded
from .definitions import WorkflowDefinition
from .driver import CRASHES_BEFORE_PARKING
from .resident import Resident

if TYPE_CHECKING:
    from .driver import Driver

CRASHES_BEFORE_SUSPECT = 2
_APART_MS = 2_000
_TRY_AGAIN_MS = 1_000
_PAGE = 200


class Recovery:
    """Brings runs into memory that are on disk."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver = weakref.proxy(driver)
        self._loop = asyncio.get_running_loop()
        self._wanted: list[int] = []
        self._claimed: set[int] = set()
        """Those of `driver.loading` that have just been claimed: what was sent to them is not known here."""
        self._unsure: list[tuple[int, Loaded | None]] = []
        """Those that were loaded while a claim was under way, which may have brought them."""
        self._unreadable: set[int] = set()
        """Runs that were parked although even their rows are damaged."""
        self._suspects_until_ms = 0
        self._waiters: list[asyncio.Future[None]] = []
        driver.want = self.want
        driver.bring_back = self.bring_back
        driver.set_aside = self.set_aside

    # -- asking for runs -------------------------------------------------------------------------

    def want(self, number: int) -> None:
        """Bring a run into memory soon, with what was sent to it; one of no living worker is claimed."""
        driver = self._driver
        if driver.has_in_hand(number) or number in driver.loading or driver.stopped:
            return
        driver.loading.add(number)
        self._wanted.append(number)
        if len(self._wanted) == 1:
            self._loop.call_soon(self._load_wanted)

    def bring_back(self, claimed: Iterable[int]) -> None:
        """Bring in runs that have just been claimed."""
        for number in claimed:
            if not self._driver.has_in_hand(number):
                self._claimed.add(number)
                self.want(number)

    def claim_was_told(self, claimed: Iterable[int]) -> None:
        """A claim is over: bring in what it brought, and what was loaded meanwhile."""
        self.bring_back(claimed)
        unsure, self._unsure = self._unsure, []
        if unsure and not self._driver.stopped:
            with self._driver.turn:
                self._take_up(unsure)
            if not self._driver.loading:
                self._tell_waiters()

    async def loaded(self) -> None:
        """Wait until all that was asked for is in memory."""
        while self._driver.loading and not self._driver.stopped:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _load_wanted(self) -> None:
        if self._driver.stopped:
            return
        wanted, self._wanted = self._wanted[:_PAGE], self._wanted[_PAGE:]
        if self._wanted:
            self._loop.call_soon(self._load_wanted)
        self._load(wanted)

    def _load(self, numbers: list[int]) -> None:
        claimed = self._claimed.intersection(numbers)
        self._driver.reads.ask(
            lambda store: store.load(numbers), lambda found: self._arrived(numbers, found, claimed)
        )

    def _arrived(self, numbers: list[int], found: list[Loaded] | Exception, claimed: set[int]) -> None:
        driver = self._driver
        if isinstance(found, Exception):
            self._failed(numbers, found)
        elif not driver.stopped:
            by_number = {loaded.row.number: loaded for loaded in found}
            with driver.turn:
                self._take_up([(number, by_number.get(number)) for number in numbers], claimed)
        if not driver.loading or driver.stopped:
            self._tell_waiters()

    def _failed(self, numbers: list[int], error: Exception) -> None:
        driver = self._driver
        if len(numbers) > 1:
            for number in numbers:  # it is not known which: look at them one by one
                self._load([number])
            return
        (number,) = numbers
        driver.loading.discard(number)
        if isinstance(error, StoreCorrupt):
            self._found_damaged(number, error)
        else:
            driver.complain(error, f"loading run number {number}")
            driver.clock.arm(driver.clock.now_ms() + _TRY_AGAIN_MS, lambda: self.want(number))

    def _found_damaged(self, number: int, error: StoreCorrupt) -> None:
        """Set it aside; if that was done before, it can still be told to end, or to try again."""
        driver, store = self._driver, self._driver.store
        was_claimed = number in self._claimed
        self._claimed.discard(number)
        try:
            row = store.run_by_number(number)
        except StoreCorrupt:
            self.set_aside(number, error)
            return
        try:
            messages = store.messages_for(number) if was_claimed else []
        except StoreCorrupt:
            messages = []
        driver.found_messages(messages)
        if row is not None and row.status == Status.RUNNING and not driver.handle_first(row):
            self.set_aside(number, error)
        driver.settle_messages(number, row)

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- what has been loaded --------------------------------------------------------------------

    def _take_up(self, runs: list[tuple[int, Loaded | None]], claimed: Collection[int] = ()) -> None:
        """`claimed`: those that were known as claimed when they were to be read."""
        driver = self._driver
        free: list[int] = []
        suspects: list[Loaded] = []
        for number, loaded in runs:
            if number not in driver.loading:
                continue  # it was begun, or has ended, while it was read
            was_claimed = number in self._claimed
            if loaded is not None and self._is_elsewhere(loaded.row):
                if number in claimed:
                    driver.committer.check_lease()  # which is lost, if another has claimed it since
                    self._leave(number)
                elif was_claimed:
                    self._load([number])  # it was read before the claim that has brought it
                elif loaded.row.status == Status.RUNNING and self.find(loaded.row.workflow) is not None:
                    free.append(number)
                else:
                    self._leave(number)
            elif loaded is not None and driver.claiming and not was_claimed:
                # A look has found a message for it before the claim was told. If that is what has brought the
                # run, what was sent to it earlier would be passed over.
                self._unsure.append((number, loaded))
            elif was_claimed and loaded is not None:
                driver.found_messages(loaded.messages)
                if loaded.row.status == Status.RUNNING and loaded.row.crashes >= CRASHES_BEFORE_SUSPECT:
                    suspects.append(loaded)
                else:
                    self._go_on(number, loaded)
            else:
                self._go_on(number, loaded)
        suspects.sort(key=lambda _: driver.source.draw())
        at_once = [loaded for loaded in suspects if not self._is_put_off(loaded.row)]
        if at_once:
            # Not before the others are put off on disk: should it kill the worker, it was not in their hands.
            driver.committer.after_commit(lambda error: self._try_now(at_once, error))
        if free:
            self._claim(free)

    def _is_elsewhere(self, row: RunRow) -> bool:
        return row.lease != self._driver.lease.number and Status(row.status).is_open

    def _leave(self, number: int) -> None:
        """It is another worker's, or parked, which is claimed when something comes that opens it."""
        driver = self._driver
        driver.loading.discard(number)
        self._claimed.discard(number)
        driver.drop_messages(number)
        driver.look_for_runs()

    def _go_on(self, number: int, loaded: Loaded | None) -> None:
        """Bring in a run that is this worker's, or has ended, and give it what was sent to it."""
        driver = self._driver
        driver.loading.discard(number)
        self._claimed.discard(number)
        row = None if loaded is None else loaded.row
        if loaded is not None and loaded.row.status == Status.RUNNING and not driver.handle_first(loaded.row):
            self._bring_in(loaded)
        driver.settle_messages(number, row)

    def _is_put_off(self, row: RunRow) -> bool:
        """Whether a run is to come back later, which was under way in several deaths of its worker in a row.

        One of them may be what kills it. They come back in a random order with a
        pause between, so that those that are innocent mostly get on before it, and
        are not counted with it again.
        """
        driver = self._driver
        now_ms = driver.clock.now_ms()
        at_ms = max(now_ms, self._suspects_until_ms)
        self._suspects_until_ms = at_ms + _APART_MS
        if at_ms == now_ms:
            return False
        driver.loading.discard(row.number)
        self._claimed.discard(row.number)
        driver.committer.batch.wakes.append((at_ms, row.crashes, row.number))
        driver.committer.schedule()
        driver.timers.set(row.number, at_ms)  # what is on disk may be read before that is
        return True

    def _try_now(self, suspects: list[Loaded], error: Exception | None) -> None:
        for loaded in suspects:
            if error is None and loaded.row.number in self._driver.loading:
                self._go_on(loaded.row.number, loaded)
        if not self._driver.loading:
            self._tell_waiters()

    def _claim(self, numbers: list[int]) -> None:
        """Claim those that are free; the others are in the hands of other workers."""
        driver = self._driver
        lease, now_ms = driver.lease, driver.clock.now_ms()
        driver.committer.ask_between(
            lambda store: store.claim_these(lease, numbers, now_ms=now_ms),
            lambda claimed: self._was_claimed(numbers, claimed),
        )

    def _was_claimed(self, numbers: list[int], claimed: set[int] | Exception) -> None:
        driver = self._driver
        if isinstance(claimed, Exception):
            driver.complain(claimed, "claiming runs whose time has come")
            claimed = set()
        self._claimed |= claimed
        # Another claim, that was under way, may have brought it: then it was not free any more.
        ours = [number for number in numbers if number in self._claimed]
        for number in numbers:
            if number not in self._claimed:
                self._leave(number)
        if ours and not driver.stopped:
            self._load(ours)  # anew: its crashes have been counted
        elif not driver.loading:
            self._tell_waiters()

    def set_aside(self, number: int, error: StoreCorrupt) -> None:
        """Park a run of which something is damaged on disk, so that the others go on."""
        driver = self._driver
        try:
            row = driver.store.run_by_number(number)
        except RunDamaged as worse:
            if number not in self._unreadable:  # else it is parked, and stays so
                self._unreadable.add(number)
                driver.closing.park_unread(number, worse)
        except StoreCorrupt as worse:  # what cannot be read must not be written either
            driver.complain(worse, f"setting aside run number {number}")
        else:
            if row is not None and row.status == Status.RUNNING and number not in driver.ending:
                driver.closing.park(driver.residents.get(number) or driver.make_resident(row), error)

    def find(self, workflow: str) -> WorkflowDefinition | None:
        """The workflow of this name; None when it is not known here, or (complained of) not for sure."""
        try:
            return self._driver.registry.find(workflow)
        except PerdureError as error:
            self._driver.complain(error, f"looking for workflow {workflow!r}")
            return None

    def _bring_in(self, loaded: Loaded) -> None:
        driver, row, records = self._driver, loaded.row, loaded.records
        definition = self.find(row.workflow)
        if definition is None:  # it was claimed as known: the last of its definitions has gone
            driver.committer.batch.freed.append(row.number)
            driver.committer.schedule()
            driver.drop_messages(row.number)
            return
        resident = driver.make_resident(row)
        driver.residents[row.number] = resident
        if records:
            resident.seq = records[-1].seq + 1
            resident.last_at_ms = records[-1].at_ms
        with driver.turn:
            if not self._replay(resident, definition, records):
                return
            if loaded.attempts and resident.execution.commands:
                resident.attempts = {}
                for attempt in loaded.attempts:
                    resident.attempts.setdefault(attempt.key, []).append(attempt)
            resident.asks_again = True
            driver.carry_out(resident)
            resident.asks_again = False
            if resident.crashes and resident.stored_wake_ms and not resident.is_idle:
                driver.store_wake(resident, 0)  # should the worker die again, it was under way
            driver.wake_if_due(resident)

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

    @staticmethod
    def _kills_its_worker(resident: Resident) -> StepFailed:
        steps = ", ".join(repr(pending.key) for pending in resident.execution.pending) or "its own code"
        return StepFailed(
            f"The worker died {resident.row.crashes} times in a row while run {resident.row.id!r} was in "
            f"{steps}: a step may be killing it (memory, a crash in native code).",
            hint="Look at the step, then resume the run.",
        )
