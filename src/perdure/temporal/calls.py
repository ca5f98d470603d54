"""What a hosted run has asked of Temporal and waits for: activities and child workflows.

Each call is one handle of Temporal's, and its end becomes an event. The end of a call that
was cancelled is not told: nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import msgspec
from temporalio import workflow
from temporalio.common import RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    FailureError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)

from ..blocks.step import StepCall
from ..codec.failures import encode_failure
from ..codec.json import encode
from ..core.commands import RunStep, StartApart, StartChild
from ..core.host import RunFacts
from ..core.records import Kind
from ..errors import ConflictError, RunCancelled, RunFailed, RunTerminated, StepError
from ..runtime.children import ChildOptions
from ..runtime.definitions import WorkflowCallLike
from .address import queue_of_tag
from .payloads import TAGS, Asked, Beginning, activity_id, fit, seed_of

_NO_LIMIT = timedelta(days=3_650)
"""Temporal wants a limit. A step's own are held by the worker, and a dead worker is known by its silence."""

# The waits between attempts are the step's own Retry, and come from the worker. This is for
# the attempt after one whose worker died, and without an end: such attempts do not count.
_AGAIN_AT_ONCE = RetryPolicy(
    initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=10)
)


class Event(NamedTuple):
    """What has come for a run and was not applied yet: all of a record but its place and time."""

    kind: int
    """A `Kind`; or 0: resume."""
    key: str
    digest: int = 0
    payload: bytes | None = None


class Calls:
    """The steps and children of one run that are under way."""

    def __init__(self, facts: RunFacts, lost_after_s: float, tell: Callable[[Event], None]) -> None:
        self._facts = facts
        self._lost_after = timedelta(seconds=lost_after_s)
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._steps: dict[str, workflow.ActivityHandle[Any]] = {}
        self._times_parked = 0
        self._children: dict[str, _Child] = {}
        self._held: list[Event] | None = None
        """Ends of children, while a cancelled run waits until all have ended."""
        self._when_ended: Callable[[], None] | None = None

    # -- steps -----------------------------------------------------------------------------------

    def start_step(self, pending: RunStep) -> None:
        """Ask for a step: an activity of its name, whose id is the call's key."""
        call: StepCall[Any] = pending.call
        tag = call.definition.worker
        asked = Asked(call.definition.source, pending.key, self._facts.seed.hex())
        handle: workflow.ActivityHandle[Any] = workflow.start_activity(
            call.definition.name,
            args=[fit(call.data, call.describe()), msgspec.json.encode(asked)],
            task_queue=None if tag is None else queue_of_tag(workflow.info().task_queue, tag),
            activity_id=activity_id(pending.key, self._times_parked),
            start_to_close_timeout=_NO_LIMIT,
            heartbeat_timeout=self._lost_after,
            retry_policy=_AGAIN_AT_ONCE,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        self._steps[pending.key] = handle
        handle.add_done_callback(partial(self._step_ended, pending))

    def _step_ended(self, pending: RunStep, handle: asyncio.Task[Any]) -> None:
        error = None if handle.cancelled() else handle.exception()
        if self._steps.get(pending.key) is not handle or handle.cancelled():
            return
        del self._steps[pending.key]
        if error is None:
            self._tell(Event(Kind.STEP, pending.key, pending.digest, handle.result()))
        else:
            self._tell(Event(Kind.STEP_FAILED, pending.key, pending.digest, _failure_in(error)))

    def cancel_steps(self) -> None:
        """The run parks: stop all steps; what they still bring is not told."""
        self._times_parked += 1
        steps, self._steps = self._steps, {}
        for handle in steps.values():
            handle.cancel()

    def cancel(self, key: str) -> None:
        """The task that waited for this call was cancelled: stop the step, or cancel the child."""
        handle = self._steps.pop(key, None)
        if handle is not None:
            handle.cancel()
        elif key in self._children:
            self._children[key].cancel()

    # -- children --------------------------------------------------------------------------------

    def start_child(self, pending: StartChild) -> None:
        """Start a child; one that lives on from before the run parked is taken as it is."""
        if pending.key not in self._children:
            child = self._children[pending.key] = _Child(pending)
            child.task = self._loop.create_task(self._follow(child))

    async def _follow(self, child: _Child) -> None:
        """Start a child and tell of its start, if that is waited for, and of its end."""
        pending = child.pending
        apart = isinstance(pending, StartApart)
        try:
            handle = await self._start(child)
        except WorkflowAlreadyStartedError as taken:
            error = ConflictError(
                f"Child {taken.workflow_id!r} of run {self._facts.id!r} cannot start: the id belongs to "
                "another run.",
                run_id=taken.workflow_id,
                hint="Give start_child another id.",
            )
            self._child_ended(child, pending.key, Kind.CHILD_FAILED, encode_failure(error))
            return
        child.began(handle)
        if apart:
            started = encode(handle.id, "child id")
            self._tell(Event(Kind.CHILD_STARTED, pending.key, pending.digest, started))
        key = f"{pending.key}/end" if apart else pending.key
        try:
            output: bytes = await handle
        except FailureError as error:
            self._child_ended(child, key, Kind.CHILD_FAILED, _failure_of_child(handle.id, error))
        else:
            self._child_ended(child, key, Kind.CHILD, output)

    def _start(self, child: _Child) -> Any:
        call: WorkflowCallLike = child.pending.call
        options, facts = child.options, self._facts
        own = facts.id if facts.generation == 1 else f"{facts.id}~{facts.generation}"
        beginning = Beginning(
            seed=seed_of(f"child {child.pending.key}", facts.seed).hex(),
            timeout_ms=options.timeout_ms,
            on_parent_close=options.on_parent_close,
            parent_key=child.pending.key,
        )
        policy = workflow.ParentClosePolicy
        return workflow.start_child_workflow(
            call.definition.name,
            args=[fit(call.input(), call.describe()), msgspec.json.encode(beginning)],
            id=options.id or f"{own}/{child.pending.key}",
            parent_close_policy=policy.ABANDON if child.is_abandoned else policy.REQUEST_CANCEL,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo={TAGS: msgspec.json.encode(dict(options.tags))} if options.tags else None,
        )

    def _child_ended(self, child: _Child, key: str, kind: Kind, payload: bytes) -> None:
        child.has_ended = True
        digest = 0 if key.endswith("/end") else child.pending.digest
        event = Event(kind, key, digest, payload)
        if self._held is None:
            self._tell(event)
            return
        self._held.append(event)
        if not self._open_children():
            held, self._held = self._held, None
            assert self._when_ended is not None, "what is held is held for somebody"
            self._when_ended()
            for event in held:
                self._tell(event)

    def _open_children(self) -> list[_Child]:
        """Children that are still open and end with their parent."""
        return [child for child in self._children.values() if not child.has_ended and not child.is_abandoned]

    def cancel_children(self, then: Callable[[], None]) -> bool:
        """Cancel all children that end with their parent, and call `then` when they have ended.

        Their ends are told after that. False: there are none, and `then` is not called.
        """
        children = self._open_children()
        if children:
            self._held, self._when_ended = [], then
        for child in children:
            child.cancel()
        return bool(children)


class _Child:
    """A child run on its way."""

    def __init__(self, pending: StartChild) -> None:
        self.pending = pending
        self.options = pending.options if isinstance(pending.options, ChildOptions) else ChildOptions()
        self.is_abandoned = self.options.on_parent_close == "abandon"
        self.has_ended = False
        self.task: asyncio.Task[None] | None = None
        self._handle: workflow.ChildWorkflowHandle[Any, Any] | None = None
        self._is_cancelled = False

    def began(self, handle: workflow.ChildWorkflowHandle[Any, Any]) -> None:
        """Temporal has started it."""
        self._handle = handle
        if self._is_cancelled:
            handle.cancel()

    def cancel(self) -> None:
        """Ask it to stop; as soon as it has begun, if it has not."""
        if not self._is_cancelled:
            self._is_cancelled = True
            if self._handle is not None:
                self._handle.cancel()


def _failure_in(error: BaseException) -> bytes:
    """The failure, in our own form, that an error of Temporal's brings."""
    cause = error.__cause__
    if isinstance(cause, ApplicationError) and cause.details and isinstance(cause.details[0], bytes):
        return cause.details[0]
    return encode_failure(StepError(f"Temporal ended the activity: {cause or error}."))


def _failure_of_child(run_id: str, error: FailureError) -> bytes:
    cause = error.__cause__
    if isinstance(cause, CancelledError):
        return encode_failure(RunCancelled(f"Run {run_id!r} was cancelled.", run_id=run_id))
    if isinstance(cause, TerminatedError):
        return encode_failure(RunTerminated(f"Run {run_id!r} was terminated.", run_id=run_id))
    if isinstance(cause, ApplicationError) and cause.details and isinstance(cause.details[0], bytes):
        return cause.details[0]
    return encode_failure(RunFailed(f"Temporal ended run {run_id!r}: {cause or error}.", run_id=run_id))
