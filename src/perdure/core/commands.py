"""What a run asks for: the answers of an `Execution` to an event.

A command is carried out by the runtime. Those that wait for an answer are kept
by the execution as pending calls, and are asked for again after a replay that
did not find their answer in the journal.
"""

from __future__ import annotations

from asyncio import Future
from typing import Any, NamedTuple

from .host import Decode
from .records import Status


class PendingCall:
    """A call whose answer is not recorded yet."""

    __slots__ = ("asked_at_s", "call", "decode", "digest", "future", "key")

    def __init__(
        self, key: str, digest: int, decode: Decode, call: Any, future: Future[Any], asked_at_s: float
    ) -> None:
        self.key = key
        self.digest = digest
        self.decode = decode
        self.call = call
        """The block's own object: what to run and with what. Opaque to the core."""
        self.future = future
        self.asked_at_s = asked_at_s
        """The run's time when it was asked for, Unix seconds: the same in every replay."""


class RunStep(PendingCall):
    """Run a step, and record what it came to."""

    __slots__ = ()


class StartChild(PendingCall):
    """Start a child run whose result is awaited."""

    __slots__ = ("options",)
    options: object


class StartApart(StartChild):
    """Start a child run and answer once it is on disk."""

    __slots__ = ()


class AwaitChild(PendingCall):
    """Only wait: the child was started apart, and its end is sent to this run."""

    __slots__ = ()


class CancelCall(NamedTuple):
    """The task that waited for this call was cancelled: stop the step, cancel the child."""

    pending: PendingCall


class Publish(NamedTuple):
    """Make a state's value readable from outside."""

    state: str
    version: int
    payload: bytes


class MarkPatch(NamedTuple):
    """Record that `patched(name)` answered yes."""

    name: str


class AnswerUpdate(NamedTuple):
    """Tell whoever sent the update what came of it."""

    request: str
    ok: bool
    payload: bytes


class Unheard(NamedTuple):
    """A task failed and nobody awaited it: say so, for its error is seen nowhere else."""

    error: BaseException


Command = PendingCall | CancelCall | Publish | MarkPatch | AnswerUpdate | Unheard


class Outcome(NamedTuple):
    """How a run ended or parked."""

    status: Status
    output: bytes | None
    """The result, or a failure."""
    error: BaseException | None = None
    next_call: object = None
    """Of CONTINUED: the call that the next generation makes."""
    forget_from: int | None = None
    """Of PARKED: records from this one on are taken back, so that the step is asked for again."""
    unreceived: tuple[tuple[str, bytes], ...] = ()
    """Of CONTINUED: signals, by name and value, that nobody received."""
    seq: int = 0
    """The first record that came too late for the run to hear of it."""
