"""Children in an explored world: what `runtime/children` and `runtime/inbox` do, with every order possible.

A child begins when it is asked for. That it is on disk (`pay started`), that it
has ended (`pay done`) and that it is to stop (`pay: cancel`) are messages, and so
each is an event of its own that may come late.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol
from weakref import proxy

from ...blocks.workflow import Workflow
from ...codec.failures import encode_failure
from ...codec.json import encode
from ...core.commands import PendingCall, StartApart, StartChild
from ...core.host import RunFacts
from ...core.ready import Ready
from ...core.records import Kind, Record, Status
from ...errors import ConflictError, RunCancelled, RunFailed, RunTimedOut
from ...runtime.children import ChildOptions
from .path import Possible
from .plan import broken_law, numbered
from .runs import ExploredRun, TracedExecution

_STOPPED: dict[Status, tuple[type[RunFailed], str]] = {
    Status.CANCELLED: (RunCancelled, "was cancelled"),
    Status.TIMED_OUT: (RunTimedOut, "took longer than its timeout"),
}


class Playing(Protocol):
    """The world, as its children see it."""

    now_ms: int
    runs: list[ExploredRun]
    counts: dict[str, int]
    ready: Ready
    journal: list[Record]
    in_flight: dict[tuple[int, str, str], Possible]

    def facts(
        self, run_id: str, generation: int, definition: Workflow[Any, Any], deadline_ms: int | None
    ) -> RunFacts: ...
    def make_run(
        self, facts: RunFacts, definition: Workflow[Any, Any], data: bytes, *, label: str = ""
    ) -> ExploredRun: ...
    async def begin(self, run: ExploredRun) -> None: ...
    async def carry_out(self, run: ExploredRun) -> None: ...
    async def record(
        self,
        run: ExploredRun,
        kind: Kind,
        key: str = "",
        digest: int = 0,
        payload: bytes | None = None,
        value: Any = ...,
    ) -> None: ...


class Children:
    """Starts, cancels and hears of children."""

    def __init__(self, world: Playing) -> None:
        self._world: Playing = proxy(world)

    async def start(self, run: ExploredRun, pending: StartChild) -> None:
        """Begin a child."""
        world = self._world
        call, definition = pending.call, pending.call.definition
        options = pending.options if isinstance(pending.options, ChildOptions) else ChildOptions()
        facts = run.facts
        own = facts.id if facts.generation == 1 else f"{facts.id}~{facts.generation}"
        child_id = options.id or f"{own}/{pending.key}"
        name = numbered(f"{run.label}{definition.name}", world.counts)
        place = (facts.number, "start", pending.key)
        if any(other.facts.id == child_id for other in world.runs):
            world.in_flight[place] = Possible(
                f"{name} refused", partial(self._refuse, run, pending, child_id)
            )
            return
        limit = options.timeout_ms if options.timeout_ms is not None else definition.timeout_ms
        deadline_ms = None if limit is None else world.now_ms + limit
        child = world.make_run(
            world.facts(child_id, 1, definition, deadline_ms), definition, call.input(), label=f"{name}: "
        )
        child.parent, child.on_parent_close = run, options.on_parent_close
        child.parent_key = pending.key
        if isinstance(pending, StartApart):
            child.parent_key = f"{pending.key}/end"
            world.in_flight[place] = Possible(
                f"{name} started", partial(self._tell_started, run, pending, child_id)
            )
        await world.begin(child)

    async def _refuse(self, run: ExploredRun, pending: StartChild, child_id: str) -> None:
        error = ConflictError(
            f"Child {child_id!r} of run {run.facts.id!r} cannot start: the id belongs to another run.",
            run_id=child_id,
            hint="Give start_child another id.",
        )
        del self._world.in_flight[run.facts.number, "start", pending.key]
        payload = encode_failure(error)
        await self._world.record(run, Kind.CHILD_FAILED, pending.key, pending.digest, payload)

    async def _tell_started(self, run: ExploredRun, pending: StartChild, child_id: str) -> None:
        del self._world.in_flight[run.facts.number, "start", pending.key]
        payload = encode(child_id, "child id")
        await self._world.record(run, Kind.CHILD_STARTED, pending.key, pending.digest, payload)

    # -- their ends ------------------------------------------------------------------------------

    async def tell_parent(self, child: ExploredRun) -> None:
        """A child has ended: its parent is to hear of it, if it still listens."""
        parent, key = child.parent, child.parent_key
        if parent is None or parent.outcome is not None:
            return
        if key.endswith("/end") or parent.execution.pending_call(key) is not None:
            name = child.label.removesuffix(": ")
            place = (parent.facts.number, "end", key)
            self._world.in_flight[place] = Possible(f"{name} done", partial(self._tell_end, parent, child))
        if parent.awaits_children is not None and not self.open_of(parent):
            reason, parent.awaits_children = parent.awaits_children, None
            ends = self._held_ends(parent)
            await self._cancel_now(parent, reason, how=parent.cancelled_how)
            for end in ends:  # written with the cancel, before the parent has heard of it
                await self._world.record(parent, *end)

    async def _tell_end(self, parent: ExploredRun, child: ExploredRun) -> None:
        del self._world.in_flight[parent.facts.number, "end", child.parent_key]
        await self._world.record(parent, *_end(parent, child))

    def _held_ends(self, parent: ExploredRun) -> list[tuple[Kind, str, int, bytes | None]]:
        """The ends of children that the parent has not heard of yet; they are no longer in flight."""
        in_flight, number = self._world.in_flight, parent.facts.number
        told = [child for child in self._world.runs if child.parent is parent]
        return [
            _end(parent, child)
            for child in told
            if in_flight.pop((number, "end", child.parent_key), None) is not None
        ]

    # -- cancelling ------------------------------------------------------------------------------

    def open_of(self, run: ExploredRun) -> list[ExploredRun]:
        """Children that are still open and end with their parent."""
        return [
            child
            for child in self._world.runs
            if child.parent is run and child.status.is_open and child.on_parent_close == "cancel"
        ]

    def give_up(self, run: ExploredRun, pending: PendingCall) -> None:
        """Nobody waits for a child any more: it is to stop."""
        key = pending.key.removesuffix("/end")
        self._world.in_flight.pop((run.facts.number, "start", key), None)
        self._world.in_flight.pop((run.facts.number, "end", key), None)
        for child in self._world.runs:
            if child.parent is run and child.parent_key.removesuffix("/end") == key:
                self.send_cancel(child)

    def send_cancel(self, child: ExploredRun, reason: str = "cancelled by its parent") -> None:
        """A child is to stop; it hears of it when that is chosen."""
        if child.status.is_open:
            possible = Possible(f"{child.label}cancel", partial(self._cancel_child, child, reason))
            self._world.in_flight[child.facts.number, "cancel", ""] = possible

    async def _cancel_child(self, child: ExploredRun, reason: str) -> None:
        del self._world.in_flight[child.facts.number, "cancel", ""]
        await self.cancel(child, reason)

    async def time_out(self, run: ExploredRun) -> None:
        """A run has used up its time: it is cancelled for that, after its children."""
        if self.open_of(run):
            await self.cancel(run, "out of time", how="timeout")
        else:
            await self._world.record(run, Kind.CANCEL, "timeout")

    async def cancel(self, run: ExploredRun, reason: str, *, how: str = "cancel") -> None:
        """Cancel a run: its children first, and itself when they have ended. Once is enough."""
        if run.status is Status.PARKED:
            await self._open_again(run, reason)
            return
        if run.cancel_reason is not None or run.execution.loop.cancelling or run.awaits_children is not None:
            return
        children = self.open_of(run)
        if not children:
            await self._cancel_now(run, reason, how=how)
            return
        run.awaits_children, run.cancelled_how = reason, how
        for child in children:
            self.send_cancel(child, reason)

    async def _cancel_now(self, run: ExploredRun, reason: str, *, how: str) -> None:
        run.cancel_reason = reason
        await self._world.record(run, Kind.CANCEL, how, payload=reason.encode())

    async def _open_again(self, run: ExploredRun, reason: str) -> None:
        """A parked run is replayed without the failure that parked it, and hears of its cancel at once."""
        world, outcome = self._world, run.outcome
        assert outcome is not None
        kept = [record for record in run.journal if record.seq != outcome.forget_from]
        run.journal = [record._replace(seq=seq) for seq, record in enumerate(kept)]
        cancel = Record(len(kept), Kind.CANCEL, "cancel", 0, world.now_ms, reason.encode(), run.facts.number)
        run.journal.append(cancel)
        world.journal.append(cancel)
        run.outcome, run.reopened, run.cancel_reason = None, True, reason
        execution = run.execution = TracedExecution(run.facts, world.ready)
        try:
            with world.ready:
                execution.foresee_patches(run.journal)
                execution.begin(run.definition.body(run.data), run.definition.encode_result)
                execution.replay(run.journal)
                execution.go_live()
        except Exception as error:
            raise broken_law(run.facts, error) from error
        await world.carry_out(run)


def _end(parent: ExploredRun, child: ExploredRun) -> tuple[Kind, str, int, bytes | None]:
    """The record of a child's end in its parent's journal: kind, key, digest and payload."""
    pending = parent.execution.pending_call(child.parent_key)
    digest = pending.digest if pending is not None else 0
    kind = Kind.CHILD if child.status is Status.COMPLETED else Kind.CHILD_FAILED
    return kind, child.parent_key, digest, _output(child)


def _output(child: ExploredRun) -> bytes | None:
    """What the parent is told: as the store would keep it."""
    outcome = child.outcome
    assert outcome is not None
    stopped = _STOPPED.get(outcome.status)
    if stopped is None:
        return outcome.output
    because = f": {child.cancel_reason}" if child.cancel_reason else ""
    error = stopped[0](f"Run {child.facts.id!r} {stopped[1]}{because}.", run_id=child.facts.id)
    error.__cause__ = outcome.error
    return encode_failure(error)
