"""What a check sees of a schedule, what is wrong without one, and what may be allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    NonRetryable,
    OutsideRun,
    Retry,
    RunCancelled,
    RunClosed,
    RunStatus,
    Update,
    UpdateRefused,
    step,
    step_info,
    workflow,
)
from perdure.testing.events import Ask, Cancel, Event, Send, Wait
from perdure.testing.explore import Explored, ScheduleFailed, ScheduleImpossible, choose, explore

from .orders import Schedules, add, all_at_once, take_words, total, two_in_a_row, word, work

# -- what a check sees ---------------------------------------------------------------------------


@workflow
async def counting() -> int:
    count = 0
    is_over = asyncio.Event()

    async def add_to(number: int) -> int:
        nonlocal count
        count += number
        total.set(count)
        if count >= 3:
            is_over.set()
        return count

    def judge(number: int) -> None:
        if number < 0:
            raise ValueError("below zero")

    add.handle(add_to, validate=judge)
    await is_over.wait()
    return count


async def test_a_check_sees_states_answers_and_refusals() -> None:
    seen: list[Explored[int, None]] = []

    await explore(counting(), events=[[Ask(add, 1), Ask(add, -1), Ask(add, 2)]], check=seen.append)

    (explored,) = seen
    assert explored.result == 3
    assert explored.published(total) == [1, 3]
    assert [(answer.asked, answer.value) for answer in explored.answers] == [(1, 1), (-1, None), (2, 3)]
    assert isinstance(explored.answers[1].error, UpdateRefused)
    assert len(explored.journal) == 2, "a refused update leaves no record"


@workflow
async def answers_late() -> None:
    update_work = Update[int, int]("slow")
    update_work.handle(answer_slowly)
    await work(1)


async def answer_slowly(number: int) -> int:
    return await work(number)


async def test_an_update_that_the_run_does_not_live_to_answer_is_told_so() -> None:
    seen: list[Explored[None, None]] = []

    await explore(answers_late(), events=[Ask(Update[int, int]("slow"), 5)], check=seen.append)

    errors = {explored.schedule: type(answer.error) for explored in seen for answer in explored.answers}
    assert errors["ask slow", "work done", "work 2 did not act"] is RunClosed
    assert errors["ask slow", "work 2 done", "work done"] is type(None)


@step(retry=Retry(attempts=3))
async def flaky(word: str) -> int:
    if step_info().attempt < 3:
        raise OSError(word)
    return step_info().attempt


@workflow
async def try_flaky() -> int:
    return await flaky("x")


async def test_a_step_is_tried_as_often_as_its_retry_says_in_one_event() -> None:
    seen: list[Explored[int, None]] = []

    await explore(try_flaky(), check=seen.append)

    assert seen[0].result == 3
    assert [called.attempt for called in seen[0].steps] == [1, 2, 3]
    assert [repr(called.error) for called in seen[0].steps] == ["OSError('x')", "OSError('x')", "None"]
    assert seen[0].schedule == ("flaky done",)


async def test_each_schedule_has_a_world_of_its_own_which_fakes_and_checks_see() -> None:
    async def make() -> list[int]:
        return []

    def fakes(numbers: list[int]) -> dict[Any, Any]:
        return {work: lambda number: numbers.append(number) or number}  # type: ignore[func-returns-value]

    seen: list[list[int]] = []

    await explore(
        all_at_once(2), setup=make, overrides=fakes, check=lambda explored: seen.append(explored.world)
    )

    assert seen == [[0, 1], [1, 0]]


async def test_what_a_fake_leaves_open_is_tried_in_every_way() -> None:
    orders = Schedules()

    def open_ended(number: int) -> int:
        return number * choose(1, 10)

    found = await explore(all_at_once(2), overrides={work: open_ended}, check=orders)

    assert found.complete
    assert orders.seen[0] == ("work done", "work: 1", "work 2 done", "work 2: 1")
    assert found.schedules == 2 * 2**2, "two orders, and two ways for each of two steps"
    assert sorted(orders.results) == [1, 1, 1, 1, 10, 10, 10, 10]


async def test_a_failure_that_a_fake_leaves_open_is_found_and_told() -> None:
    def may_fail(number: int) -> int:
        if choose("fine", "sold out, alas") == "sold out, alas":
            raise OutOfStock(str(number))
        return number

    with pytest.raises(ScheduleFailed) as caught:
        await explore(two_in_a_row(), overrides={work: may_fail})

    assert caught.value.schedule == "work done, work: sold out; alas"


async def test_a_choice_where_nothing_is_explored_is_refused() -> None:
    with pytest.raises(OutsideRun, match="in place of a step"):
        choose(1, 2)


async def test_always_looks_after_every_event() -> None:
    counts: list[int] = []

    await explore(two_in_a_row(), always=lambda explored: counts.append(len(explored.journal)))

    assert counts == [1, 2]


async def test_a_check_may_fail_as_tests_fail() -> None:
    def expects_an_error(explored: Explored[int, None]) -> None:
        with pytest.raises(OSError):
            _ = explored.result

    with pytest.raises(ScheduleFailed, match="DID NOT RAISE OSError"):
        await explore(all_at_once(1), check=expects_an_error)


async def test_a_cancelled_run_shows_its_status_and_error() -> None:
    orders = Schedules()

    await explore(two_in_a_row(), events=[Cancel()], check=orders)

    assert set(orders.statuses) == {RunStatus.COMPLETED, RunStatus.CANCELLED}
    assert any(isinstance(result, RunCancelled) for result in orders.results)


# -- what is allowed, and what is not ------------------------------------------------------------


class OutOfStock(NonRetryable):
    pass


@step
async def reserve(item: str) -> None:
    raise OutOfStock(item)


@workflow
async def buy() -> None:
    await reserve("tea")


async def test_an_error_that_nobody_allowed_fails_also_without_a_check() -> None:
    with pytest.raises(ScheduleFailed, match="is failed: OutOfStock: tea") as caught:
        await explore(buy())

    assert isinstance(caught.value.__cause__, OutOfStock)


async def test_an_error_that_may_be_raised_is_an_end_like_any_other() -> None:
    found = await explore(buy(), may_raise=OutOfStock)

    assert found.complete


async def test_a_run_that_waits_for_ever_fails_even_if_a_cancel_could_end_it() -> None:
    with pytest.raises(ScheduleFailed, match=r"waits for ever.*\(a cancel need not come\).*orders.py:\d+"):
        await explore(take_words(1), events=[Cancel()])


async def test_a_run_that_may_wait_is_explored_with_and_without_a_cancel() -> None:
    orders = Schedules()

    found = await explore(take_words(2), events=[Send(word, 1), Cancel()], may_wait=True, check=orders)

    assert found.complete
    assert set(orders.seen) == {
        ("send word", "nothing more"),
        ("send word", "cancel"),
        ("cancel",),
    }


@workflow
async def polls_for_ever() -> None:
    while True:  # noqa: ASYNC110 (that is what it is about)
        await asyncio.sleep(60)


async def test_a_run_that_never_ends_is_a_failure_unless_it_may_wait() -> None:
    with pytest.raises(ScheduleFailed, match="still not ended"):
        await explore(polls_for_ever())

    found = await explore(polls_for_ever(), events=[Cancel()], may_wait=True, depth=5)

    assert found.longest == 5


@workflow
async def forgets_to_await() -> None:
    work(1)  # perdure: allow[not-awaited] that is what it is about
    await work(2)


async def test_a_call_that_is_not_awaited_breaks_a_law() -> None:
    with pytest.raises(ScheduleFailed, match="NotAwaited"):
        await explore(forgets_to_await())


@workflow
async def leaves_a_failed_task() -> None:
    task = asyncio.ensure_future(reserve("tea"))
    await asyncio.wait([task])


async def test_a_task_that_failed_and_that_nobody_awaited_is_found() -> None:
    with pytest.raises(ScheduleFailed, match="nobody awaited it: OutOfStock: tea"):
        await explore(leaves_a_failed_task())

    await explore(leaves_a_failed_task(), may_raise=OutOfStock)


_heard: list[int] = []


@workflow
async def looks_at_a_global() -> int:
    if len(_heard) % 2:
        await work(2)
    _heard.append(1)  # perdure: allow[global-mutated] that is what it is about
    return await work(1)


async def test_a_workflow_that_does_not_replay_the_same_is_found() -> None:
    _heard.clear()

    with pytest.raises(ScheduleFailed, match="replay of run 'run'"):
        await explore(looks_at_a_global())


@workflow
async def asks_more_the_second_time() -> int:
    if _heard:
        more = asyncio.ensure_future(work(2))
        more.add_done_callback(_ignore)
    _heard.append(1)  # perdure: allow[global-mutated] that is what it is about
    return await work(1)


def _ignore(task: object) -> None:
    """Nothing."""


async def test_a_replay_that_comes_to_the_same_end_but_asks_for_more_is_found() -> None:
    _heard.clear()

    with pytest.raises(ScheduleFailed, match=r"asks for .*'0.1/0/work'.*, where it asked for '0/0/work'"):
        await explore(asks_more_the_second_time())


@workflow
async def publishes_as_it_fails() -> None:
    try:
        await flaky_for_ever()
    finally:
        total.set(9)


@step(retry=Retry(attempts=1))
async def flaky_for_ever() -> None:
    raise OSError


async def test_what_a_run_does_in_the_event_that_parks_it_is_taken_back() -> None:
    seen: list[Explored[None, None]] = []

    await explore(publishes_as_it_fails(), may_raise=OSError, check=seen.append)

    assert seen[0].status is RunStatus.PARKED
    assert seen[0].published(total) == []


async def test_a_world_that_is_not_fresh_is_said_to_be_the_cause() -> None:
    calls: list[int] = []

    def fails_once(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise OutOfStock(str(number))
        return number

    with pytest.raises(ScheduleFailed, match="Make all that steps touch anew"):
        await explore(all_at_once(2), overrides={work: fails_once})


@workflow
async def works_if_odd(number: int) -> None:
    if await work(number) % 2:
        await work(number)


async def test_choices_that_lead_elsewhere_the_second_time_are_said_to_be_the_cause() -> None:
    calls: list[int] = []

    def is_first(number: int) -> int:
        calls.append(number)
        return int(len(calls) == 1)

    with pytest.raises(ScheduleImpossible, match=r"led works_if_odd\(1\) to another place"):
        await explore(works_if_odd(1), events=[Cancel()], overrides={work: is_first})


async def test_what_cannot_be_ordered_is_refused() -> None:
    event: Event = Wait(3)

    with pytest.raises(DefinitionError, match="time is explored by itself"):
        await explore(take_words(1), events=[event])  # type: ignore[list-item]


async def test_what_setup_raises_is_raised() -> None:
    def fail() -> None:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        await explore(all_at_once(1), setup=fail)
