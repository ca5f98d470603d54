"""A run's code is told what was recorded, one record after another, and nothing leaves.

The law: it goes through the engine's own door (`core.execution`), and no command is
let out, so that a replay here and one in a worker cannot differ. It is pure: plain
code, no loop, no clock.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from types import FrameType
from typing import Any

from ..codec import failures
from ..core.commands import PendingCall, Publish
from ..core.execution import Execution
from ..core.host import Decode, facts_of
from ..core.journal import standing_frames
from ..core.mailbox import Mailbox
from ..core.ready import Ready
from ..core.records import Record, RunRow
from ..runtime.definitions import WorkflowDefinition
from ..stores.correlation import read_signal


class Replayer:
    """One run, replayed."""

    __slots__ = ("_body", "_ready", "definition", "execution", "record", "records", "row")

    def __init__(
        self,
        row: RunRow,
        records: Sequence[Record],
        definition: WorkflowDefinition,
        *,
        redacted: bool = False,
        ready: Ready | None = None,
    ) -> None:
        """`redacted`: arguments are not compared, as values that they came from were taken out.

        `ready` is shared by those that replay many runs in a row, inside `with ready:`.
        """
        self.row = row
        self.records = records
        self.definition = definition
        self.record: Record | None = None
        """The record that was delivered last, or whose delivery failed."""
        self._body: Coroutine[Any, Any, Any] | None = None
        self._ready = ready if ready is not None else Ready()
        make = _Lenient if redacted else Execution
        self.execution = make(facts_of(row), ready=self._ready, failures=failures)

    def prepare(self) -> None:
        """Read the input and make the code's coroutine, which does not run yet. Raises NotDecodable."""
        self._body = self.definition.body(self.row.input)

    def begin(self) -> None:
        """Start the code and let it go on until it waits.

        Raises NotDecodable for an input that it cannot read, BoundaryError for a law that it breaks.
        """
        if self._body is None:
            self.prepare()
        execution = self.execution
        execution.foresee_patches(self.records)
        body, self._body = self._body, None
        assert body is not None
        with self._ready:
            execution.begin(body, self.definition.encode_result)

    def deliver(self, records: Iterable[Record]) -> None:
        """Tell the code what was recorded next. Raises JournalMismatch when it does not ask for that."""
        with self._ready:
            for record in records:
                self.record = record
                self.execution.replay((record,))

    def published(self) -> dict[str, bytes]:
        """The last value of each state, as JSON. Nothing more may be delivered after this."""
        self.execution.go_live()
        return {
            command.state: command.payload
            for command in self.execution.commands
            if isinstance(command, Publish)
        }

    def standing(self) -> list[tuple[str, list[FrameType]]]:
        """The path and the frames, outermost first, of each task that waits in code of its own."""
        waiting = [task for task in self.execution.loop.tasks if not task.done()]
        found = [(task.path, standing_frames(task.get_coro())) for task in waiting]
        return [(path, frames) for path, frames in found if frames]

    def close(self) -> None:
        """Let the run's coroutines vanish."""
        with self._ready:
            self.execution.drop()


class _Lenient(Execution):
    """Takes arguments as they are: what they were made of is not all in the journal."""

    __slots__ = ()

    def _take(self, record: Record) -> PendingCall | None:
        pending = self.pending_call(record.key)
        return super()._take(record if pending is None else record._replace(digest=pending.digest))

    def mailbox(self, signal: str, decode: Decode) -> Mailbox:
        mailbox = super()._mailbox(signal)
        mailbox.decode = decode
        return mailbox

    def _mailbox(self, name: str) -> Mailbox:
        """Of what was recorded. It may be an event for which the code waits by other values."""
        known = self._mailboxes or {}
        if (wait := _without_values(name)) is not None and not (name in known and known[name].is_awaited):
            alike = (one for one in known if known[one].is_awaited and _without_values(one) == wait)
            name = next(alike, name)
        return super()._mailbox(name)


def _without_values(signal: str) -> tuple[str, list[str]] | None:
    """Which events a run waited for, of those by which it hears of events."""
    wait = read_signal(signal)
    return None if wait is None else (wait[0], sorted(wait[1]))
