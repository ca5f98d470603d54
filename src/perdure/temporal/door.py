"""The way from a client to runs on a Temporal cluster: what a store's door is for a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from ..core.events import Append, Clash, Placed
from ..core.records import Message, MessageKind, NewRun, RunRow, Status
from ..errors import StoreError
from ..runtime.clock import Clock, Source, SystemClock, SystemSource
from ..runtime.definitions import WorkflowDefinition
from ..stores.base import DROPPED, Reply, StartOutcome, Store
from .cluster import Cluster
from .payloads import RESUME, Beginning
from .reads import Reads, look_at
from .rows import failure_of, input_of

T = TypeVar("T")

_LOOK_FIRST_S = 0.1
_LOOK_LATER_S = 2.0
_REST_S = 0.01
_HINT = "Keep streams in a store: sqlite:///… ."
_SENT = 1
"""In place of a message's position: Temporal has it."""
_FAILED = (Status.FAILED, Status.CANCELLED, Status.TERMINATED, Status.TIMED_OUT)


class TemporalDoor:
    """Starts runs, talks to them, reads of them. What it sends is in Temporal's history when it returns."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        define: Callable[[WorkflowDefinition], None] | None = None,
        stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`define` hears of each workflow that is started, and `stop` of the end: an engine's worker."""
        self.clock: Clock = SystemClock()
        self.source: Source = SystemSource()
        self._cluster = cluster
        self._reads = Reads(cluster)
        self._define = define
        self._stop = stop

    async def read(self, look: Callable[[Store], T]) -> T:
        return await look_at(self._reads, look)

    async def write(self, verb: Callable[[Store], T]) -> T:
        raise StoreError("Nothing was written: a Temporal cluster keeps no event streams.", hint=_HINT)

    # -- starting --------------------------------------------------------------------------------

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        if self._define is not None:
            self._define(definition)
        beginning = Beginning(seed=new.seed.hex())
        if new.deadline_ms is not None:
            beginning.timeout_ms = new.deadline_ms - new.created_at_ms
        latest: RunRow | None = None
        while True:
            run_id = await self._cluster.start(new, beginning, again=latest is not None)
            if run_id is not None:
                row = await self._reads.run_by_number(self._cluster.number_of(new.id, run_id))
                assert row is not None, f"run {new.id!r} has just been started"
                return StartOutcome("started", row)
            latest = await self._reads.run_by_id(new.id)
            if latest is not None:
                outcome = await self._decide(new, latest)
                if outcome is not None:
                    return outcome
                beginning.generation = latest.generation + 1

    def start_within(self, connection: Any, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        raise StoreError(
            f"Run {new.id!r} cannot be started in a transaction: a Temporal cluster is in no database that a "
            "connection could write to. Nothing was written.",
            hint="Leave connection= out, and start the run after the commit.",
        )

    async def append(self, append: Append) -> list[Placed] | Clash:
        raise StoreError(
            f"Nothing was appended to stream {append.stream!r}: a Temporal cluster keeps no event streams.",
            hint=_HINT,
        )

    def append_within(self, connection: Any, append: Append, register: object) -> list[Placed] | Clash:
        raise StoreError(
            f"Nothing was appended to stream {append.stream!r}: a Temporal cluster keeps no event streams.",
            hint=_HINT,
        )

    async def _decide(self, new: NewRun, latest: RunRow) -> StartOutcome | None:
        """Say what becomes of a start whose id `latest` has; None when it may be started after it."""
        status = Status(latest.status)
        if status.is_open:
            if new.on_conflict == "raise":
                return StartOutcome("conflict", latest, "running")
            if new.on_conflict == "cancel":
                place = await self._cluster.place_of(latest.number)
                if place is not None:
                    await self._cluster.cancel(place, "cancel")
                return StartOutcome("conflict", latest, "cancelling")
        elif new.reuse == "always" or (new.reuse == "if_failed" and status in _FAILED):
            return None
        if latest.workflow != new.workflow:
            return StartOutcome("conflict", latest, "workflow")
        if await self._origin_input(latest) != new.input:
            return StartOutcome("conflict", latest, "input")
        return StartOutcome("existing", latest)

    async def _origin_input(self, row: RunRow) -> bytes | None:
        """The input of the run that was once started under the id, and that this one continues."""
        place = await self._cluster.place_of(row.number)
        if place is None:
            return None
        first = await self._cluster.first_event(*place)
        origin = first.workflow_execution_started_event_attributes.first_execution_run_id
        if origin and origin != place[1]:
            if await self._cluster.describe(place[0], origin) is None:
                return None
            first = await self._cluster.first_event(place[0], origin)
        return input_of(first)[0]

    # -- talking ---------------------------------------------------------------------------------

    async def send(self, message: Message) -> int:
        place = await self._cluster.place_of(message.run)
        if place is None:
            return DROPPED
        match message.kind:
            case MessageKind.SIGNAL:
                payload = message.payload or b"null"
                sent = await self._cluster.signal(place, message.name, payload, id=message.request)
            case MessageKind.CANCEL:
                sent = await self._cluster.cancel(place, message.name)
            case MessageKind.TERMINATE:
                sent = await self._cluster.terminate(place, message.name)
            case MessageKind.RESUME:
                sent = await self._cluster.signal(place, RESUME, b"null", id="")
            case _:
                raise AssertionError(f"no client sends {message!r}")
        return _SENT if sent else DROPPED

    async def ask(self, message: Message) -> Reply:
        request = message.request
        place = await self._cluster.place_of(message.run)
        outcome = None
        if place is not None:
            payload = message.payload or b"null"
            outcome = await self._cluster.update(place, message.name, payload, id=request)
        if outcome is None:
            return Reply(request, False, None, 0)
        if outcome.WhichOneof("value") == "success":
            payloads = outcome.success.payloads
            return Reply(request, True, payloads[0].data if payloads else b"null", 0)
        ended = "AcceptedUpdateCompletedWorkflow" in outcome.failure.application_failure_info.type
        return Reply(request, False, None if ended else failure_of(outcome.failure), 0)

    # -- waiting ---------------------------------------------------------------------------------

    async def ended(self, number: int) -> RunRow:
        """Wait for Temporal to say that the run has ended, and look now and then whether it has parked."""
        place = await self._cluster.place_of(number)
        assert place is not None, f"run number {number} was removed while somebody waited for it"
        last = asyncio.ensure_future(self._cluster.last_event(*place))
        wait_s = _LOOK_FIRST_S
        try:
            while True:
                done, _ = await asyncio.wait({last}, timeout=wait_s)
                row = await self._reads.run_by_number(number)
                assert row is not None, f"run {place[0]!r} was removed while somebody waited for it"
                if row.status != Status.RUNNING:
                    return row
                if done:
                    await last  # raises what kept it from waiting
                wait_s = min(_LOOK_LATER_S, wait_s * 1.5)
        finally:
            last.cancel()
            with suppress(asyncio.CancelledError, StoreError):
                await last

    async def close(self) -> None:
        if self._stop is not None:
            await self._stop()
        # Temporal's client has threads of its own. One that is just handing over an answer as the
        # interpreter ends takes the whole process down with it.
        await asyncio.sleep(_REST_S)
