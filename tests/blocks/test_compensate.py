"""compensate: what is undone when a run does not end well."""

from __future__ import annotations

import pytest

from perdure import (
    NonRetryable,
    Retry,
    RunCancelled,
    RunFailed,
    RunParked,
    Signal,
    compensate,
    step,
    workflow,
)
from perdure.testing import Harness

proceed = Signal[str]("proceed with it")
log: list[str] = []
undo_is_broken = False


class TooExpensive(NonRetryable):
    """Nobody pays that."""


@pytest.fixture(autouse=True)
def forget() -> None:
    global undo_is_broken
    log.clear()
    undo_is_broken = False


@step
async def book(what: str) -> str:
    log.append(f"book {what}")
    if what == "moon trip":
        raise TooExpensive(what)
    return what


@step(retry=Retry(attempts=1))
async def unbook(what: str) -> None:
    if undo_is_broken and what == "flight":
        raise OSError("the airline does not answer")
    log.append(f"unbook {what}")


@workflow
async def books_a_trip(last: str) -> str:
    for what in ("flight", "hotel", last):
        compensate(unbook(what))
        await book(what)
    await proceed.receive()
    return "booked"


async def test_what_was_done_is_undone_in_reverse_order_and_the_run_fails_with_its_error(
    harness: Harness,
) -> None:
    with pytest.raises(RunFailed) as caught:
        await harness.engine.run(books_a_trip("moon trip"))

    assert isinstance(caught.value.__cause__, TooExpensive)
    assert log[3:] == ["unbook moon trip", "unbook hotel", "unbook flight"]


async def test_a_run_that_ends_well_undoes_nothing(harness: Harness) -> None:
    run = await harness.engine.start(books_a_trip("car"))
    await run.send(proceed, "yes")

    assert await run.result() == "booked"
    assert log == ["book flight", "book hotel", "book car"]


async def test_a_cancelled_run_undoes_too(harness: Harness) -> None:
    run = await harness.engine.start(books_a_trip("car"))
    await harness.settle()
    await run.cancel()

    with pytest.raises(RunCancelled):
        await run.result()
    assert log[3:] == ["unbook car", "unbook hotel", "unbook flight"]


async def test_undoing_goes_on_after_a_crash_and_nothing_recorded_is_undone_twice(harness: Harness) -> None:
    await harness.engine.start(books_a_trip("moon trip"), id="one")
    harness.store.before_commit = lambda batch: harness.store.kill() if "unbook hotel" in log else None
    await harness.until(lambda: harness.engine.driver.committer.error)
    await harness.crash()

    with pytest.raises(RunFailed):
        await (await harness.engine.get("one")).result()
    assert log.count("unbook moon trip") == 1
    assert log.count("unbook flight") == 1
    assert log[-1] == "unbook flight"


async def test_an_undo_that_fails_parks_the_run_and_resume_tries_only_that_again(harness: Harness) -> None:
    global undo_is_broken
    undo_is_broken = True
    run = await harness.engine.start(books_a_trip("moon trip"))
    with pytest.raises(RunParked, match="airline"):
        await run.result()
    undone_before = list(log)

    undo_is_broken = False
    await run.resume()

    with pytest.raises(RunFailed) as caught:
        await run.result()
    assert isinstance(caught.value.__cause__, TooExpensive)
    assert undone_before[3:] == ["unbook moon trip", "unbook hotel"]
    assert log[len(undone_before) :] == ["unbook flight"]


async def test_an_undo_may_be_a_child(harness: Harness) -> None:
    @workflow
    async def unbooks_all(what: str) -> None:
        await unbook(what)

    @workflow
    async def undoes_by_a_child() -> None:
        compensate(unbooks_all("cruise"))
        await book("moon trip")

    with pytest.raises(RunFailed):
        await harness.engine.run(undoes_by_a_child())

    assert log == ["book moon trip", "unbook cruise"]
