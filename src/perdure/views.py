"""Read models: what people and programs see of runs. Values only; made from the store's rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum

import msgspec

from .codec.failures import describe_failure, failure_lines
from .core.records import Kind, MessageKind, Record, RunRow, Status
from .stores.base import AttemptRow, JobStand, RunQuery, Store, WorkerRow


class RunStatus(Enum):
    """Where a run stands."""

    RUNNING = "running"
    PARKED = "parked"
    """Stopped, and waits for a person: kept, visible, resumable."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed out"
    CONTINUED = "continued"
    """Ended by continue_as_new; the next generation of the id goes on."""

    @property
    def is_open(self) -> bool:
        """Whether the run may still do something."""
        return self in (RunStatus.RUNNING, RunStatus.PARKED)


class RunView(msgspec.Struct, frozen=True):
    """One run, as listed."""

    id: str
    generation: int
    """1, and one more for each time the id was reused or continued as new."""
    workflow: str
    status: RunStatus
    created_at: datetime
    ended_at: datetime | None
    error: str | None
    """Of a run that failed or is parked: the error's type and message."""
    tags: Mapping[str, str]
    number: int
    """The store's own number, unique for each generation."""


class RunPage(msgspec.Struct, frozen=True):
    """A page of a listing, newest first."""

    runs: list[RunView]
    next: int | None
    """Give this as `before` for the next page; None at the end."""


def from_ms(ms: int) -> datetime:
    """A stored time as a datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def run_view(row: RunRow, tags: Mapping[str, str]) -> RunView:
    """A stored row as a view."""
    status = Status(row.status)
    has_error = status in (
        Status.PARKED,
        Status.FAILED,
        Status.CANCELLED,
        Status.TERMINATED,
        Status.TIMED_OUT,
    )
    return RunView(
        id=row.id,
        generation=row.generation,
        workflow=row.workflow,
        status=RunStatus(status.word),
        created_at=from_ms(row.created_at_ms),
        ended_at=None if row.ended_at_ms is None else from_ms(row.ended_at_ms),
        error=describe_failure(row.output) if has_error and row.output else None,
        tags=dict(tags),
        number=row.number,
    )


# ── the timeline of one run ──


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened to a run: a record of its journal, or a step's attempt."""

    at: datetime
    offset_ms: int
    """Since the run was created."""
    kind: str
    """`step`, `step failed`, `timer`, `signal`, `update`, `child started`, `child`, `child failed`,
    `cancel`, `patch`, `attempt failed` or `heartbeat`."""
    name: str
    """Of the step, signal, update, workflow (of a child) or patch; why, for a cancel."""
    key: str
    """The call's place in the run: task path, ordinal in that task, name."""
    took_ms: int | None = None
    """Since the event before, where that is what asked for the call: the run did one thing at a time."""
    value: bytes | None = None
    """The result or value, as JSON."""
    error: str | None = None
    attempt: int | None = None
    """The attempt's number; of a step, how many it took if more than one is known."""
    child: str | None = None
    """The child's run id."""


class StepUnderWay(msgspec.Struct, frozen=True):
    """A step that is not done, as far as the store knows.

    It has failed attempts or a heartbeat, or asks for a worker with a tag that its run's has not.
    """

    key: str
    name: str
    attempt: int
    """The attempt that is due or under way."""
    error: str | None
    """Of the attempt before."""
    heartbeat_at: datetime | None
    heartbeat: bytes | None
    """What heartbeat() last said, as JSON."""
    tag: str | None = None
    """Which workers may run it; None: its run's."""
    worker: str | None = None
    """Of one with a `tag`: the worker that has it; None while it waits for one."""


class StateView(msgspec.Struct, frozen=True):
    """A published value."""

    name: str
    value: bytes
    """As JSON."""
    version: int
    at: datetime


class WaitingMessage(msgspec.Struct, frozen=True):
    """Something sent to a run that its worker has not taken yet."""

    kind: str
    """`signal`, `update`, `cancel` …"""
    name: str
    at: datetime


class Timeline(msgspec.Struct, frozen=True):
    """All that the store knows of one run, in the order of time."""

    run: RunView
    input: bytes
    """As JSON: an object of argument names."""
    result: bytes | None
    """As JSON; None unless the run completed."""
    traceback: list[str]
    """Lines; of a run that failed or is parked."""
    entries: list[Entry]
    left_out: int
    """How many earlier entries are not in `entries`."""
    under_way: list[StepUnderWay]
    states: list[StateView]
    children: list[RunView]
    messages: list[WaitingMessage]
    wake_at: datetime | None
    """When time alone will wake a run that waits."""
    is_active: bool
    """Whether the run has something to do now: a step under way, or work for the next worker."""
    crashes: int
    """How often its worker died since it last got on."""
    deadline: datetime | None
    parent: str | None


_WORDS = {**{kind: kind.name.lower().replace("_", " ") for kind in Kind}, Kind.TICK: "timer"}
_WITH_TRACEBACK = (Status.PARKED, Status.FAILED, Status.TIMED_OUT)
_FAILED = (Kind.STEP_FAILED, Kind.CHILD_FAILED)
_CHILDREN = (Kind.CHILD_STARTED, Kind.CHILD, Kind.CHILD_FAILED)
_ANSWERS = (Kind.STEP, Kind.STEP_FAILED, Kind.CHILD_STARTED, Kind.CHILD, Kind.CHILD_FAILED)


def timeline_view(store: Store, row: RunRow, *, last: int | None = None) -> Timeline:
    """Read what the store knows of a run; only the `last` entries, if that is given."""
    records = store.records(row.number)
    attempts = store.attempts(row.number)
    children = store.children(row.number)
    parent = None if row.parent is None else store.run_by_number(row.parent)
    entries = _entries(row, records, attempts, children)
    left_out = 0 if last is None else max(0, len(entries) - last)
    status = Status(row.status)
    completed = status is Status.COMPLETED
    running = status is Status.RUNNING
    answered = {record.key for record in records if record.kind in _ANSWERS}
    open_attempts = [attempt for attempt in attempts if attempt.key not in answered]
    return Timeline(
        run=run_view(row, store.tags_of([row.number]).get(row.number, {})),
        input=row.input,
        result=row.output if completed else None,
        traceback=failure_lines(row.output) if row.output and status in _WITH_TRACEBACK else [],
        entries=entries[left_out:],
        left_out=left_out,
        under_way=_under_way(open_attempts, store.jobs(row.number) if running else [])
        if status.is_open
        else [],
        states=[
            StateView(state.name, state.payload, state.version, from_ms(state.at_ms))
            for state in store.states(row.number).values()
        ],
        children=[run_view(child, {}) for child in children],
        messages=[
            WaitingMessage(
                MessageKind(message.kind).name.lower().replace("_", " "), message.name, from_ms(message.at_ms)
            )
            for message in store.messages_for(row.number)
        ],
        wake_at=from_ms(row.wake_at_ms) if row.wake_at_ms and running else None,
        is_active=row.wake_at_ms == 0 and running,
        crashes=row.crashes,
        deadline=None if row.deadline_ms is None else from_ms(row.deadline_ms),
        parent=None if parent is None else parent.id,
    )


def attempts_view(store: Store, row: RunRow) -> list[Entry]:
    """The attempts of a run that failed and were made again, and heartbeats; by key, then number."""
    return [_attempt_entry(row, attempt) for attempt in store.attempts(row.number)]


def _entries(
    row: RunRow, records: Sequence[Record], attempts: Sequence[AttemptRow], children: Sequence[RunRow]
) -> list[Entry]:
    """Records in their order, each failed attempt and heartbeat where it falls in time."""
    child_ids = {child.parent_key.removesuffix("/end"): child.id for child in children}
    tries: dict[str, int] = {}
    for attempt in attempts:
        if attempt.failure is not None:
            tries[attempt.key] = max(tries.get(attempt.key, 0), attempt.number)
    one_by_one = len({_path(record) for record in records if record.kind in _ANSWERS}) <= 1
    ordered: list[tuple[int, bool, int, Entry]] = []
    before: Record | None = None
    for record in records:
        known = one_by_one or before is None or (before.kind in _ANSWERS and _path(before) == _path(record))
        since_ms = row.created_at_ms if before is None else before.at_ms
        took_ms = record.at_ms - since_ms if known and record.kind in _ANSWERS else None
        entry = _entry(row, record, took_ms, tries.get(record.key, 0), child_ids)
        ordered.append((record.at_ms, True, record.seq, entry))
        before = record
    ordered.extend((each.at_ms, False, each.number, _attempt_entry(row, each)) for each in attempts)
    return [entry for *_, entry in sorted(ordered, key=lambda item: item[:3])]


def _entry(
    row: RunRow, record: Record, took_ms: int | None, failed_attempts: int, child_ids: Mapping[str, str]
) -> Entry:
    kind = Kind(record.kind)
    key = record.key.removesuffix("/end") if kind in _CHILDREN else record.key
    name = record.key
    if kind in _ANSWERS:
        name = _call_name(key)
    elif kind is Kind.UPDATE:
        name = record.key.partition("/")[0]
    elif kind is Kind.CANCEL:
        reason = (record.payload or b"").decode()
        name = "the run took longer than its timeout" if record.key == "timeout" else reason
    has_value = record.payload is not None and kind not in (*_FAILED, Kind.CANCEL, Kind.CHILD_STARTED)
    return Entry(
        at=from_ms(record.at_ms),
        offset_ms=record.at_ms - row.created_at_ms,
        kind=_WORDS[kind],
        name=name,
        key=record.key,
        took_ms=took_ms,
        value=record.payload if has_value else None,
        error=describe_failure(record.payload) if kind in _FAILED and record.payload else None,
        attempt=failed_attempts + 1 if failed_attempts else None,
        child=child_ids.get(key) if kind in _CHILDREN else None,
    )


def _attempt_entry(row: RunRow, attempt: AttemptRow) -> Entry:
    return Entry(
        at=from_ms(attempt.at_ms),
        offset_ms=attempt.at_ms - row.created_at_ms,
        kind="heartbeat" if attempt.failure is None else "attempt failed",
        name=_call_name(attempt.key),
        key=attempt.key,
        value=attempt.details,
        error=None if attempt.failure is None else describe_failure(attempt.failure),
        attempt=attempt.number,
    )


def _under_way(attempts: Sequence[AttemptRow], jobs: Sequence[JobStand]) -> list[StepUnderWay]:
    queued = {job.key: job for job in jobs}
    by_key: dict[str, list[AttemptRow]] = {key: [] for key in queued}
    for attempt in attempts:
        by_key.setdefault(attempt.key, []).append(attempt)
    found: list[StepUnderWay] = []
    for key, rows in by_key.items():
        failed = [row for row in rows if row.failure is not None]
        beat = next((row for row in rows if row.failure is None), None)
        number = beat.number if beat is not None else failed[-1].number + 1 if failed else 1
        error = describe_failure(failed[-1].failure) if failed and failed[-1].failure else None
        beat_at = None if beat is None else from_ms(beat.at_ms)
        said = None if beat is None else beat.details
        job = queued.get(key)
        where = (None, None) if job is None else (job.tag, job.worker)
        found.append(StepUnderWay(key, _call_name(key), number, error, beat_at, said, *where))
    return found


def _path(record: Record) -> str:
    return record.key.partition("/")[0]


def _call_name(key: str) -> str:
    """`charge` of `0/3/charge`."""
    return key.split("/", 2)[-1]


# ── the store as a whole ──


class WorkerView(msgspec.Struct, frozen=True):
    """The worker that holds a store's lease."""

    name: str
    process: int
    since: datetime
    until: datetime
    """When the lease ends, unless it is renewed."""
    tags: tuple[str, ...] = ()
    """It also runs steps of other workers' runs that ask for one of these."""


class Health(msgspec.Struct, frozen=True):
    """What a look at the whole store found."""

    versions: Mapping[str, str]
    wrongs: list[str]
    """What is wrong with the store, a sentence each."""
    workers: list[WorkerView]
    """Those that are alive, oldest first."""
    counts: Mapping[str, int]
    """How many runs have each status, by its word."""
    parked: list[RunView]
    """The newest, at most 100."""
    undefined: Mapping[str, int]
    """Workflows of open runs that are not among the known ones, and how many runs each has."""
    unserved: Mapping[str, int]
    """How many steps wait for a worker with a tag that no living worker has, by tag."""


_PARKED_SHOWN = 100
_PAGE = 1_000


def workers_view(rows: Iterable[WorkerRow]) -> list[WorkerView]:
    """Stored leases as views."""
    return [
        WorkerView(row.worker, row.process, from_ms(row.since_ms), from_ms(row.until_ms), row.tags)
        for row in rows
    ]


def counts_view(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by the statuses' words, those that are open first."""
    return {Status(status).word: counts[status] for status in sorted(counts)}


def health_view(store: Store, *, now_ms: int, known: Collection[str] | None) -> Health:
    """Look at the whole store. Reads all of it: this takes a while for a large one."""
    parked = store.list_runs(RunQuery(statuses=(Status.PARKED,), limit=_PARKED_SHOWN))
    workers = store.workers(now_ms=now_ms)
    served = {tag for worker in workers for tag in worker.tags}
    return Health(
        versions=store.versions(),
        wrongs=list(store.check()),
        workers=workers_view(workers),
        counts=counts_view(store.counts()),
        parked=[run_view(row, {}) for row in parked],
        undefined={} if known is None else _undefined(store, known),
        unserved={tag: count for tag, count in store.waiting_jobs().items() if tag not in served},
    )


def _undefined(store: Store, known: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    before: int | None = None
    while True:
        query = RunQuery(statuses=(Status.RUNNING, Status.PARKED), limit=_PAGE, before=before)
        page = store.list_runs(query)
        for row in page:
            if row.workflow not in known:
                found[row.workflow] = found.get(row.workflow, 0) + 1
        if len(page) < _PAGE:
            return found
        before = page[-1].number
