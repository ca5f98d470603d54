"""`Client` starts runs, talks to them and lists them, from any process. It runs nothing itself.

`Run` is a handle on one run. Both work through a `Door`: the store, or (in an
`Engine`, which is a client too) the worker of this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast, overload

from msgspec.structs import replace

from .blocks.options import Seconds, as_storable, as_tags, as_text
from .blocks.signal import Signal
from .blocks.starting import OnConflict, Reuse, closed_run, conflict, definition_of, new_run, refuse_policies
from .blocks.state import State
from .blocks.update import Update
from .blocks.workflow import Workflow, WorkflowCall
from .codec.failures import decode_failure, describe_failure
from .codec.json import decoder
from .core.records import Message, MessageKind, NewRun, RunRow, Status
from .doors import Door, StoreDoor
from .errors import (
    PerdureError,
    RunCancelled,
    RunFailed,
    RunNotFound,
    RunParked,
    RunTerminated,
    RunTimedOut,
)
from .homes import open_home
from .stores.base import DROPPED, RunQuery, StartOutcome, StateRow, Store
from .stores.opening import DEFAULT_URL, open_store, without_secret
from .streaming.appending import Streaming
from .streaming.holding import door_or_held
from .streaming.registering import Registrar
from .views import (
    Entry,
    Health,
    RunPage,
    RunStatus,
    RunView,
    Timeline,
    WorkerView,
    attempts_view,
    counts_view,
    health_view,
    run_view,
    timeline_view,
    workers_view,
)

R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")

_WATCH_EVERY_S = 0.05

_ENDS: dict[int, tuple[type[RunFailed], str]] = {
    Status.FAILED: (RunFailed, "failed"),
    Status.CANCELLED: (RunCancelled, "was cancelled"),
    Status.TERMINATED: (RunTerminated, "was terminated"),
    Status.TIMED_OUT: (RunTimedOut, "took longer than its timeout"),
    Status.PARKED: (RunParked, "is parked"),
}


class Run(Generic[R]):
    """A handle on one run; making it asks nothing. `R` is what the workflow returns."""

    def __init__(
        self,
        client: Client,
        id: str,
        number: int,
        decode: Callable[[bytes], Any],
        *,
        is_committed: bool = True,
    ) -> None:
        self._client = client
        self._is_committed = is_committed
        """Whether the run is known to be there."""
        self._number = number
        self._decode = decode
        self.id = id
        """The run's id."""

    async def result(self) -> R:
        """Wait for the run's end and return its result.

        Raises RunFailed (or RunCancelled, RunTerminated, RunTimedOut) with the
        error that ended it as `__cause__`, and RunParked if it stopped for a person:
        after `resume` the result may be awaited again. A run that continued as new
        is followed to its last generation. RunNotFound for one that was started with
        `connection=` and whose transaction has not been committed.
        """
        await self._check_committed()
        row = await self._client.door.ended(self._number)
        while row.status == Status.CONTINUED:
            following = row.generation + 1
            later = await self._client.door.read(
                lambda store, following=following: store.run_by_id(self.id, generation=following)
            )
            assert later is not None, f"run {self.id!r}: generation {following} is missing"
            self._number = later.number
            row = await self._client.door.ended(later.number)
        if row.status == Status.COMPLETED:
            return cast(R, self._decode(row.output or b"null"))
        raise _ended_badly(row)

    async def send(self, signal: Signal[T], value: T, *, id: str = "") -> None:
        """Send a signal. It is on disk when this returns, and is received once, in order.

        With an `id`, sending it again is harmless, also when the run has ended since.
        Raises RunClosed if the run has ended and never took it.
        """
        # Which run it is need not be asked, unless it may have had this signal before another took its place.
        number = None if id else self._number
        await self._client._send(self.id, number, signal, value, signal_id=id)  # pyright: ignore[reportPrivateUsage]

    async def update(self, update: Update[A, T], value: A) -> T:
        """Send an update and return its answer.

        Raises UpdateRefused if the validator refuses, RunClosed if the run has
        ended, and the handler's own error if it fails.
        """
        return await self._client.update(self.id, update, value)

    async def state(self, state: State[T], default: T | None = None) -> T | None:
        """The latest published value; `default` when nothing has been published."""
        await self._check_committed()
        rows = await self._client.door.read(lambda store: store.states(self._number))
        row = rows.get(state.name)
        return default if row is None else state.decode(row.payload)

    async def watch(self, state: State[T]) -> AsyncIterator[T]:
        """Each new value of a state, the latest first, until the run has ended."""
        version = 0
        await self._check_committed()
        while True:
            row, found = await self._client.door.read(lambda store: _look_at(store, self._number, state.name))
            if found is not None and found.version > version:
                version = found.version
                yield state.decode(found.payload)
            if row is None or not Status(row.status).is_open:
                return
            await asyncio.sleep(_WATCH_EVERY_S)

    async def cancel(self, reason: str = "") -> None:
        """Ask the run to stop. It is cancelled at its next await, may clean up, and then ends."""
        await self._client.cancel(self.id, reason)

    async def terminate(self, reason: str = "") -> None:
        """End the run at once, with no clean-up. Its children are cancelled."""
        await self._client.terminate(self.id, reason)

    async def resume(self) -> None:
        """Go on with a parked run: it is replayed, and tries again what failed."""
        await self._client.resume(self.id)

    async def info(self) -> RunView:
        """The run as it stands."""
        return await self._client.info(self.id)

    async def status(self) -> RunStatus:
        """Where the run stands."""
        return (await self.info()).status

    async def _check_committed(self) -> None:
        if self._is_committed:
            return
        row = await self._client.door.read(lambda store: store.run_by_number(self._number))
        if row is None or row.id != self.id:  # what was rolled back may leave its number to another
            raise RunNotFound(
                f"Run {self.id!r} is not in {self._client.url}: the transaction in which it was started was "
                "rolled back, or has not been committed yet.",
                run_id=self.id,
                hint="Commit first, then ask for its result.",
            )
        self._is_committed = True

    def __repr__(self) -> str:
        return f"<run {self.id}>"


class Client(Streaming):
    """Reaches runs in a store. Use it with `async with`.

    Everything it writes is on disk when the call returns; the worker that has the
    store's lease takes it up within a few dozen milliseconds.
    """

    def __init__(self, url: str = DEFAULT_URL, *, create: bool = True) -> None:
        """`url` names the store: `sqlite:///shop.db`. Without `create` it must be there."""
        self._url = url
        self.url = without_secret(url)
        """Where the runs are; without a password."""
        self._create = create
        self._door: Door | None = None
        self._registrar = Registrar()

    async def __aenter__(self) -> Self:
        """Open the store. Raises StoreUnavailable, StoreNotOurs or StoreVersionError."""
        self._door = await open_home(self._url) or StoreDoor(open_store(self._url, create=self._create))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._registrar.drain()
        door, self._door = self._door, None
        if door is not None:
            await door.close()

    @property
    def door(self) -> Door:
        """The way to the runs. Raises PerdureError when the client is not open."""
        if self._door is None:
            name = type(self).__name__
            raise PerdureError(
                f"This {name} is not open.", hint=f"Use `async with {name}(…) as {name.lower()}:`."
            )
        return door_or_held(self._door)

    # -- starting --------------------------------------------------------------------------------

    async def start(
        self,
        call: WorkflowCall[R],
        *,
        id: str | None = None,
        on_conflict: OnConflict = "return",
        reuse: Reuse = "never",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        connection: Any = None,
    ) -> Run[R]:
        """Start a run; it is on disk when this returns.

        - `id`: yours, or a random one. Starting the same id with the same input again
          returns the run that is there.
        - `on_conflict`, when the id is still running: `"return"` it, `"raise"`
          ConflictError, or `"cancel"` it, wait for its end, and start anew.
        - `reuse`, when the id has ended: `"never"` returns the ended run, `"if_failed"`
          starts anew unless it completed, `"always"` starts anew.
        - `timeout`: seconds (or timedelta) for the whole run.
        - `tags`: for listing.
        - `connection`: one of your own to the store's database, with a transaction open. The
          run is written in that, with what else you write there: it starts if and when you
          commit, and leaves no trace if you roll back. On PostgreSQL one of psycopg, asyncpg or
          SQLAlchemy over these, blocking or not; on SQLite an `apsw.Connection`. An id that
          another open transaction has just taken is waited for.

        Raises ConflictError if the id belongs to a run with other input or of another
        workflow, NotSerialisable if an argument cannot be stored; nothing is written then.
        With a `connection`: StoreError if it is to something else than the store or has no
        transaction, and the driver's own errors.
        """
        if connection is not None:
            started = self.start_within(
                connection, call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags
            )
            return self.uncommitted(await started if isawaitable(started) else started, call)
        definition = definition_of(call)
        new = self._new_run(call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags)
        outcome = await self.door.start(new, definition)
        while outcome.verdict == "conflict":
            if outcome.reason != "cancelling":
                raise conflict(outcome, definition.name)
            ended = await self.door.ended(outcome.run.number)
            if ended.status == Status.PARKED:
                raise conflict(outcome._replace(run=ended, reason="parked"), definition.name)
            new = replace(new, reuse="always")  # what has just been cancelled shall not be returned
            outcome = await self.door.start(new, definition)
        return Run(self, outcome.run.id, outcome.run.number, definition.decode_result)

    async def run(
        self,
        call: WorkflowCall[R],
        *,
        id: str | None = None,
        on_conflict: OnConflict = "return",
        reuse: Reuse = "never",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> R:
        """Start a run and wait for its result; the options are those of `start`."""
        run = await self.start(call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags)
        return await run.result()

    def start_within(
        self, connection: Any, call: WorkflowCall[Any], **options: Any
    ) -> StartOutcome | Awaitable[StartOutcome]:
        """The first half of `start(…, connection=connection)`; to be awaited where the connection is."""
        refuse_policies(options)
        return self.door.start_within(connection, self._new_run(call, **options), definition_of(call))

    def uncommitted(self, outcome: StartOutcome, call: WorkflowCall[R]) -> Run[R]:
        """The other half: a handle on what was started."""
        decode = definition_of(call).decode_result
        if outcome.verdict == "conflict":
            raise conflict(outcome, call.definition.name, in_transaction=True)
        return Run(self, outcome.run.id, outcome.run.number, decode, is_committed=False)

    def _new_run(self, call: WorkflowCall[Any], **options: Any) -> NewRun:
        return new_run(call, self.door.source.bytes(32), self.door.clock.now_ms(), **options)

    # -- talking to runs -------------------------------------------------------------------------

    @overload
    async def get(self, id: str, workflow: None = None) -> Run[Any]: ...
    @overload
    async def get(self, id: str, workflow: Workflow[Any, R]) -> Run[R]: ...
    async def get(self, id: str, workflow: Workflow[Any, R] | None = None) -> Run[Any]:
        """A handle on the run of this id. With its `workflow` the result has its type.

        Raises RunNotFound.
        """
        row = await self._row(id)
        decode = workflow.decode_result if workflow is not None else decoder(Any)
        return Run(self, row.id, row.number, decode)

    async def send(self, id: str, signal: Signal[T], value: T, *, signal_id: str = "") -> None:
        """Send a signal to a run. See `Run.send`."""
        await self._send(id, None, signal, value, signal_id=signal_id)

    async def _send(
        self, id: str, number: int | None, signal: Signal[T], value: T, *, signal_id: str
    ) -> None:
        """The same, for the run of this number, if that is still open."""
        payload = signal.encode(value)
        as_text(signal_id, "A signal's id", shortest=0)
        told = await self._tell(id, MessageKind.SIGNAL, signal.name, payload, signal_id, number=number)
        if told == DROPPED:
            raise closed_run(await self._row(id))

    async def update(self, id: str, update: Update[A, T], value: A) -> T:
        """Send an update to a run and return its answer. See `Run.update`."""
        row = await self._row(id)
        request = self.door.source.bytes(16).hex()
        reply = await self.door.ask(
            self._message(row.number, MessageKind.UPDATE, update.name, update.encode(value), request)
        )
        if reply.ok:
            return update.decode_result(reply.payload or b"null")
        if reply.payload is None:
            raise closed_run(await self._row(id))
        error = decode_failure(reply.payload)
        raise error

    async def cancel(self, id: str, reason: str = "") -> None:
        """Ask a run to stop; on disk when this returns. Does nothing to a run that has ended."""
        await self._tell(id, MessageKind.CANCEL, as_storable(reason, "A reason"))

    async def terminate(self, id: str, reason: str = "") -> None:
        """End a run at once, with no clean-up. Does nothing to a run that has ended."""
        await self._tell(id, MessageKind.TERMINATE, as_storable(reason, "A reason"))

    async def resume(self, id: str) -> None:
        """Go on with a parked run. Does nothing to one that is running; raises RunClosed if it has ended."""
        if await self._tell(id, MessageKind.RESUME, "") == DROPPED:
            raise closed_run(await self._row(id))

    async def _tell(
        self, id: str, kind: MessageKind, name: str, payload: bytes | None = None, request: str = "",
        *, number: int | None = None,
    ) -> int:  # fmt: skip
        to = (await self._row(id)).number if number is None else number
        while (position := await self.door.send(self._message(to, kind, name, payload, request))) == DROPPED:
            later = (await self._row(id)).number
            if later == to:
                return DROPPED
            to = later  # another generation has taken its place since
        return position

    def _message(
        self, number: int, kind: MessageKind, name: str, payload: bytes | None, request: str
    ) -> Message:
        return Message(0, number, kind, name, payload, request, self.door.clock.now_ms())

    async def _row(self, id: str, generation: int | None = None) -> RunRow:
        row = await self.door.read(lambda store: store.run_by_id(id, generation=generation))
        if row is None:
            which = "" if generation is None else f" with generation {generation}"
            raise RunNotFound(
                f"No run {id!r}{which} in {self.url}.",
                run_id=id,
                hint="`perdure list` shows the runs there are.",
            )
        return row

    # -- reading ---------------------------------------------------------------------------------

    async def info(self, id: str) -> RunView:
        """A run as it stands. Raises RunNotFound."""
        row = await self._row(id)
        tags = await self.door.read(lambda store: store.tags_of([row.number]))
        return run_view(row, tags.get(row.number, {}))

    async def timeline(self, id: str, *, generation: int | None = None, last: int | None = None) -> Timeline:
        """All that is known of a run, in the order of time; only the `last` entries if given.

        `generation` is the latest one unless you say which. Raises RunNotFound.
        """
        row = await self._row(id, generation)
        return await self.door.read(lambda store: timeline_view(store, row, last=last))

    async def attempts(self, id: str) -> Sequence[Entry]:
        """Attempts of a run's steps that failed and were made again, and heartbeats. Raises RunNotFound."""
        row = await self._row(id)
        return await self.door.read(lambda store: attempts_view(store, row))

    async def workers(self) -> list[WorkerView]:
        """The workers that are alive, oldest first."""
        now_ms = self.now_ms()
        return workers_view(await self.door.read(lambda store: store.workers(now_ms=now_ms)))

    async def counts(self) -> dict[str, int]:
        """How many runs have each status, by its word: `running`, `parked` …"""
        return counts_view(await self.door.read(lambda store: store.counts()))

    async def health(self, known: Collection[str] | None = None) -> Health:
        """Look at the whole store: versions, integrity, what is parked and why.

        With the names of the `known` workflows it also says which open runs have
        none. Takes a while for a large store.
        """
        now_ms = self.now_ms()
        return await self.door.read(lambda store: health_view(store, now_ms=now_ms, known=known))

    def now_ms(self) -> int:
        """The time by this client's clock, Unix milliseconds."""
        return self.door.clock.now_ms()

    async def list(
        self,
        *,
        workflow: Workflow[Any, Any] | str | None = None,
        status: RunStatus | Sequence[RunStatus] = (),
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        id_prefix: str = "",
        limit: int = 100,
        before: int | None = None,
    ) -> RunPage:
        """Runs, newest first, a page at a time; filters that are not given do not filter.

        `created_after` is inclusive, `created_before` exclusive. A run must have all
        of `tags`. Give a page's `next` as `before` to get the page after it.
        """
        wanted = (status,) if isinstance(status, RunStatus) else tuple(status)
        query = RunQuery(
            workflow=workflow.name if isinstance(workflow, Workflow) else workflow,
            statuses=tuple(int(Status[one.name]) for one in wanted),
            created_after_ms=_ms(created_after),
            created_before_ms=_ms(created_before),
            tags=as_tags(tags, "start"),
            id_prefix=id_prefix,
            limit=limit,
            before=before,
        )
        rows = await self.door.read(lambda store: store.list_runs(query))
        found = await self.door.read(lambda store: store.tags_of([row.number for row in rows]))
        views = [run_view(row, found.get(row.number, {})) for row in rows]
        return RunPage(views, rows[-1].number if len(rows) == limit else None)


def _ms(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1000)


def _look_at(store: Store, number: int, name: str) -> tuple[RunRow | None, StateRow | None]:
    # The run first: a state that is published with the end must not be missed.
    row = store.run_by_number(number)
    return row, store.states(number).get(name)


def _ended_badly(row: RunRow) -> RunFailed:
    kind, verb = _ENDS[row.status]
    why = f": {describe_failure(row.output).rstrip('.')}" if row.output else ""
    hint = (
        "Put right what failed, then resume it: `perdure resume`, or run.resume()."
        if kind is RunParked
        else ""
    )
    error = kind(f"Run {row.id!r} {verb}{why}.", run_id=row.id, hint=hint)
    if row.output is not None:
        cause = decode_failure(row.output)
        if isinstance(cause, kind) and cause.run_id == row.id:
            return cause  # it says so itself
        error.__cause__ = cause
    return error
