"""Steps in a transaction: what they write and their result are on disk together, or neither is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    LeaseLost,
    Retry,
    RunParked,
    StepError,
    StepFailed,
    StoreNotOurs,
    step,
    step_info,
    workflow,
)
from perdure.testing import Harness, crash_everywhere

calls: list[str] = []
table = ""


@pytest.fixture(autouse=True)
def forget() -> None:
    global table
    calls.clear()
    table = "note"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    global table
    found: str = request.getfixturevalue("postgres_url")
    table = f"{found.rpartition('schema=')[2]}.note"  # goes with the store's own tables after the test
    return found


def note(text: str) -> int:
    """Write a line into a table of the user's; give how many there are."""
    connection: Any = step_info().connection
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (text TEXT)")
    mark = "?" if type(connection).__module__.startswith("apsw") else "%s"
    connection.execute(f"INSERT INTO {table} VALUES ({mark})", (text,))
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


@step(transaction=True)
def writes(text: str) -> int:
    calls.append(text)
    return note(text)


@step(transaction=True, retry=Retry(attempts=1))
def writes_and_fails(text: str) -> None:
    note(text)
    raise ValueError(text)


@step(transaction=True)
def reads() -> list[str]:
    rows = step_info().connection.execute(f"SELECT text FROM {table} ORDER BY text").fetchall()
    return [text for (text,) in rows]


@workflow
async def writes_three_notes() -> list[str]:
    await writes("first")
    await asyncio.gather(writes("second"), writes("third"))
    return await reads()


@workflow
async def sleeps_then_writes() -> int:
    await asyncio.sleep(10)
    return await writes("it")


@workflow
async def goes_on_after_a_failure() -> list[str]:
    done, failed = await asyncio.gather(writes("kept"), writes_and_fails("undone"), return_exceptions=True)
    assert done == 1
    assert isinstance(failed, ValueError)
    return await reads()


async def test_what_a_step_writes_is_there_with_its_result(url: str) -> None:
    async with Engine(url) as engine:
        assert await engine.run(writes_three_notes()) == ["first", "second", "third"]


async def test_what_a_step_wrote_before_it_failed_is_undone_and_others_of_the_same_commit_are_not(
    url: str,
) -> None:
    async with Engine(url) as engine:
        assert await engine.run(goes_on_after_a_failure()) == ["kept"]


@pytest.mark.parametrize(
    "error",
    [StopIteration(), asyncio.CancelledError(), LeaseLost("of another"), StoreNotOurs("another")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_step_raises_stays_its_own(url: str, error: BaseException) -> None:
    @step(transaction=True, retry=Retry(attempts=1))
    def raises() -> None:
        note("undone")
        raise error

    @workflow
    async def parks() -> None:
        await raises()

    async with Engine(url) as engine, asyncio.timeout(20):
        with pytest.raises(RunParked, match=type(error).__name__):
            await engine.run(parks())
        assert await engine.run(writes_three_notes()) == ["first", "second", "third"]


async def test_a_failed_attempt_is_made_again_as_any_steps(url: str) -> None:
    @step(transaction=True, retry=Retry(attempts=3, delay=0.001))
    def fails_twice() -> int:
        calls.append("try")
        count = note("once")
        if len(calls) < 3:
            raise ValueError("not yet")
        return count

    @workflow
    async def tries() -> int:
        return await fails_twice()

    async with Engine(url) as engine:
        assert await engine.run(tries()) == 1
    assert len(calls) == 3


@pytest.mark.parametrize("what", ["COMMIT", "ROLLBACK"])
async def test_a_step_may_not_end_the_transaction(url: str, what: str) -> None:
    @step(transaction=True, retry=Retry(attempts=1))
    def ends_it() -> None:
        connection = step_info().connection
        if hasattr(connection, what.lower()):
            getattr(connection, what.lower())()
        else:
            connection.execute(what)

    @workflow
    async def is_naughty() -> list[str]:
        await writes("before")
        with pytest.raises((StepFailed, StepError, Exception)):
            await ends_it()
        return await reads()

    async with Engine(url) as engine:
        assert await engine.run(is_naughty()) == ["before"]


@pytest.mark.parametrize("what", ["DELETE FROM record", "UPDATE run SET status = 3", "DROP TABLE lease"])
async def test_a_step_may_not_write_to_perdures_own_tables(harness: Harness, what: str) -> None:
    @step(transaction=True, retry=Retry(attempts=1))
    def meddles() -> None:
        step_info().connection.execute(what)

    @workflow
    async def is_naughty() -> None:
        await meddles()

    run = await harness.start(is_naughty())

    with pytest.raises(RunParked, match="Perdure's own tables"):
        await run.result()


async def test_a_full_disk_is_not_the_steps_failure(harness: Harness) -> None:
    run = await harness.start(sleeps_then_writes())
    await harness.settle()
    harness.store.fill_up(times=2)
    await harness.advance(10)

    assert await run.result() == 1
    assert calls == ["it"]


async def test_a_workflow_with_transactions_comes_to_the_same_end_crashed_anywhere() -> None:
    report = await crash_everywhere(writes_three_notes())

    assert report.runs > 10


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"timeout": 3}, "no timeout"),
        ({"heartbeat": 3}, "no timeout"),
        ({"on": "process"}, "plain function"),
    ],
)
def test_what_a_transaction_cannot_have_is_refused(options: dict[str, Any], why: str) -> None:
    make: Callable[..., Any] = step(transaction=True, **options)

    with pytest.raises(DefinitionError, match=why):
        make(note)


async def test_an_async_function_cannot_be_in_a_transaction() -> None:
    with pytest.raises(DefinitionError, match="plain function"):

        @step(transaction=True)
        async def is_async() -> None: ...


async def test_a_step_without_a_transaction_has_no_connection(harness: Harness) -> None:
    @step(retry=Retry(attempts=1))
    def asks() -> None:
        _ = step_info().connection

    @workflow
    async def asks_for_one() -> None:
        await asks()

    run = await harness.start(asks_for_one())

    with pytest.raises(RunParked, match="transaction=True"):
        await run.result()
