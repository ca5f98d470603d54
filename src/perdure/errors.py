"""Every error that Perdure raises, in one tree.

Each message has three parts: what happened (with the ids), why, and what to do
next. The last part is also kept apart as `hint`, so that the command line can
show it on its own line, and `code` is stable, so that programs can match it.

    PerdureError
    ├── DefinitionError            a @workflow or @step that cannot work as written
    ├── NotSerialisable            a value that cannot be written as JSON
    │   └── PayloadTooLarge
    ├── NotDecodable               JSON that does not fit the type it is read as
    ├── BoundaryError              workflow code did what only a step may do
    │   ├── OutsideRun             a block was used where no run stands
    │   └── NotAwaited             a durable call was made and never awaited
    ├── StepError                  what a step's attempt or a whole step came to
    │   ├── StepFailed             all attempts failed; also an instance of the last error's type
    │   ├── StepTimedOut           an attempt, or all of them, took too long (a TimeoutError)
    │   ├── HeartbeatTimedOut      an attempt stopped calling heartbeat() (a TimeoutError)
    │   ├── StepProcessDied        the process that ran the attempt ended
    │   └── ForeignError           an exception of a type that is not known here
    ├── RunError                   about one run, named by `run_id`
    │   ├── RunNotFound
    │   ├── RunClosed              the run has ended and takes nothing more
    │   ├── ConflictError          the id is taken
    │   ├── WorkflowNotRegistered  no such workflow in this process
    │   ├── UpdateRefused          the validator said no; nothing was recorded
    │   ├── JournalMismatch        the code no longer matches the journal
    │   └── RunFailed              what result() raises when there is no result
    │       ├── RunCancelled
    │       ├── RunTerminated
    │       ├── RunTimedOut
    │       └── RunParked          stopped and waiting for a person; not ended
    ├── StreamError                about event streams
    │   ├── DuplicateConflict      an event's id stands for another event
    │   ├── SubscriptionNotFound
    │   ├── Backpressure           more waits to be written than is kept in memory
    │   ├── BrokerUnavailable      a bridge's broker cannot be used now; the bridge goes on trying
    │   ├── SchemaError            a schema of events that does not go with those that are kept
    │   ├── UnknownEvent           an event of a type or version that this code does not know
    │   ├── NotParked              an event that is not parked was to be edited, redriven or discarded
    │   ├── NotHandled             a handler returned and yet none of its code ran
    │   ├── WorkerKilled           workers died while they handled an event
    │   └── PositionGone           the stream has let go of the events there
    └── StoreError                 about the place where runs are kept
        ├── StoreUnavailable       the file cannot be opened, read or written now
        │   ├── StoreReadOnly
        │   ├── StoreFull
        │   ├── StoreLocked        another program holds the file; a worker goes on trying
        │   └── StoreUnreachable   the server does not answer; a worker goes on trying
        ├── StoreNotOurs           the file is something else
        ├── StoreVersionError      the file or the SQLite library is of a version we cannot use
        ├── StoreCorrupt           the file is damaged
        │   └── RunDamaged         what it keeps of one run is; the others can be read
        ├── CommitsLost            the server that answers now lacks what was acknowledged
        ├── StoreInUse             it has as many workers as it can bear
        ├── StoreMoved             its runs went to another store, or have not all arrived
        └── LeaseLost              this worker's lease ended; nothing was written

`NonRetryable` stands beside the tree: it is for your own errors. So does
`DeterminismWarning`, which is only a warning. Two more are no errors but
control flow, and derive from BaseException so that `except Exception` in a
workflow cannot swallow them: `RunEvicted` and `ContinueAsNew`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class PerdureError(Exception):
    """The base of all errors of this library."""

    code: ClassVar[str] = "error"

    def __init__(self, what: str, *, hint: str = "") -> None:
        """`what` says what happened and why; `hint` what to do next."""
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}" if self.hint else self.what


class NonRetryable(Exception):
    """Derive your own error from this, and a step that raises it is not tried again.

    The error reaches the workflow at once, as itself. A workflow that lets it
    pass fails; it does not park, since to try again would not help.
    """


class DefinitionError(PerdureError):
    """A workflow, step, signal, state or update that cannot work as it is written."""

    code = "definition"


class NotSerialisable(PerdureError):
    """A value cannot be written as JSON. Nothing was recorded."""

    code = "not_serialisable"

    def __init__(self, path: str, reason: str, *, hint: str = "") -> None:
        """`path` leads to the value: `charge(order).items[3].callback`."""
        super().__init__(
            f"{path}: {reason}.",
            hint=hint
            or "Pass plain data: dataclasses, msgspec Structs, attrs or pydantic models, "
            "lists, dicts with text keys, text, numbers, bytes, dates, enums.",
        )
        self.path = path
        self.reason = reason


class PayloadTooLarge(NotSerialisable):
    """A value is larger than a record may be. Nothing was recorded."""

    code = "payload_too_large"

    def __init__(self, path: str, *, size: int, limit: int) -> None:
        """`size` and `limit` are bytes of JSON."""
        super().__init__(
            path,
            f"the value is {size:,} bytes as JSON, and the limit is {limit:,}",
            hint="Store the data elsewhere (a file, a bucket) and pass its name.",
        )
        self.size = size
        self.limit = limit


class NotDecodable(PerdureError):
    """JSON does not fit the type it is to be read as."""

    code = "not_decodable"

    def __init__(self, where: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {reason}.", hint=hint)
        self.where = where
        self.reason = reason


class BoundaryError(PerdureError):
    """Workflow code did what only a step may do: it would not replay the same."""

    code = "boundary"


class OutsideRun(BoundaryError):
    """A block that needs a run was used where none stands."""

    code = "outside_run"


class NotAwaited(BoundaryError):
    """A durable call was made inside a run and never awaited."""

    code = "not_awaited"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt of a step."""

    number: int
    error: str
    """The type's name and the message."""
    at_ms: int
    """When it failed, in Unix milliseconds."""


class StepError(PerdureError):
    """What a step's attempt, or a whole step, came to."""

    code = "step"


class StepFailed(StepError):
    """A step failed in all its attempts.

    What is raised in the workflow is an instance of this *and* of the last
    error's own type, where that type is known here: both `except StepFailed`
    and `except OutOfStock` catch it. A workflow that lets it pass, and has no
    clean-up to do, parks the run; `resume` tries the step again.
    """

    code = "step_failed"
    step: str = ""
    attempts: tuple[Attempt, ...] = ()


class StepTimedOut(StepError, TimeoutError):
    """An attempt took longer than `timeout`, or all of them longer than `deadline`."""

    code = "step_timed_out"


class HeartbeatTimedOut(StepError, TimeoutError):
    """An attempt did not call `step_info().heartbeat()` in time."""

    code = "heartbeat_timed_out"


class StepProcessDied(StepError):
    """The process in which the attempt ran ended before it answered."""

    code = "step_process_died"


class ForeignError(StepError):
    """An exception that was recorded by name and whose type is not known here."""

    code = "foreign_error"

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message


class RunError(PerdureError):
    """About one run."""

    code = "run"

    def __init__(self, what: str, *, run_id: str, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.run_id = run_id


class RunNotFound(RunError):
    """No run has this id in this store."""

    code = "run_not_found"


class RunClosed(RunError):
    """The run has ended, and takes no signal, update or cancel any more."""

    code = "run_closed"


class ConflictError(RunError):
    """The id belongs to another run: other workflow, other input, or one that may not be replaced."""

    code = "conflict"


class WorkflowNotRegistered(RunError):
    """The run's workflow is not defined in this process."""

    code = "workflow_not_registered"


class UpdateRefused(RunError):
    """The run's validator refused the update; nothing was recorded."""

    code = "update_refused"


class JournalMismatch(RunError):
    """The workflow's code no longer asks for what its journal holds."""

    code = "journal_mismatch"


class RunFailed(RunError):
    """The run ended without a result; the error that ended it is the `__cause__`."""

    code = "run_failed"


class RunCancelled(RunFailed):
    """The run was cancelled."""

    code = "run_cancelled"


class RunTerminated(RunFailed):
    """The run was terminated: ended at once, with no clean-up."""

    code = "run_terminated"


class RunTimedOut(RunFailed):
    """The run took longer than its `timeout`."""

    code = "run_timed_out"


class RunParked(RunFailed):
    """The run has stopped and waits for a person. It has not ended: `resume` goes on with it."""

    code = "run_parked"


class StreamError(PerdureError):
    """Something about event streams cannot be done."""

    code = "stream"


class DuplicateConflict(StreamError):
    """An event's id stands for another event of the stream. Nothing was appended."""

    code = "duplicate_conflict"


class SubscriptionNotFound(StreamError):
    """No handler of this name has subscribed to the stream."""

    code = "subscription_not_found"


class Backpressure(StreamError):
    """Too much waits to be written already. Nothing was taken in."""

    code = "backpressure"


class BrokerUnavailable(StreamError):
    """A bridge's broker cannot be used now; the bridge goes on trying."""

    code = "broker_unavailable"


class SchemaError(StreamError):
    """What a type of event looks like does not go with what the stream keeps. Nothing was appended."""

    code = "schema"


class UnknownEvent(NotDecodable, StreamError):
    """An event is of a type, or of a version, that this code does not know."""

    code = "unknown_event"


class NotParked(StreamError):
    """No event is parked that fits what was asked for. Nothing was changed."""

    code = "not_parked"


class NotHandled(StreamError, NonRetryable):
    """A handler returned a generator: none of its code ran, and to call it again would not help."""

    code = "not_handled"


class WorkerKilled(StreamError):
    """Workers died while they handled an event; kept with the event, which is parked."""

    code = "worker_killed"


class PositionGone(StreamError):
    """The stream has let go of the events at a position: they were kept for as long as it says.

    A handler that stands there is not served until a person says where it goes on: nothing is
    skipped silently.
    """

    code = "position_gone"

    def __init__(self, what: str, *, position: str, first: str, hint: str = "") -> None:
        """`position` is the one that was asked for, `first` that of the first event that is kept."""
        super().__init__(what, hint=hint)
        self.position = position
        self.first = first


class StoreError(PerdureError):
    """About the place where runs are kept."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store cannot be opened, read or written now."""

    code = "store_unavailable"


class StoreReadOnly(StoreUnavailable):
    """The store can be read but not written."""

    code = "store_read_only"


class StoreFull(StoreUnavailable):
    """There is no space left. Nothing was written."""

    code = "store_full"


class StoreLocked(StoreUnavailable):
    """Another program holds a write transaction open on the file, for longer than a write waits.

    Nothing was written. A worker goes on trying: its runs wait, and nothing of theirs is lost.
    """

    code = "store_locked"


class StoreUnreachable(StoreUnavailable):
    """The server does not answer, for longer than a passing hitch. Nothing was written.

    A worker goes on trying: its runs wait, and nothing of theirs is lost.
    """

    code = "store_unreachable"


class StoreNotOurs(StoreError):
    """The file is not a Perdure store."""

    code = "store_not_ours"


class StoreVersionError(StoreError):
    """The file, or the database library, is of a version that this release cannot use."""

    code = "store_version"


class StoreCorrupt(StoreError):
    """The file is damaged."""

    code = "store_corrupt"


class RunDamaged(StoreCorrupt):
    """What the store keeps of one run is damaged: it is not used. Other runs are not affected.

    A worker parks such a run, with this as the reason, and goes on with the others.
    """

    code = "run_damaged"

    def __init__(self, what: str, *, number: int, position: int = 0, hint: str = "") -> None:
        """`number` is the run's; `position` that of the message, if it is a message that is damaged."""
        super().__init__(what, hint=hint)
        self.number = number
        self.position = position


class CommitsLost(StoreError):
    """The server that answers now does not have the last commit that was acknowledged to this worker.

    A standby that lagged has taken over, an old primary has come back, or a backup was restored. Nothing
    was written there. A worker stops: what it has in memory is ahead of what is kept.
    """

    code = "commits_lost"


class StoreInUse(StoreError):
    """The store has as many workers as it can bear."""

    code = "store_in_use"


class StoreMoved(StoreError):
    """The store is closed by a move: its runs went to another one, or have not all arrived here."""

    code = "store_moved"

    def __init__(self, what: str, *, other: str, hint: str = "") -> None:
        """`other` is the URL of the store at the other end of the move, without a password."""
        super().__init__(what, hint=hint)
        self.other = other


class LeaseLost(StoreError):
    """This worker's lease ended, and others go on with its runs. Nothing was written."""

    code = "lease_lost"


class DeterminismWarning(UserWarning):
    """Workflow code, as it is decorated, does what a replay would not repeat. No error: a warning.

    It stands at the line in question. `# perdure: allow[rule] reason` on that line
    silences it there, `PERDURE_CHECK=off` in the environment or `python -O` everywhere.
    """


class RunEvicted(BaseException):
    """The run has left this process's memory; code that still unwinds may do nothing more.

    A BaseException, so that `except Exception` in a `finally` cannot hide it.
    Only seen by workflow code that is being dropped: its effects go nowhere.
    """


class ContinueAsNew(BaseException):
    """Ends this run's journal and begins a new one; raised by `continue_as_new()`."""
