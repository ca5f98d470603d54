"""What is sent to runs: signals, updates, cancels, and the ends of their children.

A message is a row until the run has recorded it; the record and the removal are
one commit. Messages from this process are handed over as soon as they are on
disk. Those of other processes are found by looking; the lookout says when.
"""

from __future__ import annotations

import asyncio
import weakref
from types import EllipsisType
from typing import TYPE_CHECKING

from ..codec.failures import encode_failure
from ..core.commands import RunStep
from ..core.records import Kind, Message, MessageKind, Record, RunRow, Status
from ..errors import (
    PerdureError,
    RunClosed,
    RunDamaged,
    RunTerminated,
    StoreCorrupt,
    UpdateRefused,
)
from ..stores.base import DROPPED, MessagePage, Reply, Store
from .closing import decode_end
from .jobs import decode_outcome
from .resident import Resident

if TYPE_CHECKING:
    from .driver import Driver

_PAGE = 1_000
_FOLLOWS = (MessageKind.SIGNAL, MessageKind.UPDATE, MessageKind.CANCEL, MessageKind.TERMINATE)
"""What goes on to the next generation when a run continued as new before it could take it."""


class Inbox:
    """Hands messages to this worker's runs, in the order in which they were sent."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver = weakref.proxy(driver)
        self._loop = asyncio.get_running_loop()
        self._after = 0
        """Messages up to this position have been found."""
        self._known: set[int] = set()
        """Messages after that position which were handed over, or found, already."""
        self._waiting: dict[int, dict[int, Message]] = {}
        """By run and position, messages whose run cannot take them now: parked, being loaded, or ending."""
        self._looking = False
        self._look_again = False
        driver.children.deliver = self.hand_over
        driver.retry_messages = self.retry_waiting
        driver.look_for_messages = self.look
        driver.found_messages = self._found_with_run
        driver.settle_messages = self._settle
        driver.drop_messages = self._drop
        driver.handle_first = self._handle_first

    @property
    def after(self) -> int:
        """Up to which position all messages have been found."""
        return self._after

    def look(self) -> None:
        """Look now for what was sent by others."""
        if self._looking:
            self._look_again = True
        elif not self._driver.stopped:
            self._looking = True
            self._ask(_PAGE)

    def _ask(self, limit: int) -> None:
        lease, after = self._driver.lease, self._after
        self._driver.reads.ask(
            lambda store: store.messages(lease, after=after, limit=limit),
            lambda page: self._found(page, limit),
        )

    def _found(self, page: MessagePage | Exception, limit: int) -> None:
        if self._driver.stopped:
            return
        if isinstance(page, RunDamaged):
            if limit == 1:  # it is passed over, and its run set aside
                self._after = page.position
                self._driver.set_aside(page.number, page)
            self._ask(1)  # it is not known which: look at them one by one
            return
        self._looking = False
        if isinstance(page, Exception):
            self._driver.complain(page, "looking for messages")
            return
        for message in page.messages:
            if message.pos not in self._known:
                self._known.add(message.pos)
                self._handle(message)
        got_on = page.after > self._after
        self._after = page.after
        self._known = {position for position in self._known if position > page.after}
        if got_on or self._look_again:
            self._look_again = False
            self._loop.call_soon(self.look)

    def hand_over(self, message: Message) -> None:
        """A message of this process is on disk: do not wait until it is found."""
        if message.pos <= self._after or message.pos in self._known:
            return  # it was found before its commit was told
        if message.run in self._driver.residents or message.run in self._waiting:
            self._known.add(message.pos)
            self._handle(message)
        else:
            self.look()  # its run may be on disk, another worker's, or nobody's
            self._driver.look_for_runs()

    def retry_waiting(self, run: int) -> None:
        """A run can take messages again, or has ended and never will."""
        for _, message in sorted(self._waiting.pop(run, {}).items()):
            self._handle(message)

    # -- messages of runs that are loaded --------------------------------------------------------

    def _found_with_run(self, messages: list[Message]) -> None:
        """What was sent to a run before it was claimed: `messages` may have passed it over."""
        for message in messages:
            if message.pos > self._after:
                self._known.add(message.pos)
            self._wait(message)

    def _handle_first(self, row: RunRow) -> bool:
        """Terminate a run before it is brought in, if that was asked for: it may kill its worker."""
        for message in list(self._waiting.get(row.number, {}).values()):
            if message.kind == MessageKind.TERMINATE:
                self._terminate(row, None, message)
                return True
        return False

    def _settle(self, number: int, row: RunRow | None) -> None:
        """A run has been looked at: give it what waits for it, as far as it can take it."""
        for _, message in sorted(self._waiting.pop(number, {}).items()):
            if number in self._driver.ending:
                self._wait(message)
            else:
                self._handle(message, row)

    def _drop(self, number: int) -> None:
        """The run is another worker's: so is what is sent to it."""
        self._waiting.pop(number, None)

    def _wait(self, message: Message) -> None:
        self._waiting.setdefault(message.run, {})[message.pos] = message

    # -- one message -----------------------------------------------------------------------------

    def _handle(self, message: Message, row: RunRow | EllipsisType | None = ...) -> None:
        """Give a message to its run; `row` is the run's, if it was just read."""
        try:
            self._dispatch(message, row)
        except PerdureError as error:
            self._driver.complain(error, f"delivering a message to run number {message.run}")
            self._wait(message)

    def _dispatch(self, message: Message, row: RunRow | EllipsisType | None) -> None:
        driver = self._driver
        if message.run in driver.ending:
            self._wait(message)  # until its end is on disk
            return
        resident = driver.residents.get(message.run)
        if resident is not None:
            row = resident.row
        elif row is ...:
            self._wait(message)
            driver.want(message.run)
            return
        if row is None or not Status(row.status).is_open:
            self._refuse_closed(message, row)
        elif message.kind == MessageKind.TERMINATE:
            self._terminate(row, resident, message)
        elif row.status == Status.PARKED:
            self._to_parked(row, message)
        elif resident is None:
            self._wait(message)
        else:
            self._to_resident(resident, message)

    def _to_parked(self, row: RunRow, message: Message) -> None:
        if message.kind in (MessageKind.RESUME, MessageKind.CANCEL):
            self._open_again(row, message)
        elif message.kind == MessageKind.UPDATE:
            error = UpdateRefused(f"Run {row.id!r} is parked.", run_id=row.id, hint="Resume it first.")
            self._refuse(message, error)
        else:
            self._wait(message)

    def _to_resident(self, resident: Resident, message: Message) -> None:
        match message.kind:
            case MessageKind.RESUME:
                self._take(message)  # it is in memory now: that was all
            case MessageKind.SIGNAL:
                self._record(resident, message, Kind.SIGNAL, message.name, message.payload)
            case MessageKind.UPDATE:
                self._update(resident, message)
            case MessageKind.CANCEL | MessageKind.TIMEOUT:
                self._cancel(resident, message)
            case MessageKind.CHILD_ENDED:
                self._child_ended(resident, message)
            case MessageKind.STEP_ENDED:
                self._step_ended(resident, message)
            case _:
                raise AssertionError(f"no such message: {message!r}")

    def _take(self, message: Message) -> None:
        self._unwait(message)
        if message.pos:
            self._driver.committer.batch.taken.append(message.pos)
            self._driver.committer.schedule()

    def _unwait(self, message: Message) -> bool:
        """Whether it waited; from now on it does not."""
        return self._waiting.get(message.run, {}).pop(message.pos, None) is not None

    def _record(
        self, resident: Resident, message: Message, kind: int, key: str, payload: bytes | None
    ) -> None:
        self._take(message)
        self._driver.record(resident, kind, key, 0, payload)

    # -- each kind -------------------------------------------------------------------------------

    def _update(self, resident: Resident, message: Message) -> None:
        try:
            resident.execution.judge_update(message.name, message.payload or b"null")
        except PerdureError as refusal:
            self._refuse(message, refusal)
        else:
            self._record(resident, message, Kind.UPDATE, f"{message.name}/{message.request}", message.payload)

    def _cancel(self, resident: Resident, message: Message) -> None:
        if resident.cancel_reason is not None or resident.execution.loop.cancelling:
            self._take(message)  # once is enough
            return
        # Children first: the parent hears of it when they have ended.
        self._wait(message)
        if not resident.awaits_children:
            # From now on, and not when they are known: their ends may come in between.
            resident.awaits_children = True
            self._driver.children.ask_open(
                resident, lambda children: self._cancel_children_first(resident, message, children)
            )

    def _cancel_children_first(self, resident: Resident, message: Message, children: list[RunRow]) -> None:
        if self._has_left(resident):
            return
        for child in children:
            self._driver.children.cancel_child(child.number, message.name)
        if children:
            return
        resident.awaits_children = False
        resident.cancel_reason = message.name
        how = "timeout" if message.kind == MessageKind.TIMEOUT else "cancel"
        self._record(resident, message, Kind.CANCEL, how, message.name.encode())
        self.retry_waiting(resident.number)

    def _has_left(self, resident: Resident) -> bool:
        """Whether a run is in memory no more; what waits for it is given to it when it comes back."""
        current = self._driver.residents.get(resident.number)
        if current is None:
            self._driver.want(resident.number)
        return current is not resident

    def _child_ended(self, resident: Resident, message: Message) -> None:
        driver = self._driver
        if resident.awaits_children:
            # The run hears of its own cancellation first, and of its children's ends after.
            self._wait(message)
            driver.children.ask_open(resident, lambda children: self._go_on_without(resident, children))
            return
        end = decode_end(message.payload or b"")
        key = message.name
        pending = resident.execution.pending_call(key)
        self._take(message)
        if pending is not None or key.endswith("/end"):  # else the call was cancelled: nobody waits
            ok = end.status == Status.COMPLETED
            digest = pending.digest if pending is not None else 0
            driver.record(resident, Kind.CHILD if ok else Kind.CHILD_FAILED, key, digest, end.output)

    def _go_on_without(self, resident: Resident, children: list[RunRow]) -> None:
        """Cancel a run that waited for its children's ends, if none is open any more."""
        if not children and not self._has_left(resident) and resident.awaits_children:
            resident.awaits_children = False
            self.retry_waiting(resident.number)

    def _step_ended(self, resident: Resident, message: Message) -> None:
        key = message.name
        self._take(message)
        pending = resident.execution.pending_call(key)
        if not resident.jobs or key not in resident.jobs or not isinstance(pending, RunStep):
            return  # the call was cancelled: nobody waits
        outcome = decode_outcome(message.payload or b"")
        if outcome.digest != pending.digest:
            self._driver.queue_anew(resident, pending)  # the code now calls it with other arguments
            return
        resident.jobs.discard(key)
        kind = Kind.STEP if outcome.ok else Kind.STEP_FAILED
        self._driver.record(resident, kind, key, pending.digest, outcome.payload)

    def _terminate(self, row: RunRow, resident: Resident | None, message: Message) -> None:
        self._unwait(message)
        because = f": {message.name}" if message.name else ""
        error = RunTerminated(f"Run {row.id!r} was terminated{because}.", run_id=row.id)
        self._driver.closing.terminate(row, resident, encode_failure(error), taken=message.pos)

    def _open_again(self, row: RunRow, message: Message) -> None:
        """Resume a parked run: it is replayed, and asks anew for the step that failed."""
        self._wait(message)
        self._driver.reads.ask_again(
            lambda store: _records_or_damage(store, row.number),
            lambda found: self._open_with(row, message, *found),
            f"opening run {row.id!r} again",
        )

    def _open_with(
        self, row: RunRow, message: Message, records: list[Record], damage: StoreCorrupt | None
    ) -> None:
        driver = self._driver
        if driver.has_in_hand(row.number) or not self._unwait(message):
            return  # something else that was sent to it came first
        self._take(message)
        if damage is not None:  # it stays parked: it cannot be replayed
            driver.complain(damage, f"opening run {row.id!r} again")
            return
        driver.open_again(row.number)
        if message.kind == MessageKind.CANCEL:
            # Recorded before it is replayed: what failed is not tried once more on the way.
            at_ms = max([driver.clock.now_ms(), *(record.at_ms for record in records[-1:])])
            reason = message.name.encode()
            cancel = Record(len(records), Kind.CANCEL, "cancel", 0, at_ms, reason, row.number)
            driver.committer.add_record(None, cancel, ...)

    def _refuse_closed(self, message: Message, row: RunRow | None) -> None:
        if row is None or row.status != Status.CONTINUED or message.kind not in _FOLLOWS:
            self._refuse_ended(message, row)
            return
        if message.pos:
            self._wait(message)
        self._driver.reads.ask_again(
            lambda store: store.run_by_id(row.id),
            lambda latest: self._follow(message, row, latest),
            f"handing on what was sent to run {row.id!r}",
        )

    def _follow(self, message: Message, row: RunRow, latest: RunRow | None) -> None:
        if message.pos and not self._unwait(message):
            return  # it was handed on already
        if latest is not None and Status(latest.status).is_open:
            self._forward(message, latest)
        else:
            self._refuse_ended(message, row)

    def _refuse_ended(self, message: Message, row: RunRow | None) -> None:
        run_id = row.id if row is not None else f"number {message.run}"
        if message.kind == MessageKind.UPDATE:
            self._refuse(message, RunClosed(f"Run {run_id!r} has ended.", run_id=run_id))
        else:
            self._take(message)

    def _forward(self, message: Message, latest: RunRow) -> None:
        """The run continued as new before it could take the message: it goes to the run that goes on."""
        # A signal's own id is kept with the run that ended, and is looked for there.
        request = message.request if message.kind == MessageKind.UPDATE else ""
        onward = message._replace(pos=0, run=latest.number, request=request)
        hand_on = self._driver.children.told(onward)

        def sent(position: int | Exception) -> None:
            hand_on(position)
            if position == DROPPED:
                self._driver.reads.ask_again(
                    lambda store: store.run_by_number(latest.number),
                    lambda row: self._refuse_closed(onward, row),
                    f"handing on what was sent to run {latest.id!r}",
                )

        self._take(message)
        self._driver.committer.add_message(onward, sent, caller=False)

    def _refuse(self, message: Message, error: PerdureError) -> None:
        driver = self._driver
        self._take(message)
        reply = Reply(message.request, False, encode_failure(error), driver.clock.now_ms())
        driver.committer.batch.replies.append(reply)
        driver.committer.after_commit(lambda failed: driver.closing.answer(reply, failed))


def _records_or_damage(store: Store, number: int) -> tuple[list[Record], StoreCorrupt | None]:
    """The journal of a run; or none, and what is wrong with it."""
    try:
        return store.records(number), None
    except StoreCorrupt as error:
        return [], error
