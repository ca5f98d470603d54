"""What is sent to runs: signals, updates, cancels, and the ends of their children.

A message is a row until the run has recorded it; the record and the removal are
one commit. Messages from this process are handed over as soon as they are on
disk; those of other processes are found by looking, a few dozen times a second,
which costs a few microseconds.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from ..codec.failures import encode_failure
from ..core.records import Kind, Message, MessageKind, Record, RunRow, Status
from ..errors import (
    PerdureError,
    RunClosed,
    RunDamaged,
    RunTerminated,
    StoreCorrupt,
    StoreError,
    UpdateRefused,
)
from ..stores.base import DROPPED, Reply
from .closing import decode_end
from .resident import Resident

if TYPE_CHECKING:
    from .driver import Driver

_LOOK_EVERY_S = 0.02
_PAGE = 1_000
_FOLLOWS = (MessageKind.SIGNAL, MessageKind.UPDATE, MessageKind.CANCEL, MessageKind.TERMINATE)
"""What goes on to the next generation when a run continued as new before it could take it."""


class Inbox:
    """Hands messages to runs, in the order in which they were sent."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver = weakref.proxy(driver)
        self._seen = 0
        self._handled: set[int] = set()
        """Messages of this process that were handed over before `_seen` came to them."""
        self._waiting: dict[int, Message] = {}
        """Messages whose run cannot take them now: unknown workflow, or parked."""
        self._timer: asyncio.TimerHandle | None = None
        driver.children.deliver = self.hand_over
        driver.retry_messages = self.retry_waiting
        driver.look_for_messages = self._look

    def start(self) -> None:
        """Take what is there, and look for more from now on."""
        self._look()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        try:
            while page := self._next_page():
                for message in page:
                    self._seen = message.pos
                    if message.pos in self._handled:
                        self._handled.discard(message.pos)
                    else:
                        self._handle(message)
            if self._driver.unknown:
                self._driver.take_up_unknown()
        except StoreError as error:
            self._driver.complain(error, "looking for messages")

    def _next_page(self) -> list[Message]:
        """What was sent since we looked; a message that is damaged sets its run aside, and is passed over."""
        limit = _PAGE
        while True:
            try:
                return self._driver.store.messages(after=self._seen, limit=limit)
            except RunDamaged as error:
                if limit == 1:
                    self._seen = error.position
                    self._driver.set_aside(error.number, error)
                limit = 1  # it is not known which: look at them one by one

    def hand_over(self, message: Message) -> None:
        """A message of this process is on disk: do not wait until it is found."""
        if message.pos > self._seen:  # else it was found before its commit was told
            self._handled.add(message.pos)
            self._handle(message)

    def retry_waiting(self, run: int) -> None:
        """A run can take messages again, or has ended and never will."""
        if not self._waiting:
            return
        for message in [message for message in self._waiting.values() if message.run == run]:
            del self._waiting[message.pos]
            self._handle(message)

    # -- one message -----------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        try:
            self._dispatch(message)
        except PerdureError as error:
            self._driver.complain(error, f"delivering a message to run number {message.run}")
            self._waiting[message.pos] = message

    def _dispatch(self, message: Message) -> None:
        driver = self._driver
        if message.run in driver.ending:
            self._waiting[message.pos] = message  # until its end is on disk
            return
        resident = driver.residents.get(message.run)
        row = resident.row if resident is not None else driver.store.run_by_number(message.run)
        if row is None or not Status(row.status).is_open:
            self._refuse_closed(message, row)
            return
        if message.kind == MessageKind.TERMINATE:
            self._terminate(row, resident, message)
            return
        if row.status == Status.PARKED:
            if message.kind in (MessageKind.RESUME, MessageKind.CANCEL):
                self._open_again(row, message)
            elif message.kind == MessageKind.UPDATE:
                self._refuse(
                    message,
                    UpdateRefused(f"Run {row.id!r} is parked.", run_id=row.id, hint="Resume it first."),
                )
            else:
                self._waiting[message.pos] = message
            return
        if resident is None:
            resident = driver.load(message.run)
            if resident is None:
                self._waiting[message.pos] = message
                return
        self._to_resident(resident, message)

    def _to_resident(self, resident: Resident, message: Message) -> None:
        match message.kind:
            case MessageKind.STARTED | MessageKind.RESUME:
                self._take(message)  # it is in memory now: that was all
            case MessageKind.SIGNAL:
                self._record(resident, message, Kind.SIGNAL, message.name, message.payload)
            case MessageKind.UPDATE:
                self._update(resident, message)
            case MessageKind.CANCEL | MessageKind.TIMEOUT:
                self._cancel(resident, message)
            case MessageKind.CHILD_ENDED:
                self._child_ended(resident, message)
            case _:
                raise AssertionError(f"no such message: {message!r}")

    def _take(self, message: Message) -> None:
        self._waiting.pop(message.pos, None)
        if message.pos:
            self._driver.committer.batch.taken.append(message.pos)
            self._driver.committer.schedule()

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
        driver = self._driver
        if resident.cancel_reason is not None or resident.execution.loop.cancelling:
            self._take(message)  # once is enough
            return
        # Children first: the parent hears of it when they have ended.
        children = driver.children.open_children(resident)
        if children and not resident.awaits_children:
            resident.awaits_children = True
            for child in children:
                driver.children.cancel_child(child.number, message.name)
        if children:
            self._waiting[message.pos] = message
        else:
            resident.cancel_reason = message.name
            how = "timeout" if message.kind == MessageKind.TIMEOUT else "cancel"
            self._record(resident, message, Kind.CANCEL, how, message.name.encode())

    def _child_ended(self, resident: Resident, message: Message) -> None:
        driver = self._driver
        if resident.awaits_children:
            # The run hears of its own cancellation first, and of its children's ends after.
            self._waiting[message.pos] = message
            if not driver.children.open_children(resident):
                resident.awaits_children = False
                self.retry_waiting(resident.number)
            return
        end = decode_end(message.payload or b"")
        key = message.name
        pending = resident.execution.pending_call(key)
        self._take(message)
        if pending is not None or key.endswith("/end"):  # else the call was cancelled: nobody waits
            ok = end.status == Status.COMPLETED
            digest = pending.digest if pending is not None else 0
            driver.record(resident, Kind.CHILD if ok else Kind.CHILD_FAILED, key, digest, end.output)

    def _terminate(self, row: RunRow, resident: Resident | None, message: Message) -> None:
        self._take(message)
        because = f": {message.name}" if message.name else ""
        error = RunTerminated(f"Run {row.id!r} was terminated{because}.", run_id=row.id)
        self._driver.closing.end_now(row, resident, Status.TERMINATED, encode_failure(error))

    def _open_again(self, row: RunRow, message: Message) -> None:
        """Resume a parked run: it is replayed, and asks anew for the step that failed."""
        driver = self._driver
        self._take(message)
        try:
            records = driver.store.records(row.number)
        except StoreCorrupt as error:  # it stays parked: it cannot be replayed
            driver.complain(error, f"opening run {row.id!r} again")
            return
        driver.open_again(row.number)
        if message.kind == MessageKind.CANCEL:
            # Recorded before it is replayed: what failed is not tried once more on the way.
            at_ms = max([driver.clock.now_ms(), *(record.at_ms for record in records[-1:])])
            reason = message.name.encode()
            cancel = Record(len(records), Kind.CANCEL, "cancel", 0, at_ms, reason, row.number)
            driver.committer.add_record(None, cancel, ...)

    def _refuse_closed(self, message: Message, row: RunRow | None) -> None:
        if row is not None and row.status == Status.CONTINUED and message.kind in _FOLLOWS:
            latest = self._driver.store.run_by_id(row.id)
            if latest is not None and Status(latest.status).is_open:
                self._forward(message, latest)
                return
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
                self._refuse_closed(onward, self._driver.store.run_by_number(latest.number))

        self._take(message)
        self._driver.committer.add_message(onward, sent, caller=False)

    def _refuse(self, message: Message, error: PerdureError) -> None:
        driver = self._driver
        self._take(message)
        reply = Reply(message.request, False, encode_failure(error), driver.clock.now_ms())
        driver.committer.batch.replies.append(reply)
        driver.committer.after_commit(lambda failed: driver.closing.answer(reply, failed))
