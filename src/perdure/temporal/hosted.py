"""One run inside a Temporal workflow: Temporal's events in, Temporal's commands out.

The counterpart of the driver. What Temporal tells becomes a record, in the order in which
it tells it; the record is applied to the run's `Execution`; what the run then asks for is
asked of Temporal. The law: everything is drawn from what Temporal replays (its events, its
time, its randomness), so that Temporal's replay leads to the same commands.

A run parks here as on a store: it stays, with the failure taken back, until it is resumed.
Code that breaks a law (BoundaryError …) fails the workflow task instead: Temporal tries
that again until the code is put right.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from ..codec.failures import describe_failure, encode_failure
from ..core.commands import (
    AnswerUpdate,
    AwaitChild,
    CancelCall,
    Outcome,
    Publish,
    RunStep,
    StartChild,
    Unheard,
)
from ..core.execution import Execution
from ..core.host import RunFacts
from ..core.ready import Ready
from ..core.records import Kind, Record, Status
from ..errors import (
    PerdureError,
    RunCancelled,
    RunClosed,
    RunTimedOut,
    UpdateRefused,
    WorkflowNotRegistered,
)
from ..runtime.registry import Registry
from .calls import Calls, Event
from .execution import HostedExecution
from .payloads import (
    ENDED,
    GENERATION,
    PARKED,
    RESUME,
    TAGS,
    Beginning,
    Ended,
    as_failure,
    fit,
    seed_of,
    state_payload,
)
from .waiting import stacks_of

_log = logging.getLogger("perdure")


_RESUMED = Event(0, "")
_ANSWERS = (Kind.STEP, Kind.STEP_FAILED, Kind.CHILD_STARTED, Kind.CHILD, Kind.CHILD_FAILED)


class HostedRun:
    """A run, and what of Temporal's it waits for."""

    def __init__(self, registry: Registry, args: Sequence[RawValue], *, lost_after_s: float) -> None:
        info = workflow.info()
        definition = registry.find(info.workflow_type)
        if definition is None:
            raise WorkflowNotRegistered(
                f"Run {info.workflow_id!r} needs workflow {info.workflow_type!r}, which this worker "
                "does not define.",
                run_id=info.workflow_id,
                hint="Give the worker the module that defines it, or give the workflow another task queue.",
            )
        self._registry = registry
        self._definition = definition
        self._input = args[0].payload.data if args else b"{}"
        self._beginning = msgspec.json.decode(
            args[1].payload.data if len(args) > 1 else b"{}", type=Beginning
        )
        self._ready = Ready()
        self._facts = self._make_facts(info)
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(self._facts, lost_after_s, self._push)
        self._journal: list[Record] = []
        self._events: deque[Event] = deque()
        for name, value in self._beginning.signals:
            self._events.append(Event(Kind.SIGNAL, name, 0, bytes(value)))
        self._woken: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at_ms: int | None = None
        self._cancel_reason: str | None = None
        self._asked_to_stop: Event | None = None
        """The run's cancel, while it waits for children to end."""
        self._parked = False
        self._states: dict[str, tuple[int, bytes]] = {}
        self._published: dict[str, int] = {}
        self._answers: dict[str, asyncio.Future[AnswerUpdate]] = {}
        self._execution = self._begin()
        workflow.set_query_handler(  # pyright: ignore[reportUnknownMemberType]
            "__stack_trace", lambda: stacks_of(self._execution.loop)
        )

    def _make_facts(self, info: workflow.Info) -> RunFacts:
        begun = self._beginning
        created_at_ms = round(info.workflow_start_time.timestamp() * 1000)
        deadline_ms = begun.deadline_ms
        if begun.timeout_ms is None and begun.deadline_ms is None:
            begun.timeout_ms = self._definition.timeout_ms
        if begun.timeout_ms is not None:
            deadline_ms = created_at_ms + begun.timeout_ms
        seed = bytes.fromhex(begun.seed)
        if not seed:  # started by somebody else: Temporal's own randomness will do
            drawn = workflow.random().getrandbits(128).to_bytes(16, "big")
            seed = seed_of(f"{info.namespace}/{info.workflow_id}", drawn)
        return RunFacts(
            0, info.workflow_id, begun.generation, self._definition.name, seed, created_at_ms, deadline_ms
        )

    def _begin(self) -> Execution:
        """Start the run's code; it runs until it waits for the first time."""
        execution = HostedExecution(self._facts, self._ready)
        self._run_from_the_start(execution)
        return execution

    def _run_from_the_start(self, execution: Execution) -> None:
        try:
            with self._ready:
                execution.begin(self._definition.body(self._input), self._definition.encode_result)
                execution.replay(self._journal)
        except BaseException:
            execution.drop()
            raise

    # -- what Temporal tells ---------------------------------------------------------------------

    def _push(self, event: Event) -> None:
        self._events.append(event)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def hear(self, name: str, args: Sequence[RawValue]) -> None:
        """A signal has come."""
        payload = args[0].payload.data if args else b"null"
        self._push(_RESUMED if name == RESUME else Event(Kind.SIGNAL, name, 0, payload))

    def judge(self, name: str, args: Sequence[RawValue]) -> None:
        """An update has come: raise for one that the run does not take. Nothing is in the history then."""
        run_id = self._facts.id
        try:
            if self._parked:
                raise UpdateRefused(f"Run {run_id!r} is parked.", run_id=run_id, hint="Resume it first.")
            if self._execution.outcome is not None:
                raise RunClosed(f"Run {run_id!r} has ended.", run_id=run_id)
            self._execution.judge_update(name, args[0].payload.data if args else b"null")
        except PerdureError as error:
            raise as_failure(encode_failure(error)) from None

    async def answer(self, name: str, args: Sequence[RawValue]) -> bytes:
        """Handle an update that was accepted, and give the answer."""
        request = workflow.current_update_info()
        assert request is not None, "an update is handled as one"
        answered: asyncio.Future[AnswerUpdate] = self._loop.create_future()
        self._answers[request.id] = answered
        payload = args[0].payload.data if args else b"null"
        self._push(Event(Kind.UPDATE, f"{name}/{request.id}", 0, payload))
        answer = await answered
        if not answer.ok:
            raise as_failure(answer.payload)
        return fit(answer.payload, f"answer to update {name!r}")

    def drop(self) -> None:
        """Let the run's code vanish; no effect leaves. Done twice, the second does nothing."""
        if not self._execution.loop.dead:
            self._execution.drop()

    # -- the loop --------------------------------------------------------------------------------

    async def live(self) -> bytes:
        """Bring the run to its end. Raises what ends a Temporal workflow otherwise."""
        try:
            while True:
                self._carry_out()
                outcome = self._execution.outcome
                if outcome is None:
                    self._apply(await self._next_event())
                elif outcome.status is Status.PARKED:
                    await self._park(outcome)
                else:
                    return await self._end(outcome)
        finally:
            self.drop()  # also when Temporal lets the workflow go from memory

    async def _next_event(self) -> Event:
        while not self._events:
            self._publish()
            self._arm()
            if not self._events:
                await self._wait()
        return self._events.popleft()

    async def _wait(self) -> None:
        """Until there is something new. Temporal cancels this to say that the run is cancelled."""
        self._woken = self._loop.create_future()
        try:
            await self._woken
        except asyncio.CancelledError:
            reason = workflow.cancellation_reason()
            if reason is None or self._cancel_reason is not None:
                raise  # not a cancel: Temporal lets the workflow go from memory
            self._cancel_reason = reason
            self._hear_cancel(Event(Kind.CANCEL, "cancel", 0, reason.encode()))
        finally:
            self._woken = None

    def _hear_cancel(self, event: Event) -> None:
        """Children first: the run hears of it when they have ended, and of their ends after."""
        if self._asked_to_stop is None and not self._execution.loop.cancelling:
            self._asked_to_stop = event
            if not self._calls.cancel_children(self._children_ended):
                self._children_ended()

    def _children_ended(self) -> None:
        event, self._asked_to_stop = self._asked_to_stop, None
        if event is not None:
            self._push(event)

    def _apply(self, event: Event) -> None:
        if event.kind == 0 or (event.kind == Kind.CANCEL and self._execution.loop.cancelling):
            return  # it is not parked; it is being cancelled already
        waited_for = event.key.endswith("/end") or self._execution.pending_call(event.key) is not None
        if event.kind in _ANSWERS and not waited_for:
            return  # the call was cancelled: nobody waits
        record = self._record(event)
        self._journal.append(record)
        with self._ready:
            self._execution.apply(record)

    def _record(self, event: Event) -> Record:
        last_ms = self._journal[-1].at_ms if self._journal else self._facts.created_at_ms
        at_ms = max(last_ms, self._now_ms())
        return Record(len(self._journal), event.kind, event.key, event.digest, at_ms, event.payload)

    # -- what the run asks for -------------------------------------------------------------------

    def _carry_out(self) -> None:
        execution = self._execution
        commands = execution.commands
        if execution.outcome is not None and execution.outcome.status is Status.PARKED:
            commands.clear()  # the event that failed it is taken back: so is what came of it
        for command in commands:
            match command:
                case RunStep():
                    self._calls.start_step(command)
                case StartChild():
                    self._registry.add(command.call.definition)
                    self._calls.start_child(command)
                case AwaitChild():
                    pass  # its end is told
                case CancelCall(pending):
                    if execution.outcome is None:  # else Temporal stops what the run leaves behind
                        self._calls.cancel(pending.key)
                case Publish(state, version, payload):
                    self._states[state] = (version, payload)
                case AnswerUpdate():
                    self._give_answer(command)
                case Unheard(error):
                    self._say_unheard(error)
                case _:
                    raise AssertionError(f"no such command: {command!r}")
        commands.clear()

    def _give_answer(self, answer: AnswerUpdate) -> None:
        waiting = self._answers.get(answer.request)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _say_unheard(self, error: BaseException) -> None:
        if not workflow.unsafe.is_replaying():
            _log.error("A task of run %r failed, and nobody awaited it.", self._facts.id, exc_info=error)

    def _publish(self) -> None:
        """Write the states that changed into the workflow's memo, which is read without a worker."""
        changed = {
            name: state_payload(payload, version=version, at_ms=self._now_ms())
            for name, (version, payload) in self._states.items()
            if version > self._published.get(name, 0)
        }
        self._published.update((name, version) for name, (version, _) in self._states.items())
        self._states.clear()
        if changed:
            workflow.upsert_memo(changed)

    def _arm(self) -> None:
        """One timer of Temporal's, for whatever the run's own loop waits for next."""
        execution = self._execution
        # While children end, the run's own deadline has nothing more to say.
        held = self._asked_to_stop is not None
        at_ms = execution.loop.next_deadline_ms() if held else execution.next_deadline_ms()
        if at_ms == self._armed_at_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_at_ms = at_ms
        if at_ms is not None:
            wait_ms = at_ms - self._now_ms()
            if wait_ms <= 0:
                self._time_has_come(at_ms)
            else:
                self._timer = self._loop.call_later(wait_ms / 1000, self._time_has_come, at_ms)

    def _time_has_come(self, at_ms: int) -> None:
        if at_ms != self._armed_at_ms:
            return
        self._timer = self._armed_at_ms = None
        deadline_ms = self._facts.deadline_ms
        over = deadline_ms is not None and deadline_ms <= at_ms and not self._execution.loop.cancelling
        if over and self._asked_to_stop is None:
            self._hear_cancel(Event(Kind.CANCEL, "timeout", 0, None))
        else:
            self._push(Event(Kind.TICK, ""))

    def _now_ms(self) -> int:
        # Rounded up: a timer that has fired is never before its time.
        return -(-workflow.time_ns() // 1_000_000)

    # -- parking and ending ----------------------------------------------------------------------

    async def _park(self, outcome: Outcome) -> None:
        """Stay as if the step had not failed yet, until somebody says resume or cancel."""
        if outcome.forget_from is None:
            assert outcome.error is not None
            raise outcome.error  # code broke a law: the workflow task fails, and is tried again
        self._parked = True
        self._calls.cancel_steps()
        self._publish()
        workflow.upsert_memo({PARKED: outcome.output})
        kept = [record for record in self._journal if record.seq != outcome.forget_from]
        self._journal = [record._replace(seq=seq) for seq, record in enumerate(kept)]
        while (event := self._opening_event()) is None:
            await self._wait()
        self._events.remove(event)
        self._parked = False
        workflow.upsert_memo({PARKED: None})
        if event.kind == Kind.CANCEL:
            # Recorded before it is replayed: what failed is not tried once more on the way.
            self._journal.append(self._record(event))
        self._open_again()

    def _opening_event(self) -> Event | None:
        return next((event for event in self._events if event.kind in (0, Kind.CANCEL)), None)

    def _open_again(self) -> None:
        self._armed_at_ms = None
        execution = HostedExecution(self._facts, self._ready)
        execution.foresee_patches([])
        self._run_from_the_start(execution)
        execution.go_live()
        self._execution = execution

    async def _end(self, outcome: Outcome) -> bytes:
        self._publish()
        if self._timer is not None:
            self._timer.cancel()
        await self._answer_all()
        if outcome.status is Status.COMPLETED:
            return fit(outcome.output or b"null", f"result of {self._facts.workflow}()")
        if outcome.status is Status.CONTINUED:
            self._continue(outcome)
        if outcome.status is Status.CANCELLED and workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        raise self._failed(outcome)

    async def _answer_all(self) -> None:
        """Temporal wants every update to be answered before the run ends."""
        error = RunClosed(
            f"Run {self._facts.id!r} ended before it answered the update.", run_id=self._facts.id
        )
        for request, answered in self._answers.items():
            if not answered.done():
                answered.set_result(AnswerUpdate(request, False, encode_failure(error)))
        while not workflow.all_handlers_finished():
            try:
                await workflow.wait_condition(workflow.all_handlers_finished)
            except asyncio.CancelledError:
                if workflow.cancellation_reason() is None:
                    raise

    def _failed(self, outcome: Outcome) -> ApplicationError:
        """The end of a run without a result, as Temporal shows it; the whole failure is in its details."""
        output, status = outcome.output or b"{}", outcome.status
        kind = {Status.CANCELLED: RunCancelled, Status.TIMED_OUT: RunTimedOut}.get(status)
        if kind is not None:
            verb = "was cancelled" if status is Status.CANCELLED else "took longer than its timeout"
            error = kind(f"Run {self._facts.id!r} {verb}.", run_id=self._facts.id)
            error.__cause__ = outcome.error
            output = encode_failure(error)
        ended = Ended(status.word, describe_failure(output)[:500])
        workflow.upsert_memo({ENDED: msgspec.json.encode(ended)})
        return as_failure(output)

    def _continue(self, outcome: Outcome) -> NoReturn:
        call: Any = outcome.next_call
        self._registry.add(call.definition)
        own_ms = call.definition.timeout_ms
        left = [
            *outcome.unreceived,
            *((e.key, e.payload or b"null") for e in self._events if e.kind == Kind.SIGNAL),
        ]
        following = Beginning(
            seed=seed_of(f"generation {self._facts.generation + 1}", self._facts.seed).hex(),
            generation=self._facts.generation + 1,
            timeout_ms=own_ms,
            deadline_ms=None if own_ms is not None else self._facts.deadline_ms,
            on_parent_close=self._beginning.on_parent_close,
            parent_key=self._beginning.parent_key,
            signals=[(name, msgspec.Raw(payload)) for name, payload in left],
        )
        data = fit(msgspec.json.encode(following), "signals that nobody received")
        memo: dict[str, Any] = {GENERATION: str(following.generation).encode()}
        tags = workflow.info().raw_memo.get(TAGS)
        if tags is not None:
            memo[TAGS] = RawValue(tags)
        workflow.continue_as_new(
            args=[fit(call.input(), call.describe()), data], workflow=call.definition.name, memo=memo
        )
