"""Children, cancels, time limits and new generations are explored as an engine would carry them out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ConflictError,
    NonRetryable,
    Retry,
    RunCancelled,
    RunStatus,
    RunTimedOut,
    Signal,
    StepFailed,
    Workflow,
    WorkflowCall,
    continue_as_new,
    start_child,
    step,
    workflow,
)
from perdure.codec.failures import describe_failure
from perdure.core.records import Kind, Record
from perdure.testing import Harness
from perdure.testing.events import Cancel, Send
from perdure.testing.explore import Explored, ScheduleFailed, explore

go = Signal[str]("go")


@step
async def charge(cents: int) -> int:
    return cents


@step
async def refund(cents: int) -> int:
    return -cents


@workflow
async def pay(cents: int) -> int:
    return await charge(cents)


@workflow
async def pay_twice() -> int:
    return sum(await asyncio.gather(pay(1), pay(2)))


@workflow
async def pay_apart() -> int:
    child = await start_child(pay(7))
    return await child


@workflow
async def pay_and_forget() -> str:
    await start_child(pay(7))
    return "forgotten"


@workflow
async def pay_and_leave() -> str:
    await start_child(pay(7), on_parent_close="abandon")
    return "left"


async def schedules_of(call: WorkflowCall[Any], **options: Any) -> dict[tuple[str, ...], Explored[Any, Any]]:
    seen: dict[tuple[str, ...], Explored[Any, Any]] = {}

    def note(explored: Explored[Any, Any]) -> None:
        assert explored.schedule not in seen
        seen[explored.schedule] = explored

    found = await explore(call, check=note, **options)
    assert found.complete
    return seen


async def test_two_children_are_interleaved_in_every_way() -> None:
    seen = await schedules_of(pay_twice())

    assert len(seen) == 6, "two chains of a step's end and the child's end"
    assert ("pay 2: charge done", "pay: charge done", "pay 2 done", "pay done") in seen
    assert {explored.result for explored in seen.values()} == {3}


async def test_a_parent_that_is_cancelled_hears_of_no_child_before_its_cancel() -> None:
    seen = await schedules_of(pay_twice(), events=[Cancel()])

    cancelled = [schedule for schedule in seen if "cancel" in schedule]
    after = {name for schedule in cancelled for name in schedule[schedule.index("cancel") :]}
    assert {"pay: cancel", "pay: charge done", "pay 2: cancel", "pay 2: charge done"} <= after
    assert not {"pay done", "pay 2 done"} & after


@workflow
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def two_naps(first: float, second: float) -> None:
    await asyncio.gather(nap(first), nap(second))


async def test_timers_of_several_runs_fire_in_the_order_of_their_times() -> None:
    apart = await schedules_of(two_naps(2, 1))
    together = await schedules_of(two_naps(1, 1))

    assert all(schedule.index("nap 2: timer 1s") < schedule.index("nap: timer 2s") for schedule in apart)
    assert {schedule[0] for schedule in together} == {"nap: timer 1s", "nap 2: timer 1s"}


async def test_a_child_started_apart_may_have_ended_before_its_start_is_told() -> None:
    seen = await schedules_of(pay_apart())

    assert set(seen) == {
        ("pay started", "pay: charge done", "pay done"),
        ("pay: charge done", "pay started", "pay done"),
    }


async def test_a_child_whose_parent_has_ended_is_cancelled_or_ends_before_it_hears_of_it() -> None:
    seen = await schedules_of(pay_and_forget())

    assert set(seen) == {
        ("pay started", "pay: charge done"),
        ("pay started", "pay: cancel", "pay: charge did not act"),
        ("pay started", "pay: cancel", "pay: charge acted"),
        ("pay: charge done", "pay started"),
    }


async def test_a_child_that_is_left_to_itself_goes_on() -> None:
    seen = await schedules_of(pay_and_leave())

    assert set(seen) == {("pay started", "pay: charge done"), ("pay: charge done", "pay started")}


@workflow
async def careful() -> None:
    try:
        await go.receive()
    finally:
        await refund(5)


@workflow
async def has_a_careful_child() -> None:
    try:
        await careful()
    finally:
        await refund(1)


async def test_children_clean_up_before_their_parent_hears_of_its_cancel() -> None:
    seen = await schedules_of(has_a_careful_child(), events=[Cancel()], may_wait=True)

    cancelled = seen["cancel", "careful: cancel", "careful: refund done", "refund done"]
    assert [called.args for called in cancelled.steps] == [(5,), (1,)]
    assert isinstance(cancelled.error, RunCancelled)
    assert len(seen) == 2, "nothing comes, or a cancel: all else has one order"


@workflow
async def never_lets_go() -> None:
    try:
        await charge(1)
    finally:
        await go.receive()


@workflow
async def leaves_an_orphan() -> None:
    await start_child(never_lets_go())


async def test_a_child_that_outlives_its_parent_is_found_also_where_runs_may_wait() -> None:
    with pytest.raises(ScheduleFailed, match=r"waits for ever, and its parent has ended.*in never_lets_go"):
        await explore(leaves_an_orphan(), may_wait=True)


@workflow
async def races_a_child() -> int:
    try:
        async with asyncio.timeout(10):
            return await pay(3)
    except TimeoutError:
        return 0


async def test_a_child_whose_waiter_is_gone_is_told_to_stop_after_the_parent_has_ended() -> None:
    seen = await schedules_of(races_a_child())

    results = {schedule: explored.result for schedule, explored in seen.items()}
    assert results == {
        ("pay: charge done", "pay done"): 3,
        ("pay: charge done", "timer 10s"): 0,
        ("timer 10s", "pay: charge done"): 0,
        ("timer 10s", "pay: cancel", "pay: charge did not act"): 0,
        ("timer 10s", "pay: cancel", "pay: charge acted"): 0,
    }


@workflow
async def same_id_twice() -> str:
    await start_child(pay(1), id="pay-1")
    try:
        await start_child(pay(2), id="pay-1")
    except ConflictError:
        return "refused"
    return "both"


async def test_a_child_of_a_taken_id_is_refused() -> None:
    seen = await schedules_of(same_id_twice())

    assert {explored.result for explored in seen.values()} == {"refused"}
    assert any("pay 2 refused" in schedule for schedule in seen)


@workflow(timeout=60)
async def limited() -> None:
    try:
        await charge(1)
        await charge(2)
    finally:
        await refund(1)


async def test_a_run_may_reach_its_time_limit_at_any_moment_and_cleans_up() -> None:
    seen = await schedules_of(limited())

    ends = {schedule: explored.status for schedule, explored in seen.items()}
    assert ends["charge done", "charge 2 done", "refund done"] is RunStatus.COMPLETED
    assert ends["run timeout 60s", "charge acted", "refund done"] is RunStatus.TIMED_OUT
    assert isinstance(seen["run timeout 60s", "charge acted", "refund done"].error, RunTimedOut)
    late = ("charge done", "charge 2 done", "run timeout 60s", "refund did not act")
    assert ends[late] is RunStatus.TIMED_OUT
    assert len(seen) == 7


@workflow(timeout=60)
async def limited_with_child() -> None:
    await careful()


async def test_a_run_that_is_out_of_time_hears_of_it_once_and_after_its_children() -> None:
    seen = await schedules_of(limited_with_child())

    (schedule,) = seen
    assert schedule == ("run timeout 60s", "careful: cancel", "careful: refund done")
    assert seen[schedule].status is RunStatus.TIMED_OUT


async def test_children_are_told_once_however_often_their_parent_is_cancelled() -> None:
    seen = await schedules_of(has_a_careful_child(), events=[Cancel(), Cancel("again")], may_wait=True)

    assert all(schedule.count("careful: cancel") <= 1 for schedule in seen)
    assert ("cancel", "careful: cancel", "cancel 2", "careful: refund done", "refund done") in seen


@workflow
async def counts_down(left: int) -> str:
    await charge(left)
    if left:
        continue_as_new(counts_down(left - 1))
    return "done"


@workflow
async def waits_for_a_count() -> str:
    return await counts_down(2)


async def test_a_parent_hears_of_the_last_generation_of_its_child() -> None:
    seen = await schedules_of(waits_for_a_count())

    (explored,) = seen.values()
    assert explored.result == "done"
    assert explored.schedule[-1] == "counts_down done"
    assert len({record.run for record in explored.journal}) == 4


async def test_a_cancel_follows_a_run_that_continues_as_new() -> None:
    seen = await schedules_of(counts_down(1), events=[Cancel()])

    assert len(seen) == 5, "never, and in each of two generations with the step acted or not"
    assert sum(explored.status is RunStatus.CANCELLED for explored in seen.values()) == 4


class Broken(NonRetryable):
    pass


@step(retry=Retry(attempts=2))
async def fails() -> None:
    raise OSError("no line")


@workflow
async def parks() -> None:
    await fails()


@workflow
async def has_a_parking_child() -> None:
    await parks()


async def test_a_parked_child_is_a_failure_and_with_leave_its_parent_waits() -> None:
    with pytest.raises(ScheduleFailed, match="Run 'run/0/0/parks' is parked"):
        await explore(has_a_parking_child())

    seen = await schedules_of(has_a_parking_child(), may_raise=OSError)

    (explored,) = seen.values()
    assert explored.status is RunStatus.RUNNING


async def test_a_parked_child_is_cancelled_with_its_parent() -> None:
    seen = await schedules_of(
        has_a_parking_child(), events=[Cancel()], may_raise=(StepFailed, OSError), may_wait=True
    )

    late = seen["parks: fails done", "cancel", "parks: cancel"]
    assert late.status is RunStatus.CANCELLED


# -- the same as in an engine --------------------------------------------------------------------


@workflow
async def all_kinds() -> str:
    first, child = await asyncio.gather(charge(1), start_child(pay(2)))
    second = await pay(first)
    who = await go.receive()
    await asyncio.sleep(3_600)
    return f"{who} {second} {await child}"


@workflow
async def continues_with_a_signal(generation: int) -> str:
    if not generation:
        await asyncio.sleep(120)  # the signal comes meanwhile, and nobody receives it
        continue_as_new(continues_with_a_signal(1))
    return await go.receive()


@workflow(timeout=60)
async def limited_parent() -> None:
    await asyncio.sleep(10)
    try:
        await careful()
    finally:
        await refund(1)


_FAILED = (Kind.STEP_FAILED, Kind.CHILD_FAILED)


def told(records: Sequence[Record]) -> str:
    return "; ".join(
        f"{Kind(kind).name} {key} {digest} {describe_failure(payload or b'') if kind in _FAILED else payload}"
        for _, kind, key, digest, _, payload, _ in records
    )


def journals_of(explored: Explored[Any, Any]) -> list[str]:
    numbers = sorted({record.run for record in explored.journal})
    return [told([record for record in explored.journal if record.run == number]) for number in numbers]


@pytest.mark.parametrize(
    ("call", "event", "schedule"),
    [
        (pay_twice(), None, ""),
        (pay_apart(), None, "pay started"),
        (all_kinds(), Send(go, "ann"), ""),
        (waits_for_a_count(), None, ""),
        (has_a_careful_child(), Cancel(), "cancel"),
        (continues_with_a_signal(0), Send(go, "ann"), ""),
        (limited_parent(), None, "timer 10s, run timeout 60s"),
    ],
    ids=str,
)
async def test_a_schedule_leaves_the_journals_that_an_engine_leaves(
    call: WorkflowCall[Any], event: Send | Cancel | None, schedule: str, tmp_path: Path
) -> None:
    seen: list[Explored[Any, Any]] = []
    definition: Workflow[Any, Any] = call.definition

    await explore(
        call,
        events=[event] if event is not None else [],
        schedule=schedule,
        may_wait=True,
        check=seen.append,
    )
    async with Harness(tmp_path / "runs.db") as harness:
        run = await harness.engine.start(definition(*call.args), id="run")
        await harness.advance(60)
        match event:
            case Send(signal, value):
                await run.send(signal, value)
            case Cancel():
                await run.cancel()
            case None:
                pass
        await harness.advance(3_600)
        written = list[str]()
        while harness.store.run_by_number(len(written) + 1) is not None:
            written.append(told(harness.store.records(len(written) + 1)))

    assert sorted(journals_of(seen[0])) == sorted(written)
