"""Rows that a store keeps beside runs, journals and messages, as they are written and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ..core.records import Message, Record, RunRow


class Lease(msgspec.Struct, frozen=True):
    """The right to write, of one worker. Its number is the fence: no two leases of a store have the same."""

    number: int
    """From 1; grows with each new lease."""
    worker: str


class WorkerRow(NamedTuple):
    """A worker that holds a lease."""

    lease: int
    worker: str
    process: int
    since_ms: int
    until_ms: int
    """When the lease ends, unless it is renewed."""
    tags: tuple[str, ...] = ()
    """Of the steps that it runs for others."""


class RunEnd(NamedTuple):
    """A run that closes, parks, or (status RUNNING) opens again, and then begins its attempts afresh.

    One that parks is free from then on; one that opens again belongs to the lease that says so.
    """

    status: int
    output: bytes | None
    ended_at_ms: int | None
    """None when the run has not ended: parked, or resumed."""
    wake_at_ms: int | None
    run: int


class StateRow(NamedTuple):
    """A published value. Written only when `version` is above the stored one."""

    run: int
    name: str
    version: int
    payload: bytes
    at_ms: int


class AttemptRow(NamedTuple):
    """A step's attempt that failed, or the last heartbeat of one under way; replaces that number's row."""

    run: int
    key: str
    number: int
    """1 for the first."""
    failure: bytes | None
    """None while the attempt is under way."""
    details: bytes | None
    """What heartbeat() last said."""
    at_ms: int


class Reply(NamedTuple):
    """The answer to a request, for whoever waits in another process. The first one stands."""

    request: str
    ok: bool
    payload: bytes | None
    """The result, or a failure."""
    at_ms: int


class JobRow(NamedTuple):
    """A step that only a worker with a certain tag may run, queued for one."""

    run: int
    key: str
    """The call's key. A run has one job for a key, however often it asks."""
    tag: str
    step: str
    """The step's name."""
    source: str
    """`module:qualname` of its function."""
    digest: int
    """CRC-32 of the arguments: one that is asked for with others is another job."""
    arguments: bytes
    asked_at_ms: int
    """When the workflow asked for it, by the run's time."""


class ClaimedJob(NamedTuple):
    """A job that has become a worker's, with all that it needs to run it."""

    job: JobRow
    crashes: int
    """How many workers died while they had it."""
    id: str
    """The run's."""
    workflow: str
    seed: bytes
    attempts: list[AttemptRow]
    """Those that were made before, by number."""


class JobStand(NamedTuple):
    """Where a job stands."""

    key: str
    tag: str
    worker: str | None
    """Who has it; None while it waits."""


class Handling(msgspec.Struct):
    """The work of a handler whose writes are kept together with its lane's mark, or not at all.

    The store does the work before it writes the batch, in the same transaction, if the lane is
    the lease's and not past the event. What the work raises undoes what it wrote, and nothing
    else: `failed` has it then, and nothing is marked. An error of the store undoes all. A batch
    that is written again, after such an error, does the work again.
    """

    subscription: int
    lane: int
    position: int
    """The event's."""
    work: Callable[[Any], object]
    """Gets the connection."""
    told: Callable[[BaseException | None], None]
    """For the committer: who waits for it."""
    was_on_disk: bool = False
    """Whether the event was redriven, or in line: its lane is past it, and its row there is to go."""
    failed: BaseException | None = None
    generation: int = 0
    """Of the lane, as the worker knows it."""


class MoveMark(NamedTuple):
    """What a store says of the last move that it took part in; see `perdure.moving`."""

    stage: Literal["moving", "moved", "arriving", "arrived"]
    """The first two stand in the store that is left, the others in the one that is moved to."""
    move: str
    """Which move: the same in both stores."""
    turn: int
    """How often it was gone on with. Whoever knows only an earlier turn writes nothing more."""
    other: str
    """The `address` of the store at the other end."""
    at_ms: int

    @property
    def is_closed(self) -> bool:
        """Whether nobody but the move may write to the store."""
        return self.stage != "arrived"


class WholeRun(NamedTuple):
    """A run with all that any table holds of it."""

    row: RunRow
    """Free: its `lease` is 0."""
    is_latest: bool
    """Whether it is the latest generation of its id."""
    tags: list[tuple[str, str]]
    records: list[Record]
    attempts: list[AttemptRow]
    jobs: list[JobRow]
    """Free, and with no crash."""
    states: list[StateRow]
    messages: list[Message]
    """In order of arrival. Where they are written they get new positions, in this order."""
    requests: list[str]
    """The ids of messages that it has had. All lists are sorted."""


class Damage(NamedTuple):
    """Something that cannot be read."""

    run: int
    """The number of the run that it belongs to; 0 for what belongs to none: a reply, or a row of streams."""
    what: str
    can_stay: bool = True
    """Whether the rest is right without it."""


class MoveCursor(NamedTuple):
    """How far a store has been read: all runs up to a number, then replies up to a request, then streams."""

    run: int = 0
    request: str = ""
    kind: int = 0
    """All kinds of rows before this one, of those of `stream_rows.KINDS`, from 1; 0: not all replies."""
    key: tuple[Any, ...] = ()
    """And the rows of this kind up to this key."""


class MovePage(NamedTuple):
    """A part of all that a store holds. The one after the last has neither runs, replies, rows nor damage."""

    runs: list[WholeRun]
    replies: list[Reply]
    damage: list[Damage]
    """In place of what is damaged."""
    last_number: int
    """The last number that was given to any run, also to one that was removed since."""
    after: MoveCursor
    """Ask for those after this next."""
    kind: int = 0
    """Of the rows."""
    rows: Sequence[tuple[Any, ...]] = ()
    """Of the streams; see `stream_rows`."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing more."""
        return not (self.runs or self.replies or self.rows or self.damage)
