"""Undo calls, and when a run parks instead of failing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from perdure import State, compensate, step, workflow
from perdure.errors import NonRetryable, StepFailed

from .harness import Body, Kind, Status, Trial, crash_everywhere, live, reborn

failing: set[Any] = set()
status = State[str]("status")


class Final(NonRetryable):
    pass


@step
def work(value: Any) -> Any:
    if value in failing:
        raise OSError(f"{value} is down")
    return value


@step
def undo(value: Any) -> Any:
    if value in failing:
        raise (Final if str(value).startswith("final") else OSError)(f"{value} cannot be undone")
    return value


@workflow
async def other(value: Any) -> Any:
    return value


@pytest.fixture(autouse=True)
def _all_is_well() -> None:
    failing.clear()


def undone(trial: Trial) -> list[str]:
    return [
        record.key for record in trial.journal if record.key.startswith("undo/") and record.kind == Kind.STEP
    ]


async def saga() -> Any:
    seen = []
    for value in (1, 2, 3):
        compensate(undo(f"u{value}"))
        seen.append(await work(value))
    return seen


def test_undo_calls_run_in_reverse_order_and_the_run_fails_with_what_made_them_necessary() -> None:
    failing.add(3)

    trial = live(saga)

    calls = [digest for _, key, digest in trial.asked if key.startswith("undo/")]
    expected = [undo_digest(value) for value in ("u3", "u2", "u1")]
    assert calls == expected
    assert trial.status is Status.FAILED
    assert isinstance(trial.error, StepFailed)
    crash_everywhere(saga, trial)


def undo_digest(value: str) -> int:
    trial = live(lambda: undo(value))
    return trial.asked[0][2]


def test_a_run_that_ends_well_does_not_undo() -> None:
    trial = live(saga)

    assert trial.result == [1, 2, 3]
    assert undone(trial) == []


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("broken", ["u2", "final"])
def test_an_undo_that_fails_for_good_parks_the_run_and_is_tried_again(cancelled: bool, broken: str) -> None:
    async def body() -> None:
        compensate(undo("u1"))
        compensate(undo(broken))
        compensate(undo("u3"))
        await work("x")
        await asyncio.sleep(10)
        raise ValueError("reason")

    failing.add(broken)
    trial = Trial().begin(body)
    trial.answer("0/0/work")
    if cancelled:
        trial.cancel()
    trial.finish()
    assert trial.outcome is not None
    parked = trial.outcome

    failing.clear()
    again = reborn(body, trial.journal[: parked.forget_from]).finish()

    assert parked.status is Status.PARKED
    assert parked.forget_from == len(trial.journal) - 1
    assert trial.journal[-1].key == "undo/1/undo"
    assert "cannot be undone" in str(parked.error)
    crash_everywhere(body, trial)
    assert again.status is (Status.CANCELLED if cancelled else Status.FAILED)
    assert undone(again) == ["undo/0/undo", "undo/1/undo", "undo/2/undo"]


def test_an_undo_that_is_a_workflow_is_run_as_a_child() -> None:
    async def body() -> None:
        compensate(other("back"))
        await work(1)
        raise ValueError("reason")

    trial = Trial().begin(body)
    trial.answer("0/0/work")
    pending = trial.open["undo/0/other"]
    trial.record(Kind.CHILD, "undo/0/other", pending.digest, b'"back"')
    trial.deliver()

    assert str(trial.error) == "reason"


# -- parking -------------------------------------------------------------------------------------


async def straight_through() -> Any:
    await work(1)
    await work("x")


async def through_a_gather() -> Any:
    await work(1)
    await asyncio.gather(work(2), work("x"))


async def through_a_group() -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(work(1))
        group.create_task(work("x"))


async def through_nested_groups() -> Any:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(through_a_group())
        outer.create_task(work(2))


async def saying_so() -> Any:
    try:
        await work("x")
    except Exception:
        status.set("failed")
        raise


async def beside_a_timer() -> Any:
    async def tick() -> None:
        await asyncio.sleep(5)
        await work("timer")

    task = asyncio.create_task(tick())
    await work("x")
    await task


async def cleaning_up() -> Any:
    try:
        await work("x")
    finally:
        await work("clean")


async def asking_for_more_and_not_waiting() -> Any:
    try:
        await work("x")
    finally:
        asyncio.create_task(work("report"))  # noqa: RUF006
        await asyncio.sleep(0)


async def later() -> Any:
    try:
        await work("x")
    finally:
        await asyncio.sleep(1)


async def with_an_error_of_its_own() -> Any:
    try:
        await work("x")
    except StepFailed as error:
        raise ValueError("mine") from error


async def catching() -> Any:
    with suppress(OSError):
        await work("x")
    return await work("instead")


@pytest.mark.parametrize(
    "body", [straight_through, through_a_gather, through_a_group, through_nested_groups, saying_so]
)
def test_a_failure_that_goes_straight_through_parks_and_is_tried_again(body: Body) -> None:
    failing.add("x")

    trial = live(body)
    assert trial.outcome is not None
    forget_from = trial.outcome.forget_from
    failing.clear()
    again = reborn(body, trial.journal[:forget_from]).finish()

    assert trial.status is Status.PARKED
    assert forget_from == len(trial.journal) - 1
    crash_everywhere(body, trial)
    assert again.status is Status.COMPLETED


def test_a_timer_that_is_due_in_the_same_record_is_no_cleanup() -> None:
    failing.add("x")
    trial = Trial().begin(beside_a_timer)
    trial.now_ms += 6_000

    trial.answer("0/0/work")

    assert trial.status is Status.PARKED
    crash_everywhere(beside_a_timer, trial)


@pytest.mark.parametrize(
    "body", [cleaning_up, asking_for_more_and_not_waiting, later, with_an_error_of_its_own]
)
def test_a_run_that_cleaned_up_or_has_an_error_of_its_own_fails(body: Body) -> None:
    failing.add("x")

    trial = live(body)

    assert trial.status is Status.FAILED
    crash_everywhere(body, trial)


def test_a_failure_that_is_caught_is_a_value_like_any_other() -> None:
    failing.add("x")

    trial = live(catching)

    assert trial.result == "instead"
    crash_everywhere(catching, trial)


def test_what_is_never_retried_fails_the_run_and_does_not_park() -> None:
    failing.add("final")

    trial = live(lambda: undo("final"))

    assert (trial.status, type(trial.error)) == (Status.FAILED, Final)
