"""How runs end and park, and who is told.

The end of a run is one commit: its status and output, the message to its
parent, the cancellations of its children, and (continue_as_new) the next
generation. Whoever waits for the result hears of it when that is on disk. What all this
concerns is looked up before, off the loop; meanwhile the run is as it was on disk.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ..codec.failures import encode_failure
from ..core.commands import Outcome
from ..core.records import Kind, Message, MessageKind, NewRun, Record, RunRow, Status
from ..errors import (
    JournalMismatch,
    PerdureError,
    RunCancelled,
    RunDamaged,
    RunFailed,
    RunTimedOut,
    StoreCorrupt,
)
from ..stores.base import Reply, RunEnd, StartOutcome, Store
from .children import Children, ending_with_parent
from .definitions import WorkflowCallLike
from .resident import Resident
from .worker import Worker

_log = logging.getLogger("perdure")

_STOPPED: dict[int, tuple[type[RunFailed], str]] = {
    Status.CANCELLED: (RunCancelled, "was cancelled"),
    Status.TIMED_OUT: (RunTimedOut, "took longer than its timeout"),
}

PYTHON = ".".join(platform.python_version_tuple()[:2])


class _Found(NamedTuple):
    """What the end of a run concerns."""

    late: list[Record]
    """Records that the run never heard of."""
    children: list[RunRow]
    """Those that end with it."""
    tags: tuple[tuple[str, str], ...]
    """Those of a run that continues as new."""


class ChildEnd(msgspec.Struct, array_like=True):
    """The payload of a CHILD_ENDED message."""

    status: int
    output: bytes | None


_encode_end = msgspec.msgpack.Encoder().encode
decode_end = msgspec.msgpack.Decoder(ChildEnd).decode


class Closing:
    """Ends runs, and keeps who waits for their ends."""

    def __init__(self, driver: Worker, children: Children) -> None:
        self._driver = driver
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[int, list[asyncio.Future[RunRow]]] = {}
        self._replies: dict[str, asyncio.Future[Reply]] = {}

    # -- waiting ---------------------------------------------------------------------------------

    @contextmanager
    def waiting_for_end(self, number: int) -> Generator[asyncio.Future[RunRow]]:
        """A future that has the run's row once it has ended or parked, for as long as somebody waits."""
        future: asyncio.Future[RunRow] = self._loop.create_future()
        waiters = self._waiters.setdefault(number, [])
        waiters.append(future)
        try:
            yield future
        finally:
            if not future.done():
                waiters.remove(future)
                if not waiters:
                    self._waiters.pop(number, None)
                future.cancel()

    @contextmanager
    def waiting_for_reply(self, request: str) -> Generator[asyncio.Future[Reply]]:
        """A future that has the answer to an update, for as long as somebody waits."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._replies[request] = future
        try:
            yield future
        finally:
            self._replies.pop(request, None)
            future.cancel()

    def answer(self, reply: Reply, error: Exception | None) -> None:
        """An update's answer is on disk (or the worker has stopped)."""
        waiter = self._replies.pop(reply.request, None)
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(reply)
            else:
                waiter.set_exception(error)

    def stop(self, error: BaseException) -> None:
        """Nobody will hear of anything any more."""
        waiters: list[asyncio.Future[Any]] = [*self._replies.values()]
        for futures in self._waiters.values():
            waiters.extend(futures)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # else asyncio logs it where the waiter was still asking the store
        self._waiters.clear()
        self._replies.clear()

    # -- ending ----------------------------------------------------------------------------------

    def close(self, resident: Resident, outcome: Outcome) -> None:
        """Write the end of a run, or that it parks: a step failed for good, or its code broke a law."""
        if resident.closing:
            return
        resident.cancel_steps()
        if outcome.status is Status.PARKED:
            _log.warning("Run %r is parked: %s", resident.row.id, outcome.error)
            if outcome.forget_from is not None:
                self._take_back(resident, outcome.forget_from)
            self._write_end(resident, outcome.status, self._output(resident, outcome))
            return
        self._close_for_good(
            resident,
            lambda found: self._end(resident, outcome, found),
            late_from=outcome.seq if resident.seq > outcome.seq else None,
            with_tags=outcome.status is Status.CONTINUED,
        )

    def _end(self, resident: Resident, outcome: Outcome, found: _Found) -> None:
        self._write_end(resident, outcome.status, self._output(resident, outcome))
        self._cancel_all(found.children)
        if outcome.status is Status.CONTINUED:
            self._continue(resident.row, outcome, found)
        else:
            self._refuse_updates(found.late)

    def _close_for_good(
        self,
        resident: Resident,
        then: Callable[[_Found], object],
        *,
        late_from: int | None,
        with_tags: bool = False,
    ) -> None:
        """Take a run off the books, look up what its end concerns, and go on: at once if that is nothing.

        Until its end is written it is as it was on disk: should the worker die, it comes to it again.
        """
        self._set_apart(resident)
        self._children.withdraw(resident)
        with_children = resident.execution.has_children
        if not (with_children or with_tags) and late_from is None:
            then(_Found([], [], ()))
            return
        number = resident.number
        # Taken now: later they are on disk, or on their way, and what is read then may lack them.
        written = [record for record in self._driver.committer.batch.records if record.run == number]
        self._driver.reads.ask_again(
            partial(_look, number=number, written=written, late_from=late_from, with_children=with_children,
                with_tags=with_tags),
            then,
            f"ending run {resident.row.id!r}",
        )  # fmt: skip

    def _cancel_all(self, children: list[RunRow]) -> None:
        for child in children:
            self._children.cancel_child(child.number)

    def _refuse_updates(self, records: list[Record]) -> None:
        """Tell whoever asked that the run has ended; who has an answer already keeps it."""
        committer, now_ms = self._driver.committer, self._driver.clock.now_ms()
        for record in records:
            if record.kind == Kind.UPDATE:
                reply = Reply(record.key.rpartition("/")[2], False, None, now_ms)
                committer.batch.replies.append(reply)
                committer.after_commit(lambda error, reply=reply: self.answer(reply, error))

    def _take_back(self, resident: Resident, seq: int) -> None:
        """Forget the failure that parks a run, and only that: what was recorded after it moves up by one."""
        committer, number = self._driver.committer, resident.number
        records = committer.batch.records
        for place, record in enumerate(records):
            if record.run == number:
                records[place] = record._replace(seq=record.seq - 1)
        if resident.seq > seq + 1:  # nearly never: something was recorded after the failure
            for record in self._driver.store.records(number):
                if record.seq > seq:
                    committer.add_record(resident, record._replace(seq=record.seq - 1), ...)
        committer.batch.forgotten.append((number, seq))

    @staticmethod
    def _output(resident: Resident, outcome: Outcome) -> bytes | None:
        kind = _STOPPED.get(outcome.status)
        if kind is None:
            return outcome.output
        because = f": {resident.cancel_reason}" if resident.cancel_reason else ""
        error = kind[0](f"Run {resident.row.id!r} {kind[1]}{because}.", run_id=resident.row.id)
        error.__cause__ = outcome.error
        return encode_failure(error)

    def park(self, resident: Resident, error: Exception) -> None:
        """Stop a run whose code breaks a law; nothing that it asked for in this event is done."""
        if resident.closing:
            return
        resident.execution.commands.clear()
        resident.cancel_steps()
        resident.execution.drop()
        if isinstance(error, JournalMismatch) and resident.row.python not in ("", PYTHON):
            error.add_note(
                f"The run was recorded on Python {resident.row.python}; this worker runs {PYTHON}."
            )
        if isinstance(error, PerdureError):
            _log.warning("Run %r is parked. %s", resident.row.id, error)
        else:
            _log.error("Run %r is parked.", resident.row.id, exc_info=error)
        self._write_end(resident, Status.PARKED, encode_failure(error))

    def park_unread(self, number: int, error: RunDamaged) -> None:
        """Park a run whose own row is damaged: all that is known of it for sure is its number."""
        driver = self._driver
        _log.warning("Run number %d is parked. %s", number, error)
        driver.ending.add(number)
        driver.committer.batch.ends.append(RunEnd(Status.PARKED, encode_failure(error), None, None, number))

        def tell(failed: Exception | None) -> None:
            driver.ending.discard(number)
            for waiter in self._waiters.pop(number, ()):
                if not waiter.done():
                    waiter.set_exception(failed or error)

        driver.committer.after_commit(tell)

    def terminate(self, row: RunRow, resident: Resident | None, output: bytes, *, taken: int) -> None:
        """End a run from outside, in memory or not, with no clean-up; `taken`: the message that asks so."""
        if resident is None:
            resident = self._driver.make_resident(row)
            resident.execution.has_children = True  # it may: the store knows
        else:
            resident.execution.drop()
            resident.cancel_steps()
        self._close_for_good(
            resident, lambda found: self._end_by_force(resident, output, found, taken=taken), late_from=0
        )

    def _end_by_force(self, resident: Resident, output: bytes, found: _Found, *, taken: int) -> None:
        self._driver.committer.batch.taken.append(taken)
        self._refuse_updates(found.late)
        self._write_end(resident, Status.TERMINATED, output)
        self._cancel_all(found.children)

    def _set_apart(self, resident: Resident) -> None:
        """Nothing more is recorded for a run, and what is sent to it waits."""
        self._driver.forget(resident)
        self._driver.ending.add(resident.number)
        resident.closing = True

    def _write_end(self, resident: Resident, status: Status, output: bytes | None) -> None:
        driver = self._driver
        self._set_apart(resident)
        if resident.jobs is not None or status is Status.TERMINATED:  # then it may not have been in memory
            driver.withdraw_jobs(resident.number)
        now_ms = max(driver.clock.now_ms(), resident.last_at_ms)
        ended_ms = None if status is Status.PARKED else now_ms
        driver.committer.batch.ends.append(RunEnd(status, output, ended_ms, None, resident.number))
        row = resident.row._replace(status=int(status), output=output, ended_at_ms=ended_ms, wake_at_ms=None)
        if row.parent is not None and status not in (Status.PARKED, Status.CONTINUED):
            end = _encode_end(ChildEnd(status, output))
            message = Message(0, row.parent, MessageKind.CHILD_ENDED, row.parent_key, end, "", now_ms)
            driver.committer.add_message(message, self._children.told(message), caller=False)
        driver.committer.after_commit(lambda error: self._tell(row, error))

    def _tell(self, row: RunRow, error: Exception | None) -> None:
        if error is None:
            self._driver.ending.discard(row.number)
            self._driver.retry_messages(row.number)
        for waiter in self._waiters.pop(row.number, ()):
            if not waiter.done():
                if error is None:
                    waiter.set_result(row)
                else:
                    waiter.set_exception(error)

    def _continue(self, row: RunRow, outcome: Outcome, found: _Found) -> None:
        driver = self._driver
        next_call: WorkflowCallLike = outcome.next_call  # pyright: ignore[reportAssignmentType] (opaque there)
        driver.registry.add(next_call.definition)
        now_ms = driver.clock.now_ms()
        timeout_ms = next_call.definition.timeout_ms
        new = NewRun(
            id=row.id,
            workflow=next_call.definition.name,
            input=next_call.input(),
            seed=driver.source.bytes(16),
            created_at_ms=now_ms,
            python=PYTHON,
            deadline_ms=row.deadline_ms if timeout_ms is None else now_ms + timeout_ms,
            tags=found.tags,
            parent=row.parent,
            parent_key=row.parent_key,
            on_parent_close=row.on_parent_close,
            messages=_handed_on(outcome.unreceived, found.late, now_ms),
        )

        def begin(outcome: StartOutcome | Exception) -> None:
            if not isinstance(outcome, Exception) and outcome.verdict == "started":
                driver.begin(outcome.run, next_call.definition)
                driver.look_for_messages()  # what is handed on comes before what is sent from now on

        driver.committer.add_start(new, begin, caller=False)


_MESSAGES: dict[int, MessageKind] = {
    Kind.SIGNAL: MessageKind.SIGNAL,
    Kind.UPDATE: MessageKind.UPDATE,
    Kind.CANCEL: MessageKind.CANCEL,
}


def _look(
    store: Store,
    *,
    number: int,
    written: list[Record],
    late_from: int | None,
    with_children: bool,
    with_tags: bool,
) -> _Found:
    """Look up what the end of a run concerns; `written` are records that may be on disk by now."""
    late: dict[int, Record] = {}
    if late_from is not None:
        try:
            on_disk = store.records(number)
        except StoreCorrupt:  # a damaged run can be terminated too
            on_disk = []
        late = {record.seq: record for record in [*on_disk, *written] if record.seq >= late_from}
    return _Found(
        [record for _, record in sorted(late.items())],
        ending_with_parent(store.children(number)) if with_children else [],
        tuple(store.tags_of([number]).get(number, {}).items()) if with_tags else (),
    )


def _handed_on(
    unreceived: tuple[tuple[str, bytes], ...], late: list[Record], now_ms: int
) -> tuple[Message, ...]:
    """What a run that continues as new leaves to the next generation: nothing that was sent is lost."""
    messages = [Message(0, 0, MessageKind.SIGNAL, name, payload, "", now_ms) for name, payload in unreceived]
    for record in late:
        kind = _MESSAGES.get(record.kind)
        if kind is MessageKind.UPDATE:
            name, _, request = record.key.rpartition("/")
            messages.append(Message(0, 0, kind, name, record.payload, request, now_ms))
        elif kind is MessageKind.CANCEL:
            messages.append(Message(0, 0, kind, (record.payload or b"").decode(), None, "", now_ms))
        elif kind is not None:
            messages.append(Message(0, 0, kind, record.key, record.payload, "", now_ms))
    return tuple(messages)
