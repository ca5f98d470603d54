"""Children: runs that a run started.

A child is a run of its own with its own journal. Its id is made from its
parent's id and the place of the call, so that asking again after a crash finds
the child that is there. Its end is sent to the parent as a message, in the same
commit as the end itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import msgspec

from ..codec.failures import encode_failure
from ..codec.json import encode
from ..core.commands import StartApart, StartChild
from ..core.records import Kind, Message, MessageKind, NewRun, RunRow, Status
from ..errors import ConflictError
from ..stores.base import DROPPED, StartOutcome, Store
from .definitions import WorkflowCallLike
from .resident import Resident
from .worker import Worker


class ChildOptions(msgspec.Struct, frozen=True):
    """How `start_child` wants its child."""

    id: str | None = None
    on_parent_close: str = "cancel"
    timeout_ms: int | None = None
    tags: tuple[tuple[str, str], ...] = ()


class Children:
    """Starts, cancels and hears of the children of this worker's runs."""

    def __init__(self, driver: Worker) -> None:
        self._driver: Worker = weakref.proxy(driver)
        self.deliver: Callable[[Message], None] = lambda message: None
        """What to do with a message that this worker sent itself; set by the inbox."""

    def start(self, resident: Resident, pending: StartChild) -> None:
        """Start a child; one that is there already from before a crash is taken as it is."""
        driver = self._driver
        call: WorkflowCallLike = pending.call
        definition = call.definition
        driver.registry.add(definition)
        options = pending.options if isinstance(pending.options, ChildOptions) else ChildOptions()
        now_ms = driver.clock.now_ms()
        timeout_ms = options.timeout_ms if options.timeout_ms is not None else definition.timeout_ms
        row = resident.row
        own = row.id if row.generation == 1 else f"{row.id}~{row.generation}"
        new = NewRun(
            id=options.id or f"{own}/{pending.key}",
            workflow=definition.name,
            input=call.input(),
            seed=driver.source.bytes(16),
            created_at_ms=now_ms,
            python=row.python,
            deadline_ms=None if timeout_ms is None else now_ms + timeout_ms,
            tags=options.tags,
            parent=resident.number,
            parent_key=f"{pending.key}/end" if isinstance(pending, StartApart) else pending.key,
            on_parent_close=options.on_parent_close,
        )
        resident.in_flight[pending.key] = None
        driver.committer.add_start(
            new, lambda outcome: self._started(resident, pending, outcome), caller=False
        )

    def _started(self, resident: Resident, pending: StartChild, outcome: StartOutcome | Exception) -> None:
        if isinstance(outcome, Exception):
            return  # the worker has stopped
        driver = self._driver
        abandoned = resident.in_flight.pop(pending.key, ...) is ...
        call: WorkflowCallLike = pending.call
        child = outcome.run
        ours = child.parent == resident.number and child.parent_key.removesuffix("/end") == pending.key
        if not ours:
            error = ConflictError(
                f"Child {child.id!r} of run {resident.row.id!r} cannot start: the id belongs to another run.",
                run_id=child.id,
                hint="Give start_child another id.",
            )
            driver.record(resident, Kind.CHILD_FAILED, pending.key, pending.digest, encode_failure(error))
            return
        if outcome.verdict == "started":
            driver.begin(child, call.definition)
        if abandoned:
            if child.on_parent_close == "cancel":
                self.cancel_child(child.number)
        elif isinstance(pending, StartApart):
            payload = encode(child.id, "child id")
            driver.record(resident, Kind.CHILD_STARTED, pending.key, pending.digest, payload)
        elif not resident.closing:
            driver.carry_out(resident)  # it may be idle now

    def cancel(self, resident: Resident, key: str) -> None:
        """Cancel the child of one call, whose waiter is gone."""
        self._ask(resident, lambda children: self._cancel_of(children, key.removesuffix("/end")))

    def _cancel_of(self, children: list[RunRow], key: str) -> None:
        for child in children:
            if child.parent_key.removesuffix("/end") == key:
                self.cancel_child(child.number)

    def cancel_child(self, number: int, reason: str = "cancelled by its parent") -> None:
        """Send a child its cancel."""
        message = Message(0, number, MessageKind.CANCEL, reason, None, "", self._driver.clock.now_ms())
        hand_on = self.told(message)

        def sent(position: int | Exception) -> None:
            hand_on(position)
            if position == DROPPED:
                self._cancel_what_follows(number)

        self._driver.committer.add_message(message, sent, caller=False)

    def _cancel_what_follows(self, number: int) -> None:
        """The child has ended meanwhile; if it continued as new, cancel the run that goes on."""
        self._driver.reads.ask_again(
            lambda store: _follower(store, number),
            lambda latest: None if latest is None else self.cancel_child(latest.number),
            f"cancelling what run number {number} continued as",
        )

    def ask_to_time_out(self, resident: Resident) -> None:
        """Have a run that is out of time, and has open children, told so once these have been cancelled."""
        now_ms = self._driver.clock.now_ms()
        message = Message(0, resident.number, MessageKind.TIMEOUT, "out of time", None, "", now_ms)
        self._driver.committer.add_message(message, self.told(message), caller=False)

    def ask_open(self, resident: Resident, then: Callable[[list[RunRow]], object]) -> None:
        """Give the children that are still open and end with their parent to `then`; at once if none."""
        if resident.execution.has_children:
            self._ask(resident, lambda children: then(ending_with_parent(children)))
        else:
            then([])

    def _ask(self, resident: Resident, then: Callable[[list[RunRow]], object]) -> None:
        number = resident.number
        self._driver.reads.ask_again(
            lambda store: store.children(number), then, f"looking for the children of run {resident.row.id!r}"
        )

    def withdraw(self, resident: Resident) -> None:
        """The parent ends: do not start the children that are not on their way to disk yet."""
        if resident.execution.has_children:
            # Written with the parent's end, they would live on if the worker died right after.
            self._driver.committer.withdraw_starts(
                lambda new: new.parent == resident.number and new.on_parent_close == "cancel"
            )

    def told(self, message: Message) -> Callable[[int | Exception], None]:
        """A callback for the committer that hands the message on once it is on disk."""

        def hand_on(position: int | Exception) -> None:
            if isinstance(position, int) and position:
                self.deliver(message._replace(pos=position))

        return hand_on


def ending_with_parent(children: list[RunRow]) -> list[RunRow]:
    """Those of a run's children that are still open and end with it."""
    return [child for child in children if Status(child.status).is_open and child.on_parent_close == "cancel"]


def _follower(store: Store, number: int) -> RunRow | None:
    """The run that goes on, where this child continued as new."""
    ended = store.run_by_number(number)
    if ended is None or ended.status != Status.CONTINUED:
        return None
    latest = store.run_by_id(ended.id)
    if latest is None or not Status(latest.status).is_open or latest.parent != ended.parent:
        return None
    return latest
