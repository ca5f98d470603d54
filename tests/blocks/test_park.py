"""Parking: a run that stops for a person is kept, visible, and goes on when it is resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import (
    JournalMismatch,
    NotAwaited,
    Retry,
    RunCancelled,
    RunClosed,
    RunParked,
    RunStatus,
    Signal,
    State,
    StepFailed,
    step,
    step_info,
    workflow,
)
from perdure.core.records import Kind
from perdure.testing import Harness

news = Signal[str]("news")
broken = True
attempts: list[int] = []
done: list[str] = []


@pytest.fixture(autouse=True)
def break_it() -> None:
    global broken
    broken = True
    attempts.clear()
    done.clear()


@step(retry=Retry(attempts=2, delay=1, jitter=False))
async def is_broken_at_first() -> str:
    attempts.append(step_info().attempt)
    if broken:
        raise OSError("out of order")
    return "mended"


@step
async def does(what: str) -> str:
    done.append(what)
    return what


@workflow
async def needs_mending() -> list[str]:
    before = await does("before")
    return [before, await is_broken_at_first(), await does("after")]


async def test_a_run_whose_step_failed_for_good_parks_and_says_why(harness: Harness) -> None:
    run = await harness.engine.start(needs_mending(), id="one")
    await harness.advance(1)

    with pytest.raises(RunParked, match=r"'one' is parked.*out of order") as caught:
        await run.result()
    assert isinstance(caught.value.__cause__, StepFailed)
    assert (await run.info()).ended_at is None


async def test_each_run_that_parks_is_logged_with_the_reason(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def does_what_only_a_step_may() -> None:
        await asyncio.open_connection("localhost", 1)

    await harness.engine.start(needs_mending(), id="one")
    await harness.engine.start(does_what_only_a_step_may(), id="two")
    await harness.advance(1)

    logged = [record.getMessage() for record in caplog.records if record.name == "perdure"]
    (one,) = [message for message in logged if message.startswith("Run 'one' is parked: ")]
    (two,) = [message for message in logged if message.startswith("Run 'two' is parked: ")]
    assert "out of order" in one
    assert "asked for the network" in two


async def test_resume_tries_the_step_again_from_its_first_attempt_and_nothing_else(harness: Harness) -> None:
    global broken
    run = await harness.engine.start(needs_mending())
    await harness.advance(1)
    await run.resume()
    await harness.advance(1)
    parked_again = await run.status()
    broken = False
    await run.resume()

    assert await run.result() == ["before", "mended", "after"]
    assert parked_again is RunStatus.PARKED
    assert attempts == [1, 2, 1, 2, 1]
    assert done == ["before", "after"]


async def test_a_parked_run_stays_parked_over_a_restart_and_resumes_there(harness: Harness) -> None:
    global broken
    await harness.engine.start(needs_mending(), id="one")
    await harness.advance(1)
    await harness.crash()
    await harness.advance(1_000)
    tried = len(attempts)
    broken = False
    run = await harness.engine.get("one", needs_mending)
    await run.resume()

    assert await run.result() == ["before", "mended", "after"]
    assert (tried, attempts[-1]) == (2, 1)


async def test_what_was_recorded_beside_the_failure_is_kept(harness: Harness) -> None:
    global broken
    hold = asyncio.Event()

    @step(retry=Retry(attempts=1))
    async def fails_on_cue() -> str:
        await hold.wait()
        if broken:
            raise OSError("out of order")
        return "mended"

    @step
    async def succeeds_on_cue() -> str:
        await hold.wait()
        return await does("beside")

    @workflow
    async def does_both_and_listens() -> list[str]:
        pair = await asyncio.gather(fails_on_cue(), succeeds_on_cue())
        return [*pair, await news.receive()]

    run = await harness.engine.start(does_both_and_listens())
    await harness.settle()
    hold.set()
    await run.send(news, "hello")
    await harness.settle()
    parked = await run.status()
    broken = False
    await run.resume()

    assert await run.result() == ["mended", "beside", "hello"]
    assert parked is RunStatus.PARKED
    assert done == ["beside"]


async def test_signals_to_a_parked_run_wait_for_it(harness: Harness) -> None:
    global broken

    @workflow
    async def listens_when_mended() -> str:
        await is_broken_at_first()
        return await news.receive()

    run = await harness.engine.start(listens_when_mended())
    await harness.advance(1)
    await run.send(news, "hello")
    await harness.settle()
    broken = False
    await run.resume()

    assert await run.result() == "hello"


async def test_a_parked_run_can_be_cancelled(harness: Harness) -> None:
    run = await harness.engine.start(needs_mending())
    await harness.advance(1)

    await run.cancel("not worth mending")

    with pytest.raises(RunCancelled, match="not worth mending"):
        await run.result()


@pytest.mark.parametrize("verbs", ["cancel cancel", "resume cancel", "cancel resume", "resume resume"])
async def test_a_parked_run_may_be_told_two_things_at_once(harness: Harness, verbs: str) -> None:
    run = await harness.engine.start(needs_mending(), id="one")
    await harness.advance(1)
    told = {"cancel": run.cancel, "resume": run.resume}

    await asyncio.gather(*(told[verb]() for verb in verbs.split()))
    await harness.advance(1)

    expected = RunStatus.CANCELLED if "cancel" in verbs else RunStatus.PARKED
    assert await run.status() is expected


async def test_a_parked_run_can_be_terminated(harness: Harness) -> None:
    run = await harness.engine.start(needs_mending())
    await harness.advance(1)

    await run.terminate()
    await harness.settle()

    assert await run.status() is RunStatus.TERMINATED


async def test_a_run_that_has_ended_cannot_be_resumed(harness: Harness) -> None:
    global broken
    broken = False
    run = await harness.engine.start(needs_mending())
    await run.result()

    with pytest.raises(RunClosed):
        await run.resume()


async def test_resuming_a_run_that_runs_does_nothing(harness: Harness) -> None:
    @workflow
    async def just_listens() -> str:
        return await news.receive()

    run = await harness.engine.start(just_listens())
    await run.resume()
    await run.send(news, "hello")

    assert await run.result() == "hello"


async def test_a_workflow_that_catches_the_failure_goes_on(harness: Harness) -> None:
    @workflow
    async def has_another_way() -> str:
        try:
            return await is_broken_at_first()
        except StepFailed:
            return await does("the other way")

    run = await harness.engine.start(has_another_way())
    await harness.advance(1)

    assert await run.result() == "the other way"


async def test_what_a_failing_run_published_on_its_way_out_does_not_hide_what_comes_later(
    harness: Harness,
) -> None:
    global broken
    stage = State[str]("stage")

    @workflow
    async def publishes_its_stage() -> None:
        try:
            await is_broken_at_first()
        except OSError:
            stage.set("failed")
            raise
        stage.set("went on")

    run = await harness.engine.start(publishes_its_stage())
    await harness.advance(1)
    broken = False
    await run.resume()
    await run.result()

    assert await run.state(stage) == "went on"


async def test_code_that_no_longer_matches_the_journal_parks_before_any_effect_and_goes_on_when_put_right(
    harness: Harness,
) -> None:
    changed = False

    @workflow
    async def changes_its_code() -> str:
        await does("first" if not changed else "other")
        return await does(await news.receive())

    await harness.engine.start(changes_its_code(), id="one")
    await harness.settle()
    await harness.stop()
    changed = True
    await harness.open()
    run = await harness.engine.get("one", changes_its_code)
    await run.send(news, "second")
    with pytest.raises(RunParked) as caught:
        await run.result()
    done_while_changed = list(done)
    await harness.stop()
    changed = False
    await harness.open()
    run = await harness.engine.get("one", changes_its_code)

    assert await run.result() == "second"
    assert isinstance(caught.value.__cause__, JournalMismatch)
    assert done_while_changed == ["first"]
    assert done == ["first", "second"]


async def test_a_call_that_was_not_awaited_resumes_when_the_code_is_put_right(harness: Harness) -> None:
    awaits = False

    @workflow
    async def learns_to_await() -> str:
        call = does("it")
        if awaits:
            return await call
        del call
        return "forgot"

    run = await harness.engine.start(learns_to_await())
    with pytest.raises(RunParked) as caught:
        await run.result()
    awaits = True
    await run.resume()

    assert await run.result() == "it"
    assert isinstance(caught.value.__cause__, NotAwaited)


async def test_a_run_whose_worker_dies_five_times_in_it_is_parked_and_can_be_resumed(
    harness: Harness,
) -> None:
    deadly = True

    @step
    async def kills_its_worker() -> str:
        if deadly:
            harness.store.kill()
            harness.engine.driver.committer.batch.leases = 1
            harness.engine.driver.committer.schedule()
            await asyncio.Event().wait()
        return "survived"

    @workflow
    async def is_deadly() -> str:
        return await kills_its_worker()

    await harness.engine.start(is_deadly(), id="one")
    for _ in range(5):
        await harness.until(lambda: harness.engine.driver.committer.error)
        await harness.crash()
    run = await harness.engine.get("one", is_deadly)
    with pytest.raises(RunParked, match=r"died 5 times in a row.*kills_its_worker"):
        await run.result()
    deadly = False
    await run.resume()

    assert await run.result() == "survived"


async def test_a_run_that_got_on_between_deaths_is_not_parked(harness: Harness) -> None:
    @workflow
    async def takes_many_steps() -> int:
        for number in range(8):
            await does(str(number))
            await asyncio.sleep(10)
        return len(done)

    await harness.engine.start(takes_many_steps(), id="one")
    for _ in range(8):
        await harness.settle()
        await harness.crash()
        await harness.advance(10)

    assert await (await harness.engine.get("one", takes_many_steps)).result() == 8


async def test_a_parked_run_keeps_its_journal_whole(harness: Harness, tmp_path: Path) -> None:
    run = await harness.engine.start(needs_mending())
    await harness.advance(1)

    records = harness.store.records(1)

    assert [record.seq for record in records] == list(range(len(records)))
    assert Kind.STEP_FAILED not in [record.kind for record in records]
    assert list(harness.store.check()) == []
    assert await run.status() is RunStatus.PARKED


async def test_a_run_that_kills_its_worker_is_parked_and_most_that_were_only_there_are_not(
    harness: Harness,
) -> None:
    begun: list[str] = []

    @step
    async def kills_its_worker() -> None:
        begun.append(step_info().run_id)
        await asyncio.Event().wait()

    @step
    async def takes_for_ever() -> None:
        await asyncio.Event().wait()

    @workflow
    async def kills() -> None:
        await kills_its_worker()

    @workflow
    async def was_only_there() -> None:
        await takes_for_ever()

    for number in range(4):
        await harness.engine.start(was_only_there(), id=f"innocent-{number}")
    killer = await harness.engine.start(kills(), id="killer")
    deaths = 0
    while await killer.status() is RunStatus.RUNNING:
        await harness.advance(1)
        if len(begun) > deaths:
            deaths += 1
            await harness.crash()
            killer = await harness.engine.get("killer", kills)

    parked = (await harness.engine.list(status=RunStatus.PARKED)).runs
    assert "killer" in [run.id for run in parked]
    assert deaths == 5
    assert len(parked) <= 3
