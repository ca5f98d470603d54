"""The one Temporal workflow that hosts all of ours: it takes every name, and hands all on to a `HostedRun`.

It runs without Temporal's sandbox: a run's own loop and the guard refuse what does not
belong into a workflow, and say where it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, cast
from weakref import WeakSet

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.worker import (
    Interceptor,
    Replayer,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from ..blocks.workflow import Workflow
from ..runtime.registry import Registry
from .address import LOST_AFTER_S, Address, queue_of_tag
from .hosted import HostedRun
from .payloads import CONVERTER
from .steps import Steps

_BEAT_AT_LEAST = timedelta(seconds=1)
"""A heartbeat brings the word that a step is cancelled: it is not held back for longer."""


_STEPS_AT_ONCE = 1_000
"""What is over is left to other workers of the task queue."""

_HOST = "perdure.host"


class Hosts(Interceptor):
    """Brings into the workflow what it cannot be given otherwise: Temporal makes it, by its class alone."""

    def __init__(self, registry: Registry, lost_after_s: float) -> None:
        self._registry = registry
        self._lost_after_s = lost_after_s
        self._living: WeakSet[HostedRun] = WeakSet()

    def host(self, args: Sequence[RawValue]) -> HostedRun:
        """The run of a workflow that begins, or is brought back into memory."""
        run = HostedRun(self._registry, args, lost_after_s=self._lost_after_s)
        self._living.add(run)
        return run

    def drop_all(self) -> None:
        """The worker has ended, and Temporal has let go, without a word, what it had in memory."""
        for run in list(self._living):
            run.drop()

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        # Temporal types it by a bare Callable.
        cast(Any, input).unsafe_extern_functions[_HOST] = self.host
        return None


@workflow.defn(dynamic=True)
class Hosted:
    """A run; its type's name is that of our workflow."""

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        self._run: HostedRun | None = None
        self._error: Exception | None = None
        try:
            self._run = cast(Any, workflow).extern_functions()[_HOST](args)
        except Exception as error:
            self._error = error  # raised where Temporal expects it

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> bytes:
        """Live."""
        return await self._hosted().live()

    @workflow.signal(dynamic=True)
    def hear(self, name: str, args: Sequence[RawValue]) -> None:
        """Any signal."""
        if self._run is not None:
            self._run.hear(name, args)

    @workflow.update(dynamic=True)
    async def answer(self, name: str, args: Sequence[RawValue]) -> bytes:
        """Any update."""
        return await self._hosted().answer(name, args)

    @answer.validator
    def judge(self, name: str, args: Sequence[RawValue]) -> None:
        """Whether the run takes the update."""
        self._hosted().judge(name, args)

    def _hosted(self) -> HostedRun:
        if self._run is None:
            assert self._error is not None, "a run that is not there has an error"
            raise self._error
        return self._run


def make_worker(
    client: Client, address: Address, hosts: Hosts, steps: Steps, *, capacity: int, residents_kept: int
) -> Worker:
    """A Temporal worker on the URL's task queue; not running yet."""

    @activity.defn(dynamic=True)
    async def step(args: Sequence[RawValue]) -> bytes:
        return await steps.run(args)

    return Worker(
        client,
        task_queue=address.task_queue,
        workflows=[Hosted],
        activities=[step],
        interceptors=[hosts],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_activities=min(capacity, _STEPS_AT_ONCE),
        max_cached_workflows=residents_kept,
        max_heartbeat_throttle_interval=_BEAT_AT_LEAST,
        default_heartbeat_throttle_interval=_BEAT_AT_LEAST,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=address.lost_after_s),
    )


def make_step_worker(client: Client, address: Address, steps: Steps, tag: str, *, capacity: int) -> Worker:
    """A Temporal worker for the steps that ask for a worker with a tag, on a task queue of their own."""

    @activity.defn(dynamic=True)
    async def step(args: Sequence[RawValue]) -> bytes:
        return await steps.run(args)

    return Worker(
        client,
        task_queue=queue_of_tag(address.task_queue, tag),
        activities=[step],
        max_concurrent_activities=min(capacity, _STEPS_AT_ONCE),
        max_heartbeat_throttle_interval=_BEAT_AT_LEAST,
        default_heartbeat_throttle_interval=_BEAT_AT_LEAST,
    )


def make_replayer(workflows: Iterable[Workflow[Any, Any]] | None = None) -> Replayer:
    """Temporal's own Replayer for these workflows; by default for all that are defined.

    `await make_replayer().replay_workflow(await handle.fetch_history())` raises when the
    code does not fit the history.
    """
    return Replayer(
        workflows=[Hosted],
        interceptors=[Hosts(Registry(workflows), LOST_AFTER_S)],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=CONVERTER,
    )
