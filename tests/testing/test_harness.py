"""The harness: a client of whichever engine is open, time moved by hand, and what it says when stuck."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import PerdureError, Retry, RunNotFound, RunStatus, Signal, step, step_info, workflow
from perdure.testing import Harness
from perdure.testing.clock import loop_turn

approval = Signal[str]("approval")


@step
async def charge(order: str, cents: int = 100) -> str:
    return f"receipt {order}"


@step(retry=Retry(attempts=2))
def refuse(order: str) -> str:
    raise PermissionError(f"no {order}")


@workflow
async def checkout(order: str) -> str:
    receipt = await charge(order)
    who = await approval.receive()
    return f"{receipt} for {who}"


@workflow
async def is_refused(order: str) -> str:
    try:
        return await refuse(order)
    except PermissionError:
        return "refused"


@workflow
async def month() -> str:
    await asyncio.sleep(30 * 86_400)
    return "a month later"


def is_there(harness: Harness) -> bool:
    return Path(harness.url.removeprefix("sqlite:///")).parent.exists()


async def test_a_handle_goes_on_working_after_a_restart_and_after_a_crash(harness: Harness) -> None:
    run = await harness.start(checkout("17"), id="17")

    await harness.restart()
    await run.send(approval, "ann")
    await harness.crash()

    assert await run.result() == "receipt 17 for ann"


async def test_a_month_passes_when_the_test_says_so(harness: Harness) -> None:
    run = await harness.start(month())

    await harness.advance(days=29, hours=23, minutes=59, seconds=59)
    before = await run.status()
    await harness.advance(1)

    assert before is RunStatus.RUNNING
    assert await run.result() == "a month later"


async def test_a_month_passes_by_itself_when_time_flies(flying_harness: Harness) -> None:
    assert await flying_harness.run(month()) == "a month later"


async def test_the_steps_of_a_run_can_be_looked_at(harness: Harness) -> None:
    run = await harness.start(checkout("17"), id="17")
    await harness.settle()

    (done,) = harness.steps(run)

    assert (done.name, done.key, done.args) == ("charge", "0/0/charge", {"order": "17", "cents": 100})
    assert (done.result, done.error, done.attempts) == ("receipt 17", None, 1)
    assert repr(done) == "<charge(order='17', cents=100) → 'receipt 17'>"


async def test_a_step_that_failed_shows_its_error_and_its_attempts(flying_harness: Harness) -> None:
    await flying_harness.run(is_refused("17"), id="17")

    (failed,) = flying_harness.steps("17")

    assert isinstance(failed.error, PermissionError)
    assert failed.result is None
    assert failed.attempts == 2
    assert "in 2 attempts" in repr(failed)


async def test_the_records_of_a_run_can_be_looked_at(harness: Harness) -> None:
    run = await harness.start(checkout("17"))
    await run.send(approval, "ann")
    await run.result()

    assert [record.key for record in harness.records(run)] == ["0/0/charge", "approval"]


async def test_an_unknown_run_has_no_steps(harness: Harness) -> None:
    with pytest.raises(RunNotFound, match="No run 'nobody'"):
        harness.steps("nobody")


async def test_the_journals_tell_what_happened_in_order(harness: Harness) -> None:
    await harness.start(checkout("17"), id="17")
    await harness.settle()

    lines = harness.journals().splitlines()

    assert lines[0] == "run '17' (checkout) is running"
    assert lines[2].endswith('step charge (0/0/charge) → "receipt 17"')


async def test_a_wait_in_vain_says_which_run_waits_where_and_for_which_time(harness: Harness) -> None:
    await harness.start(checkout("17"), id="order-17")
    await harness.start(month(), id="month")

    with pytest.raises(AssertionError) as waited:
        await harness.until(lambda: False, seconds=0.05)

    said = str(waited.value)
    assert "Run 'order-17' (checkout) waits:" in said
    assert "test_harness.py" in said
    assert "in checkout" in said
    assert "the next timer is due at 2027-02-14" in said


async def test_a_result_that_does_not_come_says_what_its_run_waits_for(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.testing.harness._PATIENCE_S", 0.05)
    run = await harness.start(checkout("17"), id="order-17")

    with pytest.raises(AssertionError, match=r"(?s)waited 0.05 s for a run to end.*Run 'order-17' .* waits:"):
        await run.result()


async def test_a_step_that_is_under_way_is_named_in_what_is_waited_for(harness: Harness) -> None:
    began = asyncio.Event()

    async def never(order: str, cents: int = 100) -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    with harness.override(charge, never):
        await harness.start(checkout("17"), id="17")
        await began.wait()

        assert "for charge('17') (0/0/charge), which is under way" in harness.waiting()


async def test_without_a_path_the_file_is_its_own_and_goes_with_it() -> None:
    async with Harness() as harness:
        was_there = is_there(harness)

    assert was_there
    assert not is_there(harness)


async def test_a_file_of_the_tests_own_stays(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db") as harness:
        await harness.start(checkout("17"), id="17")

    async with Harness(tmp_path / "runs.db") as harness:
        assert (await harness.info("17")).status is RunStatus.RUNNING


async def test_a_harness_that_is_closed_says_so(harness: Harness) -> None:
    await harness.stop()

    with pytest.raises(PerdureError, match="No engine is open"):
        harness.journals()
    assert harness.waiting() == "No engine is open."


async def test_who_is_cancelled_while_it_lets_the_loop_turn_leaves_no_error_behind() -> None:
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
    turning = asyncio.create_task(loop_turn())
    await asyncio.sleep(0)

    turning.cancel()
    for _ in range(3):
        await asyncio.sleep(0)

    assert turning.cancelled()
    assert errors == []


@step(worker="gpu")
async def render(frame: int) -> int:
    if step_info().attempt == 1:
        raise RuntimeError("once")
    return 2 * frame


@workflow
async def filmed_in_place() -> int:
    return await render(21)


async def test_a_step_that_asks_for_a_worker_runs_in_place(flying_harness: Harness) -> None:
    run = await flying_harness.start(filmed_in_place(), id="film")

    await flying_harness.crash()

    assert await run.result() == 42
    assert flying_harness.store.jobs(1) == []
    assert [line.attempts for line in flying_harness.steps(run)] == [2]


async def test_a_test_may_have_an_engine_without_the_tag_and_then_one_with_it(tmp_path: Path) -> None:
    async with Harness(tmp_path / "runs.db", time_flies=True, tags=()) as untagged:
        await untagged.start(filmed_in_place(), id="film")
        await untagged.settle()
        waiting = untagged.store.waiting_jobs()
    async with Harness(tmp_path / "runs.db", time_flies=True, tags=["gpu"]) as tagged:
        run = await tagged.get("film", filmed_in_place)

        assert await run.result() == 42
    assert waiting == {"gpu": 1}
