"""The contract of a store: few write verbs, one of them the door.

A store keeps runs, their journals and what is sent to them. Everything a worker
writes goes through `commit`: all of a batch or nothing, refused when the
worker's lease is gone. Other processes write through `submit`.

Stores are synchronous. `commit`, `submit`, `acquire`, `renew` and `release` are
called from one thread at a time (the committer's); the reads may be called from
another thread meanwhile, and see the last commit. Times are Unix milliseconds.

Every store passes `tests/stores`, file by file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from ..core.records import Message, NewRun, Record, RunRow


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write. `epoch` is the fence: it grows with each new holder."""

    epoch: int
    worker: str
    crashed_before: bool
    """The holder before did not release it: its runs were interrupted."""


class WorkerRow(NamedTuple):
    """The worker that holds the lease."""

    worker: str
    process: int
    since_ms: int
    until_ms: int
    """When the lease ends, unless it is renewed."""


class RunEnd(NamedTuple):
    """A run that closes, parks, or (status RUNNING) opens again, and then begins its attempts afresh."""

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


@dataclass(slots=True)
class Batch:
    """What one commit writes, all or nothing: `ends` first, then in the order of the fields.

    Ends come first because a run that continues as new ends and starts again, with
    the same id, in one batch. What cannot apply any more is passed over: a wake of a
    run that has ended or is parked, an end of one that has ended.
    """

    starts: list[NewRun] = field(default_factory=list[NewRun])
    records: list[Record] = field(default_factory=list[Record])
    forgotten: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """(run, seq): records from `seq` on are taken back; only by a run that parks."""
    ends: list[RunEnd] = field(default_factory=list[RunEnd])
    wakes: list[tuple[int | None, int, int]] = field(default_factory=list[tuple[int | None, int, int]])
    """(wake_at_ms, crashes, run)."""
    states: list[StateRow] = field(default_factory=list[StateRow])
    attempts: list[AttemptRow] = field(default_factory=list[AttemptRow])
    messages: list[Message] = field(default_factory=list[Message])
    """To be sent; `pos` is 0. One for a run that has ended is dropped."""
    taken: list[int] = field(default_factory=list[int])
    """Positions of messages that have been recorded, and so are removed."""
    replies: list[Reply] = field(default_factory=list[Reply])
    leases: int = 0
    """Renew the lease until this time; 0: leave it."""


class StartOutcome(NamedTuple):
    """What became of one `NewRun`."""

    verdict: Literal["started", "existing", "conflict"]
    run: RunRow
    """The new run; or the one that has the id."""
    reason: str = ""
    """Of a conflict: `input`, `workflow`, `running`, or `cancelling` (wait for its end, then start again)."""


DROPPED = 0
"""In place of a message's position: its run has ended, and does not take it."""
KNOWN = -1
"""In place of a message's position: its run took this request before; nothing was sent again."""


class Committed(NamedTuple):
    """The answer to a commit or submit, in the order of the batch."""

    starts: Sequence[StartOutcome]
    messages: Sequence[int]
    """The position of each message; or `DROPPED`, or `KNOWN`."""


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list; newest first. Unset fields do not filter."""

    workflow: str | None = None
    statuses: tuple[int, ...] = ()
    created_after_ms: int | None = None
    """Inclusive."""
    created_before_ms: int | None = None
    """Exclusive."""
    tags: tuple[tuple[str, str], ...] = ()
    """All must be there."""
    id_prefix: str = ""
    parent: int | None = None
    all_generations: bool = False
    limit: int = 100
    before: int | None = None
    """Only runs with a lower number: the page after the one that ended there."""


class Store(Protocol):
    """Where runs are kept. See the module for threads and guarantees."""

    url: str

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int) -> Lease:
        """Take the lease, at once if its holder is known to be dead or its time is over.

        When the holder before did not release, counts a crash on every run that was
        due when it last renewed: those it had in hand.
        Raises StoreInUse while another live worker holds it.
        """
        ...

    def renew(self, lease: Lease, *, now_ms: int, ttl_ms: int) -> None:
        """Extend the lease. Raises LeaseLost when another has taken it."""
        ...

    def release(self, lease: Lease) -> None:
        """Give the lease back. Does nothing when it is lost already."""
        ...

    def worker(self, *, now_ms: int) -> WorkerRow | None:
        """Who holds the lease. None when nobody does, its time is over, or its holder is known to be dead."""
        ...

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        """Apply every change in `batch`, or none.

        Raises LeaseLost if another worker has taken over, StoreFull when there
        is no space, StoreUnavailable for other failures; nothing is then
        written. After this returns the change survives power loss.
        """
        ...

    def submit(self, batch: Batch) -> Committed:
        """Apply starts and messages from a process that holds no lease, or none of them.

        A start also leaves a STARTED message, so that the worker sees it.
        """
        ...

    def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        """The latest generation of an id, or the one that is asked for."""
        ...

    def run_by_number(self, number: int) -> RunRow | None: ...

    def records(self, run: int) -> list[Record]:
        """The journal, in order."""
        ...

    def active_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """Runs that must be in memory now (running, wake 0) with their journals; by number, above `after`."""
        ...

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """Runs that have not ended, running or parked, with their journals; by number, above `after`."""
        ...

    def parked_runs(self, *, after: int, limit: int) -> list[RunRow]:
        """Runs that are parked; by number, above `after`. Cheap when there is none."""
        ...

    def sleeping_runs(self, *, after: tuple[int, int], until_ms: int, limit: int) -> list[tuple[int, int]]:
        """(wake_at_ms, number) of running runs with a wake above 0, in that order, above `after`."""
        ...

    def messages(self, *, after: int, limit: int) -> list[Message]:
        """What was sent and not yet recorded, in order of arrival. Cheap when there is nothing."""
        ...

    def messages_for(self, run: int) -> list[Message]: ...

    def list_runs(self, query: RunQuery) -> list[RunRow]: ...

    def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]: ...

    def states(self, run: int) -> dict[str, StateRow]: ...

    def attempts(self, run: int) -> list[AttemptRow]:
        """In the order of key, then number."""
        ...

    def attempted(self, *, after: int, until: int) -> set[int]:
        """Which runs with a number above `after`, up to `until`, have rows in `attempts`."""
        ...

    def children(self, run: int) -> list[RunRow]:
        """The latest generation of each child, by number."""
        ...

    def reply(self, request: str) -> Reply | None: ...

    def counts(self) -> dict[int, int]:
        """How many runs (latest generations) have each status."""
        ...

    def remove_ended(self, *, before_ms: int, limit: int) -> int:
        """Remove at most `limit` runs that ended before, with all that is theirs. Returns how many."""
        ...

    def check(self) -> Iterator[str]:
        """Say what is wrong with the store, a sentence each; nothing when all is well."""
        ...

    def versions(self) -> dict[str, str]:
        """What `doctor` prints: library, schema, journal mode, size."""
        ...

    def close(self) -> None: ...


def is_empty(batch: Batch) -> bool:
    """Whether a batch would write nothing."""
    fields: Iterable[object] = (
        batch.starts, batch.records, batch.forgotten, batch.ends, batch.wakes, batch.states,
        batch.attempts, batch.messages, batch.taken, batch.replies, batch.leases,
    )  # fmt: skip
    return not any(fields)
