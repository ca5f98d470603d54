"""The values that a journal is made of. They are what is on disk, and all that replay sees.

A run's journal is the list of what *happened* to it, in the order in which it
was recorded: `seq` 0, 1, 2 … . That order is the order of delivery, live and in
replay. Nothing is recorded for what the run merely asked for, nor for a timer
that did not fire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgspec


class Kind(IntEnum):
    """What a record tells. The numbers are on disk: never change or reuse one."""

    STEP = 1
    """A step returned. `key` is the call's key, `payload` the result."""
    STEP_FAILED = 2
    """A step failed for good. `payload` is a failure."""
    TICK = 3
    """Time went on, and a timer was due. No key, no payload."""
    SIGNAL = 4
    """A signal arrived. `key` is its name, `payload` its value."""
    UPDATE = 5
    """An update was accepted. `key` is `name/request id`, `payload` its argument."""
    CHILD_STARTED = 6
    """A child that was started apart is on disk. `key` is the call's key, `payload` its run id."""
    CHILD = 7
    """A child returned. `key` is the call's key, `payload` the result."""
    CHILD_FAILED = 8
    """A child ended without a result. `payload` is a failure."""
    CANCEL = 9
    """The run was asked to stop. `key` is `cancel` or `timeout`, `payload` the reason."""
    PATCH = 10
    """`patched(key)` answered yes."""


class Record(NamedTuple):
    """One thing that happened to a run."""

    seq: int
    kind: int
    """A `Kind`; kept as a plain int because rows are made by the hundred thousand."""
    key: str
    digest: int
    """CRC-32 of the call's encoded arguments; 0 where there is no call."""
    at_ms: int
    """When it was recorded, Unix milliseconds; never less than the record before."""
    payload: bytes | None
    run: int = 0
    """The number of the run that it happened to; 0 in a journal that stands by itself."""


class Status(IntEnum):
    """Where a run stands. The numbers are on disk: never change or reuse one."""

    RUNNING = 1
    PARKED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    TERMINATED = 6
    TIMED_OUT = 7
    CONTINUED = 8
    """Ended by continue_as_new: the next generation of the same id goes on."""

    @property
    def is_open(self) -> bool:
        """Whether the run may still do something."""
        return self <= Status.PARKED

    @property
    def word(self) -> str:
        """The name for people: `timed out`."""
        return self.name.lower().replace("_", " ")


class MessageKind(IntEnum):
    """What a message to a run, or to its worker, asks for. The numbers are on disk."""

    # 1 told a worker of a new run, before workers claimed.
    SIGNAL = 2
    UPDATE = 3
    CANCEL = 4
    TERMINATE = 5
    RESUME = 6
    CHILD_ENDED = 7
    """`name` is the parent's key for the call, `payload` a `ChildEnd`."""
    TIMEOUT = 8
    """A run that has children has used up its time; one without is told so by its timer."""
    STEP_ENDED = 9
    """A step that another worker ran for the run. `name` is the call's key, `payload` what it came to."""


class NewRun(msgspec.Struct, frozen=True, gc=False):
    """A run to be started."""

    id: str
    workflow: str
    input: bytes
    seed: bytes
    """16 random bytes: the source of the run's random numbers and idempotency keys."""
    created_at_ms: int
    python: str
    """`3.11`: asyncio's own order of wake-ups may differ between minor versions."""
    deadline_ms: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    on_conflict: str = "return"
    """`return`, `raise` or `cancel`: what to do when the id is still running."""
    reuse: str = "never"
    """`never`, `if_failed` or `always`: when the id of a finished run may be taken again."""
    parent: int | None = None
    parent_key: str = ""
    on_parent_close: str = "cancel"
    """`cancel` or `abandon`."""
    messages: tuple[Message, ...] = ()
    """Sent to the run in the commit that starts it; their `run` is not known yet."""


class RunRow(NamedTuple):
    """One run as the store keeps it."""

    number: int
    """The store's own key; a new one for each generation of an id."""
    id: str
    generation: int
    workflow: str
    status: int
    input: bytes
    output: bytes | None
    """The result when completed; a failure when parked or ended otherwise."""
    seed: bytes
    wake_at_ms: int | None
    """When the run must be in memory: 0 now, None only when a message comes."""
    crashes: int
    """How often its worker died since the run last got on."""
    deadline_ms: int | None
    parent: int | None
    parent_key: str
    on_parent_close: str
    created_at_ms: int
    ended_at_ms: int | None
    python: str
    lease: int = 0
    """The lease whose worker has the run in hand; 0, or one that has ended: it is free."""


class Message(NamedTuple):
    """Something sent to a run, kept until the run has recorded it."""

    pos: int
    """The order of arrival; 0 before it is stored."""
    run: int
    kind: int
    name: str
    payload: bytes | None
    request: str
    """The sender's id for it: the same id is taken once. Empty: not checked."""
    at_ms: int
