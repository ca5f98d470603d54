"""The contract of a store: few write verbs, one of them the door.

A store keeps runs, their journals and what is sent to them. Everything a worker
writes goes through `commit`: all of a batch or nothing, refused when the
worker's lease is gone. Other processes write through `submit`.

Each worker holds a lease of its own. A run belongs to the lease whose worker
started or claimed it (`RunRow.lease`), and only that worker writes its journal;
a run of no lease (0), or of one that is no longer held, is *free*: any worker
may claim it. A lease that ended is never held again, so whoever claims from it
need not fear that it comes back: its commits are refused.

Stores are synchronous. `commit`, `submit`, `acquire`, `claim`, `claim_these`,
`claim_jobs`, `renew` and `release` are called from one thread at a time (the committer's); the
reads may be called from another thread meanwhile, and see the last commit. Times
are Unix milliseconds. Every store passes `tests/stores`, file by file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

from ..core.events import Append, Clash, DeadEvent, LaneMark, LaneWatch, Placed
from ..core.records import Message, NewRun, Record, RunRow
from .rows import (
    AttemptRow,
    ClaimedJob,
    Handling,
    JobRow,
    JobStand,
    Lease,
    MoveCursor,
    MoveMark,
    MovePage,
    Reply,
    RunEnd,
    StateRow,
    WorkerRow,
)  # fmt: skip
from .sight import Reading, Sight

if TYPE_CHECKING:
    from ..core.windows import WindowChange
    from .streams import StreamStore


class Loaded(NamedTuple):
    """A run with all that a worker needs to go on with it."""

    row: RunRow
    records: list[Record]
    attempts: list[AttemptRow]
    """In the order of key, then number."""
    messages: list[Message]
    """What was sent to it and not yet recorded, in order of arrival."""


class Transaction(msgspec.Struct):
    """The work of a step whose writes are kept together with its result, or not at all.

    The store does the work before it writes the batch, in the same transaction. What
    the work raises undoes what it wrote, and nothing else: `failed` has it then, and its
    record becomes a TICK. An error of the store, and of its connection, undoes all.
    A batch that is written again, after such an error, does the work again.
    """

    place: int
    """Which of the batch's records is to have the result."""
    key: str
    digest: int
    work: Callable[[Any], bytes]
    """Gets the connection, and gives the result as it is to be recorded."""
    told: Callable[[BaseException | None], None]
    """For the committer: who waits for it."""
    failed: BaseException | None = None


class Batch(msgspec.Struct):
    """What one commit writes, all or nothing: `ends` first, then in the order of the fields.

    Ends come first because a run that continues as new ends and starts again, with
    the same id, in one batch. What cannot apply any more is passed over: a wake of a
    run that has ended or is parked, an end of one that has ended.
    """

    starts: list[NewRun] = []
    transactions: list[Transaction] = []
    """Come before all else; each fills one of the `records`."""
    records: list[Record] = []
    forgotten: list[tuple[int, int]] = []
    """(run, seq): records from `seq` on are taken back; only by a run that parks."""
    ends: list[RunEnd] = []
    wakes: list[tuple[int | None, int, int]] = []
    """(wake_at_ms, crashes, run)."""
    freed: list[int] = []
    """Runs that any worker may claim from now on; this one writes nothing more of theirs."""
    states: list[StateRow] = []
    attempts: list[AttemptRow] = []
    jobs: list[JobRow] = []
    """To be queued. One that is queued stays as it is, unless its arguments or its tag were others:
    then it is free again. One whose STEP_ENDED was sent and not taken is not queued."""
    withdrawn: list[tuple[int, str]] = []
    """(run, key): jobs that nobody waits for any more; an empty key: all of the run's."""
    messages: list[Message] = []
    """To be sent; `pos` is 0. One for a run that has ended is dropped. A STEP_ENDED takes its job
    away, and is dropped when the lease does not have that."""
    taken: list[int] = []
    """Positions of messages that have been recorded, and so are removed."""
    replies: list[Reply] = []
    appends: list[Append] = []
    watches: list[LaneWatch] = []
    """What is known of lanes whose workers died. Before the marks, which may give the lanes up."""
    lanes: list[LaneMark] = []
    """How far lanes of event streams are. A later mark of a lane replaces an earlier one."""
    dead: list[DeadEvent] = []
    """Events that are parked, or wait in line behind others."""
    cleared: list[tuple[int, int]] = []
    """(subscription, position): events that were parked, or in line, and are done."""
    handlings: list[Handling] = []  # come right after the transactions
    windows: list[WindowChange] = []
    """What has changed of the windows of lanes, with the events that came of it."""
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


class MessagePage(NamedTuple):
    """Some of the messages to the runs of a lease, in order of arrival."""

    messages: list[Message]
    after: int
    """Ask for those after this position next: none will come any more at it or below, but for
    runs that are claimed later. One above it may be given again, and is to be passed over."""


class Committed(NamedTuple):
    """The answer to a commit or submit, in the order of the batch."""

    starts: Sequence[StartOutcome]
    messages: Sequence[int]
    """The position of each message; or `DROPPED`, or `KNOWN`."""
    appends: Sequence[list[Placed] | Clash] = ()


class RunQuery(msgspec.Struct, frozen=True):
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
    address: str
    """The URL as a process in another folder would write it; without a password."""

    @property
    def streams(self) -> StreamStore:
        """Its event streams."""
        ...

    reads_block: bool
    """Whether a read may take longer than a moment, and should not be made on an event loop."""

    def listen(self, heard: Callable[[], None]) -> bool:
        """Call `heard`, from any thread, soon after another process wrote what may concern this one.

        A hint, for starts, messages, ends, replies and freed runs: it may come late, too
        often, or not at all. False where the store cannot tell: then look often.
        """
        ...

    def changed(self) -> bool:
        """Whether anything may have been written since this was asked last; true where that is not known."""
        ...

    def clock_offset_ms(self) -> int:
        """How far the store's own clock is ahead of this machine's; 0 where it has none."""
        ...

    def acquire(self, worker: str, *, now_ms: int, ttl_ms: int, tags: Sequence[str] = ()) -> Lease:
        """Give a worker a lease of its own; `tags`: which jobs it will claim.

        Raises StoreMoved if a move has closed the store, and StoreInUse where as many
        workers are alive as the store can bear.
        """
        ...

    def claim(self, lease: Lease, *, workflows: Sequence[str], now_ms: int, limit: int) -> list[int]:
        """Take free runs of these workflows that are due, or that something was sent to; give their numbers.

        Ends the leases of workers that are known to be dead, or whose time is over.
        Counts a crash on a run that was due when its dead worker last renewed: it had
        that in hand. At most `limit` runs, those that are due first; what two workers
        claim at once goes to one of them. While others are alive a worker takes its
        share of what is due: that divided by the workers, rounded up. Parked runs are
        claimed for an update, a cancel, a resume or a terminate; signals, and ends of
        children, wait. A run that has ended is claimed for what it was sent and did not
        take, so that this can be refused or, if it continued as new, be handed on. Cheap
        when there is nothing. Raises LeaseLost.
        """
        ...

    def claim_these(self, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        """Take those of `runs` that are free and have not ended; give these. Otherwise as `claim`."""
        ...

    def glance(
        self,
        lease: Lease,
        *,
        workflows: Sequence[str],
        after: int,
        now_ms: int,
        until_ms: int,
        reading: Sequence[Reading] = (),
    ) -> Sight:
        """Whether `claim`, or `messages` after that position, may find something.

        And whether `events`, `claim_lanes` or `shares` of the streams that are being read may. Renews
        the lease until `until_ms`, unless that is 0. Raises LeaseLost. Where reads block it may be
        called from any thread.
        """
        ...

    def claim_jobs(
        self, lease: Lease, *, tags: Sequence[str], steps: Sequence[str], limit: int, suspect: bool
    ) -> list[ClaimedJob]:
        """Take jobs with one of these tags, of running runs, that no worker has; the oldest first.

        `steps` are names of steps, and sources of functions: the job's name or source must
        be one of them. At most `limit` jobs; while others with such a tag are alive, a worker
        takes its share. Of those that two workers have died of, or more, it takes one at
        most, and only if `suspect`. A crash is counted for a job whose worker died. What two
        workers claim at once goes to one. It is `claim` that ends the leases of the dead.
        Raises LeaseLost.
        """
        ...

    def held_jobs(self, lease: Lease) -> set[tuple[int, str]]:
        """(run, key) of the lease's jobs; not of those that were withdrawn, or whose run does not run."""
        ...

    def jobs(self, run: int) -> list[JobStand]:
        """Where a run's jobs stand, by key."""
        ...

    def waiting_jobs(self) -> dict[str, int]:
        """How many jobs wait for a worker, by tag."""
        ...

    def free_workflows(self, *, now_ms: int) -> list[str]:
        """The workflows of the free runs that `claim` would give to who knew them all, sorted."""
        ...

    def renew(self, lease: Lease, *, now_ms: int, ttl_ms: int) -> None:
        """Extend the lease. Raises LeaseLost when it has ended."""
        ...

    def release(self, lease: Lease) -> None:
        """Give the lease back: its runs are free. Does nothing when it is lost already."""
        ...

    def workers(self, *, now_ms: int) -> list[WorkerRow]:
        """Who holds a lease, oldest first; without those whose time is over, or who are known to be dead."""
        ...

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        """Apply every change in `batch`, or none.

        Raises LeaseLost if the lease has ended, StoreFull when there is no space,
        StoreLocked while another program holds the file, StoreUnreachable when a
        server does not answer, StoreUnavailable for other failures; nothing is then
        written. After this returns the change survives
        power loss.
        """
        ...

    def submit(self, batch: Batch) -> Committed:
        """Apply starts and messages from a process that holds no lease, or none of them.

        What it starts is free. Raises StoreMoved if a move has closed the store.
        """
        ...

    def start_within(self, connection: Any, new: NewRun) -> StartOutcome | Awaitable[StartOutcome]:
        """Start a run in the transaction that a connection of the user's has open; see `borrowing`.

        It is free, and there if and when that commits. To be awaited where the connection is; from
        any thread. Raises StoreError for a connection that is not to the store, or has no
        transaction, StoreMoved, and what the driver raises.
        """
        ...

    def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        """The latest generation of an id, or the one that is asked for."""
        ...

    def run_by_number(self, number: int) -> RunRow | None: ...

    def stopped_runs(self, numbers: Sequence[int]) -> dict[int, RunRow | None]:
        """Those of these runs that have ended or are parked, or (None) are not there. Raises RunDamaged."""
        ...

    def records(self, run: int) -> list[Record]:
        """The journal, in order."""
        ...

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        """These runs with all that a worker needs to go on with them; by number.

        Those that are not there are left out. Raises RunDamaged, or another StoreCorrupt,
        if anything of any of them is damaged.
        """
        ...

    def open_runs(self, *, after: int, limit: int) -> list[tuple[RunRow, list[Record]]]:
        """Runs that have not ended, running or parked, with their journals; by number, above `after`."""
        ...

    def parked_runs(self, *, after: int, limit: int) -> list[RunRow]:
        """Runs that are parked; by number, above `after`. Cheap when there is none."""
        ...

    def sleeping_runs(
        self, lease: Lease, *, after: tuple[int, int], until_ms: int, limit: int
    ) -> list[tuple[int, int]]:
        """(wake_at_ms, number) of running runs that sleep, in that order, above `after`.

        Those of the lease, and those that are free: they are to be claimed in time.
        """
        ...

    def messages(self, lease: Lease, *, after: int, limit: int) -> MessagePage:
        """What was sent to the lease's runs; see `MessagePage`. Cheap when there is nothing."""
        ...

    def messages_for(self, run: int) -> list[Message]:
        """What was sent to a run and not yet recorded, in order of arrival."""
        ...

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

    def replies(self, requests: Sequence[str]) -> list[Reply]:
        """Those that there are to these requests."""
        ...

    def counts(self) -> dict[int, int]:
        """How many runs (latest generations) have each status."""
        ...

    def remove_ended(self, *, before_ms: int, limit: int) -> int:
        """Remove at most `limit` runs that ended before, with all that is theirs. Returns how many.

        Raises StoreMoved if a move has closed the store.
        """
        ...

    def check(self) -> Iterator[str]:
        """Say what is wrong with the store, a sentence each; nothing when all is well."""
        ...

    def move_mark(self) -> MoveMark | None:
        """What the store says of the last move that it took part in."""
        ...

    def mark_move(self, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        """Change the mark from `before` to `after`, in one transaction with all that this asks for.

        Ends the leases of dead workers, and frees their runs. From `arriving` to no mark
        removes all that has arrived. Raises StoreInUse while a worker is alive, StoreMoved
        if the mark is not `before`, and StoreError for a store that is to be `arriving` and
        has runs already; nothing is then written. After this returns no start, message or
        lease is written that the new mark does not allow, whoever had the store open.
        """
        ...

    def export_page(self, after: MoveCursor, *, limit: int, bytes_max: int) -> MovePage:
        """Read runs with all that is theirs, by number; then replies; then, by kind, rows of streams.

        At most `limit` of them, and no more than one above `bytes_max` of payload.
        What is damaged is named in the page and does not hinder the rest.
        """
        ...

    def import_page(self, mark: MoveMark, page: MovePage) -> None:
        """Write what a page holds, all or nothing; no run and no event of it may be there already.

        Runs keep their numbers, and events their positions. Raises StoreMoved unless `mark`, of a
        store that is `arriving`, is still the store's, and StoreError for what it has no room for.
        """
        ...

    def arrived(self) -> MoveCursor:
        """How far pages have arrived: the source is to give those after this. It may give some again."""
        ...

    def versions(self) -> dict[str, str]:
        """What `doctor` prints: library, schema, journal mode, size."""
        ...

    def close(self) -> None: ...
