"""What is Temporal's own: its names and tools, its limits, code that does not fit, and what is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHistory

from perdure import (
    BoundaryError,
    Client,
    Engine,
    JournalMismatch,
    PayloadTooLarge,
    PerdureError,
    RunParked,
    Signal,
    State,
    StoreError,
    StoreUnavailable,
    now,
    patched,
    random,
    step,
    step_info,
    uuid,
    workflow,
)
from perdure.blocks.workflow import Workflow
from perdure.runtime.clock import SystemClock
from perdure.stores.opening import open_store
from perdure.temporal.address import connect, read_address
from perdure.temporal.workflows import make_replayer
from perdure.testing.source import SeededSource

go = Signal[str]("go")
stage = State[str]("stage")


@step
async def charge(cents: int) -> int:
    return cents


@workflow
async def pay_order(cents: int, note: str = "") -> str:
    stage.set("charging")
    charged = await charge(cents)
    await asyncio.sleep(0.01)
    return f"{charged} {note or await go.receive()}"


async def temporal_of(url: str) -> TemporalClient:
    return await connect(read_address(url))


async def history_of(url: str, run_id: str) -> WorkflowHistory:
    return await (await temporal_of(url)).get_workflow_handle(run_id).fetch_history()


def names(history: WorkflowHistory) -> list[str]:
    return [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events]


# -- what Temporal's own tools see ------------------------------------------------------------------


async def test_workflows_and_activities_have_our_names_and_plain_json(temporal_url: str) -> None:
    run_id = uuid4().hex
    async with Engine(temporal_url) as engine:
        await engine.run(pay_order(4200, "paid"), id=run_id)

    history = await history_of(temporal_url, run_id)
    started = history.events[0].workflow_execution_started_event_attributes
    scheduled = next(
        event.activity_task_scheduled_event_attributes
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    )
    assert started.workflow_type.name == "pay_order"
    assert started.input.payloads[0].data == b'{"cents":4200,"note":"paid"}'
    assert (scheduled.activity_type.name, scheduled.activity_id) == ("charge", "0/0/charge")
    assert scheduled.input.payloads[0].data == b"[4200]"
    assert scheduled.input.payloads[0].metadata["encoding"] == b"json/plain"


async def test_a_workflow_that_temporals_own_client_starts_is_a_run(temporal_url: str) -> None:
    address, run_id = read_address(temporal_url), uuid4().hex
    plain = await TemporalClient.connect(address.target)
    async with Engine(temporal_url) as engine:
        handle = await plain.start_workflow(
            "pay_order", {"cents": 7}, id=run_id, task_queue=address.task_queue, result_type=str
        )
        await handle.signal("go", "said so")

        assert await handle.result() == "7 said so"
        assert await (await engine.get(run_id, pay_order)).result() == "7 said so"


async def test_a_timeout_that_does_not_fire_costs_one_timer(temporal_url: str) -> None:
    run_id = uuid4().hex
    async with Engine(temporal_url) as engine:
        await engine.run(guarded(), id=run_id)

    told = names(await history_of(temporal_url, run_id))
    assert told.count("TIMER_STARTED") == told.count("TIMER_CANCELED") == 1


@workflow
async def guarded() -> int:
    async with asyncio.timeout(3_600):
        total = sum([await charge(number) for number in range(5)])
    return total + await charge(1)


async def test_temporals_stack_trace_shows_where_the_code_waits(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(pay_order(1))
        await first_step(temporal_url, run.id)
        handle = (await temporal_of(temporal_url)).get_workflow_handle(run.id)
        trace = json.loads(await handle.query("__stack_trace"))
        await run.send(go, "on")
        await run.result()

    assert "Task 0\n" in trace
    assert ", in pay_order" in trace


async def test_a_workflow_that_is_reset_asks_for_its_steps_with_the_same_keys(temporal_url: str) -> None:
    run_id = uuid4().hex
    async with Engine(temporal_url) as engine:
        before = await engine.run(two_keys(), id=run_id)
        address = read_address(temporal_url)
        await (await temporal_of(temporal_url)).workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=address.namespace,
                workflow_execution=WorkflowExecution(workflow_id=run_id),
                workflow_task_finish_event_id=4,
                request_id=uuid4().hex,
            )
        )
        again = await engine.get(run_id, two_keys)

        assert await again.result() == before
        assert len({*before}) == 2
    assert len(keys_seen) == 4


keys_seen: list[str] = []


@step
async def key() -> str:
    keys_seen.append(step_info().idempotency_key)
    return keys_seen[-1]


@workflow
async def two_keys() -> list[str]:
    return [await key(), await key()]


async def test_a_run_that_is_replayed_at_every_turn_draws_what_it_drew(temporal_url: str) -> None:
    async with Engine(temporal_url, residents_kept=0) as engine:
        run = await engine.start(draws())

        assert await run.result() == await run.state(stage)


@workflow
async def draws() -> str:
    first = f"{uuid()} {random().random()} {now().isoformat()}"
    stage.set(first)
    await charge(1)
    await asyncio.sleep(0.01)
    await charge(2)
    return first


# -- code that does not fit -------------------------------------------------------------------------


def version_with(read_a_file: bool) -> Workflow[[], str]:
    @workflow(name="deployed")
    async def deployed() -> str:
        await charge(1)
        if read_a_file:
            open(__file__).close()  # noqa: ASYNC230 (it is refused)
        return await go.receive()

    return deployed


async def test_code_that_breaks_a_law_parks_its_run_until_it_is_put_right(temporal_url: str) -> None:
    bad = version_with(read_a_file=True)
    async with Engine(temporal_url, workflows=[bad]) as engine:
        run = await engine.start(bad())
        with pytest.raises(RunParked, match="was about to open a file") as caught:
            await run.result()
        assert isinstance(caught.value.__cause__, BoundaryError)

    good = version_with(read_a_file=False)
    async with Engine(temporal_url, workflows=[good]) as engine:
        again = await engine.get(run.id, good)
        await again.send(go, "right")
        while True:
            with suppress(RunParked):  # until Temporal tries again
                assert await again.result() == "right"
                return


def version_of(number: int) -> Workflow[[], list[int]]:
    @workflow(name="grown")
    async def grown() -> list[int]:
        done = [await charge(1)]
        if (number == 2 and patched("two")) or number == 3:
            done.append(await charge(2))
        await go.receive()
        return [*done, await charge(9)]

    return grown


async def test_a_run_goes_by_the_code_that_it_began_with(temporal_url: str) -> None:
    old = version_of(1)
    async with Engine(temporal_url, workflows=[old]) as engine:
        run = await engine.start(old())
        await first_step(temporal_url, run.id)

    new = version_of(2)
    async with Engine(temporal_url, workflows=[new]) as engine:
        before = await engine.get(run.id, new)
        after = await engine.start(new())
        for one in (before, after):
            await one.send(go, "")

        assert await before.result() == [1, 9]
        assert await after.result() == [1, 2, 9]
    for one in (before, after):
        await make_replayer([new]).replay_workflow(await history_of(temporal_url, one.id))


async def test_temporals_replayer_finds_code_that_does_not_fit(temporal_url: str) -> None:
    old = version_of(1)
    async with Engine(temporal_url, workflows=[old]) as engine:
        run = await engine.start(old())
        await first_step(temporal_url, run.id)
        await run.send(go, "")
        await run.result()

    with pytest.raises(Exception, match="TMPRL1100"):
        await make_replayer([version_of(3)]).replay_workflow(await history_of(temporal_url, run.id))


async def test_a_run_whose_code_has_changed_is_parked(temporal_url: str) -> None:
    old = asking_first(charges=True)
    async with Engine(temporal_url, workflows=[old]) as engine:
        run = await engine.start(old())
        await first_step(temporal_url, run.id)

    changed = asking_first(charges=False)
    async with Engine(temporal_url, workflows=[changed]) as engine:
        again = await engine.get(run.id, changed)
        await again.send(go, "")
        with pytest.raises(RunParked) as caught:
            await again.result()
        assert isinstance(caught.value.__cause__, JournalMismatch)
        await again.terminate()


def asking_first(charges: bool) -> Workflow[[], str]:
    @workflow(name="asking")
    async def asking() -> str:
        await (charge(1) if charges else measure("1"))
        return await go.receive()

    return asking


async def first_step(url: str, run_id: str) -> None:
    await event_after(url, run_id, "ACTIVITY_TASK_COMPLETED")


async def event_after(url: str, run_id: str, name: str) -> None:
    """Until the workflow has taken in the event of this name."""
    while True:
        told = names(await history_of(url, run_id))
        if name in told and "WORKFLOW_TASK_COMPLETED" in told[told.index(name) :]:
            return


async def test_a_run_of_a_workflow_that_the_worker_does_not_know_waits_for_one_that_does(
    temporal_url: str,
) -> None:
    async with Client(temporal_url) as client:
        run = await client.start(pay_order(1, "known"))
        async with Engine(temporal_url, workflows=[guarded]):
            await event_named(temporal_url, run.id, "WORKFLOW_TASK_FAILED")
        async with Engine(temporal_url, workflows=[pay_order]):
            assert await run.result() == "1 known"


async def event_named(url: str, run_id: str, name: str) -> None:
    while name not in names(await history_of(url, run_id)):
        pass


# -- limits and refusals ----------------------------------------------------------------------------


@step
async def measure(text: str) -> int:
    return len(text)


@step
async def make(size: int) -> str:
    return "x" * size


@workflow
async def too_large(what: str) -> str:
    size = 3 * 1024 * 1024
    try:
        if what == "argument":
            await measure("x" * size)
        elif what == "result":
            await make(size)
        else:
            stage.set("x" * size)
    except PayloadTooLarge as error:
        return error.path
    return "taken"


@pytest.mark.parametrize(
    ("what", "path"),
    [("argument", "measure("), ("result", "result of make()"), ("state", "state 'stage'")],
)
async def test_what_is_too_large_for_temporal_is_refused_by_name(
    temporal_url: str, what: str, path: str
) -> None:
    async with Engine(temporal_url) as engine:
        assert (await engine.run(too_large(what))).startswith(path)


@workflow
async def takes_our_name() -> str:
    try:
        State[str]("perdure.tags").set("mine")
    except BoundaryError as error:
        return str(error)
    return "taken"


async def test_a_state_may_not_have_a_name_of_ours(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        assert "a name that is Perdure's own" in await engine.run(takes_our_name())


@step(transaction=True)
def in_the_store() -> None:
    raise AssertionError("it is never called")


@workflow
async def needs_a_database() -> None:
    await in_the_store()


async def test_a_step_in_the_stores_own_transaction_is_refused_by_name(temporal_url: str) -> None:
    async with Engine(temporal_url) as engine:
        run = await engine.start(needs_a_database())
        with pytest.raises(RunParked, match="'in_the_store', which has transaction=True"):
            await run.result()
        await run.terminate()


def test_what_needs_a_journal_is_refused_by_name() -> None:
    with pytest.raises(StoreUnavailable, match="A Temporal cluster is no store"):
        open_store("temporal://127.0.0.1")


async def test_a_clock_and_chance_of_a_tests_own_are_refused(temporal_url: str) -> None:
    with pytest.raises(PerdureError, match="its own time"):
        async with Engine(temporal_url, clock=SystemClock()):
            pass
    with pytest.raises(PerdureError, match="its own time and chance"):
        async with Engine(temporal_url, source=SeededSource(1)):
            pass


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("temporal://", "it names no host"),
        ("temporal://host:port/", "Port could not be cast"),
        ("temporal://ann:secret@host", "no place for a password"),
        ("temporal://host/one/two", "is no namespace"),
        ("temporal://host/?queue=shop", "no option 'queue'"),
        ("temporal://host/?task_queue=", "task_queue is empty"),
        ("temporal://host/?lost_after=soon", "must be 1 to 3600 seconds"),
    ],
)
async def test_a_url_that_is_no_good_says_why(url: str, why: str) -> None:
    with pytest.raises(StoreUnavailable, match=why):
        async with Client(url):
            pass


def test_what_a_url_leaves_out_has_a_default() -> None:
    address = read_address("temporal://cluster.example")

    assert (address.target, address.namespace, address.task_queue) == (
        "cluster.example:7233",
        "default",
        "perdure",
    )
    assert read_address("temporal://[::1]:99/a%20b").target == "[::1]:99"


async def test_no_server_and_no_namespace_are_said(temporal_server: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"No Temporal server answers at 127\.0\.0\.1:1:"):
        async with Engine("temporal://127.0.0.1:1"):
            pass
    with pytest.raises(StoreUnavailable, match="has no namespace 'nowhere'"):
        async with Engine(f"temporal://{temporal_server}/nowhere"):
            pass


async def test_without_the_package_the_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "temporalio", None)

    with pytest.raises(StoreUnavailable, match=r"pip install 'perdure\[temporal\]'"):
        async with Client("temporal://127.0.0.1"):
            pass


async def test_a_run_cannot_be_started_in_a_transaction(temporal_url: str) -> None:
    async with Client(temporal_url) as client:
        with pytest.raises(StoreError, match="in no database"):
            await client.start(needs_a_database(), connection=object())
