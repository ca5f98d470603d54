"""The reads of a store, answered by a Temporal server.

What a client wants to know, it says as a function over a store, which asks one plain
question after another. A server answers later; so the function is called, and where it
asks for something that is not known yet, that is fetched, and it is called again. Such a
function only looks, and so it may be called as often as that takes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from ..core.records import Message, Record, RunRow, Status
from ..errors import PerdureError, StoreUnavailable
from ..stores.base import AttemptRow, JobStand, RunQuery, StateRow, Store, WorkerRow
from .cluster import Cluster, keep
from .rows import (
    TEMPORALS_WORD,
    History,
    continued_by,
    failure_of,
    generation_of,
    input_of,
    listed_row,
    output_of,
    pending_attempts,
    states_of,
    tags_of,
    to_ms,
)

T = TypeVar("T")

_PAGE = 200
_STUCK_AFTER = 2
"""A workflow task that is tried for the second time has failed once: its code may break a law."""


class Reads:
    """What a store can be asked, as coroutines."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pages: dict[int, tuple[bytes, int]] = {}
        """Where in Temporal's pages the last row of a listing stood."""
        self._following: OrderedDict[tuple[str, int], str] = OrderedDict()
        """Temporal's run ids of generations that follow one that was read."""

    # -- runs ------------------------------------------------------------------------------------

    async def run_by_id(self, run_id: str, *, generation: int | None = None) -> RunRow | None:
        """The latest run of an id, or that generation of it."""
        following = self._following.get((run_id, generation or 0), "")
        described = await self._cluster.describe(run_id, following)
        if described is None:
            return None
        if generation is None or generation_of(described.workflow_execution_info) == generation:
            return await self.row(described)
        found = await self._cluster.list(f"WorkflowId = {_quoted(run_id)}", size=_PAGE)
        for info in found.executions:
            if generation_of(info) == generation:
                described = await self._cluster.describe(run_id, info.execution.run_id)
                return None if described is None else await self.row(described)
        return None

    async def run_by_number(self, number: int) -> RunRow | None:
        """One run."""
        described = await self._described(number)
        return None if described is None else await self.row(described)

    async def _described(self, number: int) -> DescribeWorkflowExecutionResponse | None:
        place = await self._cluster.place_of(number)
        return None if place is None else await self._cluster.describe(*place)

    async def row(self, described: DescribeWorkflowExecutionResponse) -> RunRow:
        """A run with all that its row holds."""
        cluster, info = self._cluster, described.workflow_execution_info
        place = (info.execution.workflow_id, info.execution.run_id)
        row = listed_row(info, cluster.number_of(*place))
        first = await cluster.first_event(*place)
        data, beginning = input_of(first)
        above = first.workflow_execution_started_event_attributes.parent_workflow_execution
        deadline_ms = beginning.deadline_ms
        if beginning.timeout_ms is not None:
            deadline_ms = row.created_at_ms + beginning.timeout_ms
        row = row._replace(
            input=data,
            deadline_ms=deadline_ms,
            parent=cluster.number_of(above.workflow_id, above.run_id) if above.run_id else None,
            parent_key=beginning.parent_key,
            on_parent_close=beginning.on_parent_close,
        )
        if not Status(row.status).is_open:
            return row._replace(output=await self._output(place, row))
        if row.status == Status.PARKED and not described.HasField("pending_workflow_task"):
            return row
        task = described.pending_workflow_task
        failure = await self._stuck(place) if task.attempt >= _STUCK_AFTER else None
        if failure is not None:
            return row._replace(status=Status.PARKED, output=failure)
        busy = bool(described.pending_activities) or described.HasField("pending_workflow_task")
        return row._replace(status=Status.RUNNING, output=None, wake_at_ms=0 if busy else None)

    async def _output(self, place: tuple[str, str], row: RunRow) -> bytes | None:
        reason = ""
        if row.status == Status.CANCELLED:
            async for event in self._cluster.events_backwards(*place):
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                    reason = event.workflow_execution_cancel_requested_event_attributes.cause
                    break
        last = await self._cluster.last_event(*place)
        following = continued_by(last)
        if following:
            keep(self._following, (row.id, row.generation + 1), following)
        return output_of(last, row.id, reason=reason)

    async def _stuck(self, place: tuple[str, str]) -> bytes | None:
        """Why a run's workflow task fails again and again, if its code is why."""
        async for event in self._cluster.events_backwards(*place):
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                failure = event.workflow_task_failed_event_attributes.failure
                unknown = failure.application_failure_info.type == "WorkflowNotRegistered"
                return None if unknown else failure_of(failure)
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                return None
        return None

    async def list_runs(self, query: RunQuery) -> list[RunRow]:
        """Runs of the task queue in Temporal's order: open ones first, then the latest to end."""
        token, skip = b"", 0
        if query.before is not None:
            if query.before not in self._pages:
                raise PerdureError(
                    "A page of Temporal's list is only known to the client that read the one before."
                )
            token, skip = self._pages[query.before]
        text = self._question(query)
        rows: list[RunRow] = []
        seen: set[str] = set()
        while True:
            page = await self._cluster.list(text, size=_PAGE, token=token)
            for place, info in enumerate(page.executions):
                if place < skip:
                    continue
                row = listed_row(
                    info, self._cluster.number_of(info.execution.workflow_id, info.execution.run_id)
                )
                tags = tags_of(info)
                if all(tags.get(key) == value for key, value in query.tags) and _is_wanted(row, query, seen):
                    rows.append(row)
                    seen.add(row.id)
                    if len(rows) == query.limit:
                        self._pages[row.number] = (token, place + 1)
                        return rows
            token, skip = page.next_page_token, 0
            if not token:
                return rows

    def _question(self, query: RunQuery) -> str:
        parts = [f"TaskQueue = {_quoted(self._cluster.address.task_queue)}"]
        if query.workflow is not None:
            parts.append(f"WorkflowType = {_quoted(query.workflow)}")
        if query.id_prefix:
            parts.append(f"WorkflowId STARTS_WITH {_quoted(query.id_prefix)}")
        if query.created_after_ms is not None:
            parts.append(f"StartTime >= '{_iso(query.created_after_ms)}'")
        if query.created_before_ms is not None:
            parts.append(f"StartTime < '{_iso(query.created_before_ms)}'")
        if query.statuses:
            words = {TEMPORALS_WORD[Status(status)] for status in query.statuses}
            if "TimedOut" in words or "Canceled" in words:
                words.add("Failed")  # what Temporal has no word for, a run says itself as it fails
            parts.append("(" + " OR ".join(f"ExecutionStatus = '{word}'" for word in sorted(words)) + ")")
        elif not query.all_generations:
            parts.append("ExecutionStatus != 'ContinuedAsNew'")
        return " AND ".join(parts)

    async def counts(self) -> dict[int, int]:
        """How many runs of the task queue have each status. Parked ones are among the running."""
        queue = f"TaskQueue = {_quoted(self._cluster.address.task_queue)}"
        statuses = [status for status in Status if status not in (Status.PARKED, Status.CONTINUED)]
        counted = await asyncio.gather(
            *(
                self._cluster.count(f"{queue} AND ExecutionStatus = '{TEMPORALS_WORD[status]}'")
                for status in statuses
            )
        )
        return {int(status): count for status, count in zip(statuses, counted, strict=True) if count}

    async def tags_of(self, runs: Sequence[int]) -> dict[int, dict[str, str]]:
        """The tags of runs."""
        described = await asyncio.gather(*map(self._described, runs))
        return {
            number: tags
            for number, one in zip(runs, described, strict=True)
            if one is not None and (tags := tags_of(one.workflow_execution_info))
        }

    # -- what a run holds ------------------------------------------------------------------------

    async def states(self, run: int) -> dict[str, StateRow]:
        """What a run has published."""
        described = await self._described(run)
        return {} if described is None else states_of(described.workflow_execution_info, run)

    async def history(self, run: int) -> History:
        """A run's whole history."""
        place = await self._cluster.place_of(run)
        return History(run, [] if place is None else await self._cluster.events(*place))

    async def records(self, run: int) -> list[Record]:
        """The journal that a store would have."""
        return (await self.history(run)).records

    async def attempts(self, run: int) -> list[AttemptRow]:
        """Of steps that are done the last failed attempt, of those under way all."""
        described = await self._described(run)
        pending = [] if described is None else pending_attempts(run, described.pending_activities)
        return sorted([*(await self.history(run)).attempts, *pending], key=lambda row: (row.key, row.number))

    async def children(self, run: int) -> list[RunRow]:
        """The children of a run."""
        rows: list[RunRow] = []
        for key, child_id, child_run_id, _ in (await self.history(run)).children:
            described = await self._cluster.describe(child_id, child_run_id)
            if described is not None:
                info = described.workflow_execution_info
                rows.append(
                    listed_row(info, self._cluster.number_of(child_id, child_run_id))._replace(parent_key=key)
                )
        return rows

    async def messages_for(self, run: int) -> list[Message]:
        """None: Temporal has taken them into the history when it has them at all."""
        return []

    async def jobs(self, run: int) -> list[JobStand]:
        """None: what waits in a task queue, Temporal's own tools say."""
        return []

    async def waiting_jobs(self) -> dict[str, int]:
        """The same."""
        return {}

    # -- the cluster -----------------------------------------------------------------------------

    async def workers(self, *, now_ms: int) -> list[WorkerRow]:
        """Who has asked the task queue for work in the last minutes."""
        queue = await self._cluster.task_queue()
        return [
            WorkerRow(0, poller.identity, 0, to_ms(poller.last_access_time), now_ms)
            for poller in queue.pollers
        ]

    async def check(self) -> list[str]:
        """Nothing: what is wrong with a cluster, its own tools say."""
        return []

    async def versions(self) -> dict[str, str]:
        """What `doctor` prints."""
        address = self._cluster.address
        return {
            "Temporal server": await self._cluster.server_version(),
            "address": address.target,
            "namespace": address.namespace,
            "task queue": address.task_queue,
        }


class _Wanted(BaseException):
    """A look asked for what is not known yet. A BaseException: looks catch errors of a store."""

    def __init__(self, question: tuple[str, str], fetch: Callable[[], Any]) -> None:
        self.question = question
        self.fetch = fetch


class _Known:
    """Stands for the store in one look: answers from what has been fetched."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.answers: dict[tuple[str, str], Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        read = getattr(self._reads, name, None)
        if read is None:
            raise StoreUnavailable(
                f"A Temporal cluster is no store that has {name!r}.", hint="Use Temporal's own tools for it."
            )
        return lambda *args, **kwargs: self._answer(name, read, args, kwargs)

    def _answer(self, name: str, read: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        question = (name, repr((args, kwargs)))
        if question not in self.answers:
            raise _Wanted(question, lambda: read(*args, **kwargs))
        return self.answers[question]


async def look_at(reads: Reads, look: Callable[[Store], T]) -> T:
    """What a look sees: it is called again and again, until all that it asks for is known."""
    known = _Known(reads)
    while True:
        try:
            # It has what looks ask a store for, and refuses the rest by name.
            return look(cast(Store, known))
        except _Wanted as wanted:
            known.answers[wanted.question] = await wanted.fetch()


def _is_wanted(row: RunRow, query: RunQuery, seen: set[str]) -> bool:
    if query.statuses and row.status not in query.statuses:
        return False
    return query.all_generations or row.id not in seen


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
