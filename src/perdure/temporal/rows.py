"""Temporal's answers as the rows that the rest of Perdure knows: runs, records, attempts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType, WorkflowExecutionStatus
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo

from .. import errors
from ..codec.failures import encode_failure
from ..core.records import Kind, Record, RunRow, Status
from ..errors import ForeignError, RunCancelled, RunTerminated, RunTimedOut
from ..stores.base import AttemptRow, StateRow
from .payloads import ENDED, GENERATION, PARKED, TAGS, Beats, Beginning, Ended, key_of, state_marks

_STATUS = {
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED: Status.COMPLETED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED: Status.FAILED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CANCELED: Status.CANCELLED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED: Status.TERMINATED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: Status.CONTINUED,
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: Status.TIMED_OUT,
}
TEMPORALS_WORD = {
    Status.RUNNING: "Running",
    Status.PARKED: "Running",
    Status.COMPLETED: "Completed",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.CONTINUED: "ContinuedAsNew",
    Status.TIMED_OUT: "TimedOut",
}
"""What a query calls each status."""


def to_ms(when: Timestamp) -> int:
    """A time of Temporal's in Unix milliseconds."""
    return when.seconds * 1000 + when.nanos // 1_000_000


def ended_of(info: WorkflowExecutionInfo) -> Ended | None:
    """What a run that ended badly left in its memo."""
    payload = info.memo.fields.get(ENDED)
    return None if payload is None else msgspec.json.decode(payload.data, type=Ended)


def status_of(info: WorkflowExecutionInfo) -> Status:
    """Where a run stands; of one whose workflow task fails this does not tell."""
    status = _STATUS.get(info.status, Status.RUNNING)
    if status is Status.RUNNING and _parked_failure(info) is not None:
        return Status.PARKED
    ended = ended_of(info)
    if status is Status.FAILED and ended is not None:
        return next((one for one in Status if one.word == ended.status), status)
    return status


def _parked_failure(info: WorkflowExecutionInfo) -> bytes | None:
    payload = info.memo.fields.get(PARKED)
    # Temporal keeps the name of what was taken out of a memo, with nothing under it.
    return None if payload is None or payload.data in (b"", b"null") else payload.data


def generation_of(info: WorkflowExecutionInfo) -> int:
    """The run's generation."""
    payload = info.memo.fields.get(GENERATION)
    return 1 if payload is None else int(payload.data)


def tags_of(info: WorkflowExecutionInfo) -> dict[str, str]:
    """The run's tags."""
    payload = info.memo.fields.get(TAGS)
    return {} if payload is None else msgspec.json.decode(payload.data, type=dict[str, str])


def states_of(info: WorkflowExecutionInfo, number: int) -> dict[str, StateRow]:
    """What the run has published."""
    found: dict[str, StateRow] = {}
    for name, payload in info.memo.fields.items():
        version, at_ms = state_marks(payload.metadata)
        if version:
            found[name] = StateRow(number, name, version, payload.data, at_ms)
    return found


def listed_row(info: WorkflowExecutionInfo, number: int) -> RunRow:
    """A run as a list has it: without its input, and of its failure only the name and message."""
    status = status_of(info)
    ended = ended_of(info)
    output = _parked_failure(info) if status is Status.PARKED else None
    if ended is not None:
        name, _, message = ended.error.partition(": ")
        output = msgspec.json.encode({"type": f":{name}", "message": message})
    return RunRow(
        number=number,
        id=info.execution.workflow_id,
        generation=generation_of(info),
        workflow=info.type.name,
        status=status,
        input=b"{}",
        output=output,
        seed=b"",
        wake_at_ms=None,
        crashes=0,
        deadline_ms=None,
        parent=None,
        parent_key="",
        on_parent_close="cancel",
        created_at_ms=to_ms(info.start_time),
        ended_at_ms=to_ms(info.close_time) if info.HasField("close_time") else None,
        python="",
    )


def input_of(first: HistoryEvent) -> tuple[bytes, Beginning]:
    """A run's arguments, and what it knew from its first moment."""
    data = _parts(first.workflow_execution_started_event_attributes.input)
    return data[0] if data else b"{}", _beginning(data)


def _beginning(data: Sequence[bytes]) -> Beginning:
    try:
        return msgspec.json.decode(data[1], type=Beginning) if len(data) > 1 else Beginning()
    except msgspec.DecodeError:  # started by somebody who gives it two arguments
        return Beginning()


def output_of(last: HistoryEvent, run_id: str, *, reason: str) -> bytes | None:
    """A run's result or failure. `reason`: why it was asked to stop, if it was."""
    match last.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            data = _parts(last.workflow_execution_completed_event_attributes.result)
            return data[0] if data else b"null"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            return failure_of(last.workflow_execution_failed_event_attributes.failure)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
            error: Exception = RunCancelled(_ended(run_id, "was cancelled", reason), run_id=run_id)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            why = last.workflow_execution_terminated_event_attributes.reason
            error = RunTerminated(_ended(run_id, "was terminated", why), run_id=run_id)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            error = RunTimedOut(_ended(run_id, "took longer than Temporal lets it", ""), run_id=run_id)
        case _:
            return None
    return encode_failure(error)


def _ended(run_id: str, how: str, reason: str) -> str:
    return f"Run {run_id!r} {how}{f': {reason}' if reason else ''}."


def failure_of(failure: Failure) -> bytes:
    """A failure in our own form; of one that is not ours, name and message."""
    data = _parts(failure.application_failure_info.details)
    if data:
        try:
            msgspec.json.decode(data[0], type=dict[str, Any])["type"]
        except (msgspec.DecodeError, KeyError):
            pass
        else:
            return data[0]
    name = failure.application_failure_info.type
    kind = getattr(errors, "JournalMismatch", None) if "[TMPRL1100]" in failure.message else None
    if kind is not None:
        return encode_failure(kind(failure.message, run_id=""))
    return encode_failure(ForeignError(name or "Temporal", failure.message))


def continued_by(last: HistoryEvent) -> str:
    """Temporal's run id of the generation that goes on; empty for a run that did not continue as new."""
    return last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id


def _parts(payloads: Payloads) -> list[bytes]:
    return [payload.data for payload in payloads.payloads]


# -- a history as a journal --------------------------------------------------------------------------


class History:
    """What a history tells of a run, as the records and attempts that a store would have."""

    def __init__(self, number: int, events: Iterable[HistoryEvent]) -> None:
        self.number = number
        self.records: list[Record] = []
        self.attempts: list[AttemptRow] = []
        self.children: list[tuple[str, str, str, str]] = []
        """Key, id, Temporal's run id and workflow of each."""
        self._keys: dict[int, str] = {}
        self._tries: dict[int, int] = {}
        for event in events:
            self._read(event)

    def _add(self, event: HistoryEvent, kind: Kind, key: str, payload: bytes | None) -> None:
        at_ms = to_ms(event.event_time)
        self.records.append(Record(len(self.records), kind, key, 0, at_ms, payload, self.number))

    def _read(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                asked = event.activity_task_scheduled_event_attributes
                self._keys[event.event_id] = key_of(asked.activity_id)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                self._read_started(event)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                self._add(event, Kind.STEP, self._keys[done.scheduled_event_id], _first(done.result))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                key = self._keys[failed.scheduled_event_id]
                self._add(event, Kind.STEP_FAILED, key, failure_of(failed.failure))
            case EventType.EVENT_TYPE_TIMER_FIRED:
                self._add(event, Kind.TICK, "", None)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                self._read_signal(event)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                request = event.workflow_execution_update_accepted_event_attributes.accepted_request
                key = f"{request.input.name}/{request.meta.update_id}"
                self._add(event, Kind.UPDATE, key, _first(request.input.args))
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                cause = event.workflow_execution_cancel_requested_event_attributes.cause
                self._add(event, Kind.CANCEL, "cancel", cause.encode())
            case EventType.EVENT_TYPE_MARKER_RECORDED:
                self._read_marker(event)
            case _:
                self._read_child(event)

    def _read_started(self, event: HistoryEvent) -> None:
        started = event.activity_task_started_event_attributes
        if started.attempt > 1:
            at_ms = to_ms(event.event_time)
            failure = failure_of(started.last_failure)
            key = self._keys[started.scheduled_event_id]
            self.attempts.append(AttemptRow(self.number, key, started.attempt - 1, failure, None, at_ms))

    def _read_signal(self, event: HistoryEvent) -> None:
        signal = event.workflow_execution_signaled_event_attributes
        data = _parts(signal.input)
        self._add(event, Kind.SIGNAL, signal.signal_name, data[0] if data else b"null")

    def _read_marker(self, event: HistoryEvent) -> None:
        marker = event.marker_recorded_event_attributes
        if marker.marker_name == "core_patch":
            data = _parts(marker.details.get("patch-data", Payloads()))
            name = msgspec.json.decode(data[0]).get("id", "") if data else ""
            self._add(event, Kind.PATCH, name, None)

    def _read_child(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
                asked = event.start_child_workflow_execution_initiated_event_attributes
                self._keys[event.event_id] = _beginning(_parts(asked.input)).parent_key
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
                began = event.child_workflow_execution_started_event_attributes
                place, kind = began.workflow_execution, began.workflow_type.name
                key = self._keys[began.initiated_event_id]
                self.children.append((key, place.workflow_id, place.run_id, kind))
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
                done = event.child_workflow_execution_completed_event_attributes
                self._add(event, Kind.CHILD, self._keys[done.initiated_event_id], _first(done.result))
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED:
                failed = event.child_workflow_execution_failed_event_attributes
                key = self._keys[failed.initiated_event_id]
                self._add(event, Kind.CHILD_FAILED, key, failure_of(failed.failure))
            case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED:
                cancelled = event.child_workflow_execution_canceled_event_attributes
                error = RunCancelled(
                    "The child was cancelled.", run_id=cancelled.workflow_execution.workflow_id
                )
                key = self._keys[cancelled.initiated_event_id]
                self._add(event, Kind.CHILD_FAILED, key, encode_failure(error))
            case _:
                pass


def _first(payloads: Payloads) -> bytes:
    return payloads.payloads[0].data if payloads.payloads else b"null"


def pending_attempts(number: int, pending: Iterable[PendingActivityInfo]) -> list[AttemptRow]:
    """The attempts of steps that are under way."""
    rows: list[AttemptRow] = []
    for activity in pending:
        data = _parts(activity.heartbeat_details)
        beats = msgspec.json.decode(data[0], type=Beats) if data else Beats()
        key = key_of(activity.activity_id)
        for at, error, at_ms in beats.failed:
            name, _, message = error.partition(": ")
            failure = msgspec.json.encode({"type": f":{name}", "message": message})
            rows.append(AttemptRow(number, key, at, failure, None, at_ms))
        said = bytes(beats.said)
        if said != b"null":
            at_ms = to_ms(activity.last_heartbeat_time)
            current = len(beats.failed) + 1
            rows.append(AttemptRow(number, key, current, None, said, at_ms))
    return rows
