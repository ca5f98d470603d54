"""What is asked of a Temporal server, one method a question. Runs are named by id and Temporal's run id.

Temporal's answers are given as they are; `rows.py` makes rows of them. What is not there is
None, or False; any other refusal is StoreUnavailable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from temporalio.api.common.v1 import Memo, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import (
    HistoryEventFilterType,
    UpdateWorkflowExecutionLifecycleStage,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.update.v1 import Input, Meta, Outcome, Request, WaitPolicy
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetSystemInfoRequest,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    ListWorkflowExecutionsRequest,
    ListWorkflowExecutionsResponse,
    RequestCancelWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
    UpdateWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ..core.records import NewRun
from .address import Address, unavailable
from .payloads import GENERATION, TAGS, Beginning, fit, json_payload

T = TypeVar("T")

_KEPT = 10_000
_CLOSE = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
_COMPLETED = UpdateWorkflowExecutionLifecycleStage.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED
_NO_MORE = RPCStatusCode.NOT_FOUND


class Cluster:
    """One namespace of a Temporal server, and the task queue of the URL."""

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.client = client
        self._service = client.workflow_service
        self._first: OrderedDict[str, HistoryEvent] = OrderedDict()
        self._last: OrderedDict[str, HistoryEvent] = OrderedDict()
        self._ids: OrderedDict[int, str] = OrderedDict()

    async def _call(self, call: Callable[..., Coroutine[Any, Any, T]], request: Any) -> T:
        try:
            return await call(request, retry=True)
        except RPCError as error:
            raise unavailable(self.address, error) from error

    async def _try(self, call: Callable[..., Coroutine[Any, Any, T]], request: Any) -> T | None:
        """The answer; None where there is no such run, or none that is open."""
        try:
            return await call(request, retry=True)
        except RPCError as error:
            if error.status == _NO_MORE:
                return None
            raise unavailable(self.address, error) from error

    # -- numbers ---------------------------------------------------------------------------------

    def number_of(self, workflow_id: str, run_id: str) -> int:
        """The number by which the rest of Perdure knows a run: Temporal's run id as one."""
        number = UUID(run_id).int
        keep(self._ids, number, workflow_id)
        return number

    async def place_of(self, number: int) -> tuple[str, str] | None:
        """Id and Temporal's run id of a number."""
        run_id = str(UUID(int=number))
        workflow_id = self._ids.get(number)
        if workflow_id is None:  # of another client, or long ago
            found = await self.list(f"RunId = '{run_id}'", size=1)
            if not found.executions:
                return None
            workflow_id = found.executions[0].execution.workflow_id
        return workflow_id, run_id

    # -- reading ---------------------------------------------------------------------------------

    async def describe(self, workflow_id: str, run_id: str = "") -> DescribeWorkflowExecutionResponse | None:
        """A run as it stands; without `run_id` the latest of its id."""
        request = DescribeWorkflowExecutionRequest(
            namespace=self.address.namespace, execution=_execution(workflow_id, run_id)
        )
        return await self._try(self._service.describe_workflow_execution, request)

    async def first_event(self, workflow_id: str, run_id: str) -> HistoryEvent:
        """How a run began."""
        event = self._first.get(run_id)
        if event is None:
            request = self._history(workflow_id, run_id)
            request.maximum_page_size = 1
            answer = await self._call(self._service.get_workflow_execution_history, request)
            event = answer.history.events[0]
            keep(self._first, run_id, event)
        return event

    async def last_event(self, workflow_id: str, run_id: str) -> HistoryEvent:
        """How a run ended; waits for its end."""
        event = self._last.get(run_id)
        request = self._history(workflow_id, run_id)
        request.history_event_filter_type = _CLOSE
        request.wait_new_event = True
        while event is None:
            # Temporal answers with nothing when it has waited for a while.
            answer = await self._call(self._service.get_workflow_execution_history, request)
            request.next_page_token = answer.next_page_token
            if answer.history.events:
                event = answer.history.events[-1]
                keep(self._last, run_id, event)
        return event

    async def events(self, workflow_id: str, run_id: str) -> list[HistoryEvent]:
        """The whole history."""
        request = self._history(workflow_id, run_id)
        events: list[HistoryEvent] = []
        while True:
            answer = await self._call(self._service.get_workflow_execution_history, request)
            events.extend(answer.history.events)
            if not answer.next_page_token:
                return events
            request.next_page_token = answer.next_page_token

    async def events_backwards(self, workflow_id: str, run_id: str) -> AsyncIterator[HistoryEvent]:
        """The history, the latest first, a page at a time."""
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self.address.namespace, execution=_execution(workflow_id, run_id), maximum_page_size=100
        )
        while True:
            answer = await self._call(self._service.get_workflow_execution_history_reverse, request)
            for event in answer.history.events:
                yield event
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token

    def _history(self, workflow_id: str, run_id: str) -> GetWorkflowExecutionHistoryRequest:
        return GetWorkflowExecutionHistoryRequest(
            namespace=self.address.namespace, execution=_execution(workflow_id, run_id)
        )

    async def list(self, query: str, *, size: int, token: bytes = b"") -> ListWorkflowExecutionsResponse:
        """A page of runs."""
        request = ListWorkflowExecutionsRequest(
            namespace=self.address.namespace, page_size=size, next_page_token=token, query=query
        )
        return await self._call(self._service.list_workflow_executions, request)

    async def count(self, query: str) -> int:
        """How many runs."""
        request = CountWorkflowExecutionsRequest(namespace=self.address.namespace, query=query)
        answer = await self._call(self._service.count_workflow_executions, request)
        return answer.count

    async def server_version(self) -> str:
        """The server's version."""
        answer = await self._call(self._service.get_system_info, GetSystemInfoRequest())
        return answer.server_version

    async def task_queue(self) -> DescribeTaskQueueResponse:
        """Who asks the task queue for work."""
        request = DescribeTaskQueueRequest(namespace=self.address.namespace, task_queue=self._queue())
        return await self._call(self._service.describe_task_queue, request)

    # -- writing ---------------------------------------------------------------------------------

    async def start(self, new: NewRun, beginning: Beginning, *, again: bool) -> str | None:
        """Start a run; give Temporal's run id, or None when the id is taken.

        `again`: also when a run that has ended had the id.
        """
        policy = WorkflowIdReusePolicy
        request = StartWorkflowExecutionRequest(
            namespace=self.address.namespace,
            workflow_id=new.id,
            workflow_type=WorkflowType(name=new.workflow),
            task_queue=self._queue(),
            input=_payloads(fit(new.input, f"{new.workflow}()"), msgspec.json.encode(beginning)),
            identity=self.client.identity,
            request_id=new.seed.hex(),  # the start's own: one that is sent again is the same start
            workflow_id_reuse_policy=policy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
            if again
            else policy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
            workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
            memo=_memo(new, beginning),
        )
        try:
            answer = await self._service.start_workflow_execution(request, retry=True)
        except RPCError as error:
            if error.status == RPCStatusCode.ALREADY_EXISTS:
                return None
            raise unavailable(self.address, error) from error
        return answer.run_id

    async def signal(self, place: tuple[str, str], name: str, payload: bytes, *, id: str) -> bool:
        """Send a signal; False: the run has ended. With an `id` it is taken once, and known later."""
        request = SignalWorkflowExecutionRequest(
            namespace=self.address.namespace,
            workflow_execution=_execution(*place),
            signal_name=name,
            input=_payloads(fit(payload, f"signal {name!r}")),
            identity=self.client.identity,
            request_id=id,
        )
        return await self._try(self._service.signal_workflow_execution, request) is not None

    async def cancel(self, place: tuple[str, str], reason: str) -> bool:
        """Ask a run to stop; False: it has ended."""
        request = RequestCancelWorkflowExecutionRequest(
            namespace=self.address.namespace,
            workflow_execution=_execution(*place),
            identity=self.client.identity,
            reason=reason,
        )
        return await self._try(self._service.request_cancel_workflow_execution, request) is not None

    async def terminate(self, place: tuple[str, str], reason: str) -> bool:
        """End a run; False: it has ended."""
        request = TerminateWorkflowExecutionRequest(
            namespace=self.address.namespace,
            workflow_execution=_execution(*place),
            identity=self.client.identity,
            reason=reason,
        )
        return await self._try(self._service.terminate_workflow_execution, request) is not None

    async def update(self, place: tuple[str, str], name: str, payload: bytes, *, id: str) -> Outcome | None:
        """Send an update and wait for its outcome; None: the run has ended."""
        request = UpdateWorkflowExecutionRequest(
            namespace=self.address.namespace,
            workflow_execution=_execution(*place),
            wait_policy=WaitPolicy(lifecycle_stage=_COMPLETED),
            request=Request(
                meta=Meta(update_id=id, identity=self.client.identity),
                input=Input(name=name, args=_payloads(fit(payload, f"update {name!r}"))),
            ),
        )
        while True:
            # Temporal answers with less when it has waited for a while; the id makes it one update.
            answer = await self._try(self._service.update_workflow_execution, request)
            if answer is None:
                return None
            if answer.outcome.WhichOneof("value") is not None:
                return answer.outcome

    def _queue(self) -> TaskQueue:
        return TaskQueue(name=self.address.task_queue)


def _execution(workflow_id: str, run_id: str) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=workflow_id, run_id=run_id)


def _payloads(*parts: bytes) -> Payloads:
    return Payloads(payloads=[json_payload(part) for part in parts])


def _memo(new: NewRun, beginning: Beginning) -> Memo:
    memo = Memo()
    if new.tags:
        memo.fields[TAGS].CopyFrom(json_payload(msgspec.json.encode(dict(new.tags))))
    if beginning.generation > 1:
        memo.fields[GENERATION].CopyFrom(json_payload(str(beginning.generation).encode()))
    return memo


def keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Remember something that can be asked for again, as long as there is room."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)
