"""What a run offers to the code inside it: the one protocol that blocks speak.

Our own `Execution` is one host. A test explorer or another engine can be
another: blocks find the host through `current_host` and know nothing else.
Sleeping, timeouts, tasks and queues need no host; they come from the loop.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec

from .records import RunRow

T = TypeVar("T")

Decode = Callable[[bytes], Any]


class RunFacts(msgspec.Struct, frozen=True, gc=False):
    """What a run knows of itself from its first moment on."""

    number: int
    id: str
    generation: int
    workflow: str
    seed: bytes
    created_at_ms: int
    deadline_ms: int | None


def facts_of(row: RunRow) -> RunFacts:
    """What the run of this row knows of itself."""
    return RunFacts(
        row.number, row.id, row.generation, row.workflow, row.seed, row.created_at_ms, row.deadline_ms
    )


class Failures(Protocol):
    """How exceptions cross the journal; the codec's, handed in because the core knows no codec."""

    def encode_failure(self, error: BaseException) -> bytes: ...
    def decode_failure(self, data: bytes) -> BaseException: ...


class Host(Protocol):
    """The run that the calling code stands in."""

    replaying: bool
    """Whether what the code asks for now was asked before, and its answer may be on record."""

    @property
    def facts(self) -> RunFacts:
        """Who this run is."""
        ...

    def call_step(self, name: str, digest: int, decode: Decode, call: object) -> Future[Any]:
        """Ask for a step; the future has its recorded result."""
        ...

    def call_child(
        self, name: str, digest: int, decode: Decode, call: object, *, apart: bool, options: object = None
    ) -> tuple[str, Future[Any]]:
        """Ask for a child run: the call's key, and its result, or (apart) its id once it is on disk."""
        ...

    def child_result(self, key: str, decode: Decode) -> Future[Any]:
        """The result of a child that was started apart, by the key of its start."""
        ...

    def mailbox(self, signal: str, decode: Decode) -> Any:
        """The signals of one name that have arrived and were not received yet."""
        ...

    def handle_updates(self, update: str, handler: object) -> None:
        """Answer updates of this name from now on."""
        ...

    def publish(self, state: str, payload: bytes) -> None:
        """Publish a value under a name; it is readable once the next commit is on disk."""
        ...

    def now_ms(self) -> int:
        """The run's time: that of its last event, Unix milliseconds."""
        ...

    def own(self, name: str, make: Callable[[bytes], T]) -> T:
        """An object that the calling task alone uses, made from a seed of its own at first."""
        ...

    def patched(self, name: str) -> bool:
        """Whether the changed code may run here."""
        ...

    def compensate(self, call: object) -> None:
        """Register an undo, to be awaited should the run not end well."""
        ...

    def continue_as_new(self, call: object) -> NoReturn:
        """End this journal and go on with a new one."""
        ...

    def not_awaited(self, what: str) -> None:
        """A durable call was dropped without being awaited: stop the run before any new effect."""
        ...


current_host: ContextVar[Host] = ContextVar("perdure_host")
"""Set in the context of a run's tasks, and nowhere else."""
