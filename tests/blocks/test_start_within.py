"""Runs that are started in a transaction of the user's: there if and when that commits, and once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from perdure import (
    Client,
    ConflictError,
    Engine,
    OutsideRun,
    PerdureError,
    Retry,
    RunNotFound,
    RunParked,
    StepError,
    StoreError,
    start_within,
    step,
    step_info,
    sync,
    workflow,
)
from perdure.testing import Harness, crash_everywhere

calls: list[str] = []

WRITES_AND_WAITS = """
import sys
from perdure.sync import Client
from tests.blocks.test_start_within import begin, connect, greets, write

with Client(sys.argv[1]) as client, connect(sys.argv[1]) as connection:
    begin(connection)
    write(connection, "killed")
    client.start(greets("ann"), id="killed", connection=connection)
    print("written", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def forget() -> None:
    calls.clear()


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    """The user's own, to a store that is there, with a table `note`."""
    with sync.Client(url), connect(url) as opened:
        yield opened


def connect(url: str) -> AbstractContextManager[Any]:
    """A connection of the user's."""
    if url.startswith("sqlite"):
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.set_busy_timeout(10_000)
        connection.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")
        return closing(connection)
    address, _, schema = url.rpartition("schema=")
    opened = psycopg.connect(address.rstrip("?&"), autocommit=True)
    opened.execute(f"SET search_path = {schema}".encode())
    opened.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")
    opened.autocommit = False
    return closing(opened)


def begin(connection: Any) -> None:
    """Open a transaction. On a file nobody else writes meanwhile, so an engine must be open by then."""
    connection.execute("BEGIN IMMEDIATE" if isinstance(connection, apsw.Connection) else "SELECT 1")


def write(connection: Any, text: str) -> None:
    """What the user writes besides."""
    mark = "?" if isinstance(connection, apsw.Connection) else "%s"
    connection.execute(f"INSERT INTO note VALUES ({mark})", (text,))


def notes(connection: Any) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY text").fetchall()]


@workflow
async def greets(name: str) -> str:
    return f"hello {name}"


@workflow
async def parts(name: str) -> str:
    return f"goodbye {name}"


async def test_a_run_starts_when_the_transaction_commits(url: str, connection: Any) -> None:
    async with Engine(url) as engine:
        begin(connection)
        write(connection, "order-17")

        run = await engine.start(greets("ann"), id="order-17", tags={"shop": "a"}, connection=connection)
        connection.execute("COMMIT")

        assert await run.result() == "hello ann"
        assert (await run.info()).tags == {"shop": "a"}
        assert notes(connection) == ["order-17"]


async def test_a_run_leaves_no_trace_when_the_transaction_is_rolled_back(url: str, connection: Any) -> None:
    async with Client(url) as client:
        begin(connection)
        run = await client.start(greets("ann"), id="order-17", connection=connection)

        connection.execute("ROLLBACK")

        assert await client.counts() == {}
        with pytest.raises(RunNotFound, match="rolled back"):
            await run.result()


async def test_a_run_cannot_be_asked_before_the_commit(url: str, connection: Any) -> None:
    async with Engine(url) as engine:
        begin(connection)
        run = await engine.start(greets("ann"), connection=connection)

        with pytest.raises(RunNotFound, match="Commit first"):
            await run.result()
        connection.execute("COMMIT")

        assert await run.result() == "hello ann"


async def test_a_handle_on_a_run_that_was_rolled_back_is_not_one_on_another(
    url: str, connection: Any
) -> None:
    async with Engine(url) as engine:
        begin(connection)
        gone = await engine.start(greets("ann"), id="gone", connection=connection)
        connection.execute("ROLLBACK")
        assert await engine.run(greets("bob"), id="other") == "hello bob"

        with pytest.raises(RunNotFound):
            await gone.result()


def test_a_process_that_is_killed_before_it_commits_leaves_nothing(url: str, checkout: Path) -> None:
    with sync.Client(url):
        pass
    command = [sys.executable, "-c", WRITES_AND_WAITS, url]
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout}/src"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)

    with sync.Client(url) as client, connect(url) as connection:
        assert client.list().runs == []
        assert notes(connection) == []


async def test_the_same_start_again_gives_the_run_that_is_there(url: str, connection: Any) -> None:
    async with Engine(url) as engine:
        begin(connection)
        first = await engine.start(greets("ann"), id="order-17", connection=connection)
        again = await engine.start(greets("ann"), id="order-17", connection=connection)
        connection.execute("COMMIT")
        begin(connection)
        later = await engine.start(greets("ann"), id="order-17", connection=connection)
        connection.execute("COMMIT")

        assert [await run.result() for run in (first, again, later)] == ["hello ann"] * 3
        assert await engine.counts() == {"completed": 1}


@pytest.mark.parametrize(
    ("other", "name", "why"), [(greets, "bob", "other input"), (parts, "ann", "'greets'")]
)
async def test_an_id_of_another_run_is_refused_and_the_transaction_goes_on(
    url: str, connection: Any, other: Any, name: str, why: str
) -> None:
    async with Client(url) as client:
        begin(connection)
        await client.start(greets("ann"), id="order-17", connection=connection)

        with pytest.raises(ConflictError, match=why) as refused:
            await client.start(other(name), id="order-17", connection=connection)
        write(connection, "kept")
        connection.execute("COMMIT")

        assert refused.value.hint == "Use another id."  # there is no `reuse` here
        assert notes(connection) == ["kept"]
        assert await client.counts() == {"running": 1}


@pytest.mark.parametrize("policy", [{"on_conflict": "raise"}, {"on_conflict": "cancel"}, {"reuse": "always"}])
async def test_what_would_change_another_run_is_refused(
    url: str, connection: Any, policy: dict[str, Any]
) -> None:
    async with Client(url) as client:
        begin(connection)
        with pytest.raises(PerdureError, match="open transaction"):
            await client.start(greets("ann"), connection=connection, **policy)


async def test_a_connection_without_a_transaction_is_refused(url: str, connection: Any) -> None:
    if isinstance(connection, psycopg.Connection):
        connection.autocommit = True
    async with Client(url) as client:
        with pytest.raises(StoreError, match="no transaction open"):
            await client.start(greets("ann"), connection=connection)

        assert await client.counts() == {}


async def test_what_is_no_connection_is_refused_with_what_would_be(url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(StoreError, match=r"Nothing was written.*(psycopg|apsw).Connection"):
            await client.start(greets("ann"), connection=object())


def test_a_program_without_asyncio_starts_a_run_in_its_transaction(url: str, connection: Any) -> None:
    with sync.Engine(url) as engine:
        begin(connection)
        write(connection, "order-17")
        run = engine.start(greets("ann"), id="order-17", connection=connection)
        with pytest.raises(RunNotFound):
            run.result(timeout=20)

        connection.execute("COMMIT")

        assert run.result(timeout=20) == "hello ann"


async def test_a_harness_starts_a_run_in_a_transaction(harness: Harness) -> None:
    await harness.open()
    with closing(apsw.Connection(harness.url.removeprefix("sqlite:///"))) as connection:
        begin(connection)
        run = await harness.start(greets("ann"), connection=connection)
        connection.execute("COMMIT")

    assert await run.result() == "hello ann"


# -- from a step ---------------------------------------------------------------------------------


@step(transaction=True, retry=Retry(attempts=3, delay=0.001))
def places(name: str) -> str:
    """Start a run, and fail twice after that."""
    calls.append(name)
    run_id = start_within(greets(name), tags={"of": name})
    if len(calls) < 3:
        raise ValueError("not yet")
    return run_id


@workflow
async def places_an_order(name: str) -> str:
    return await places(name)


@step(transaction=True)
def places_two() -> list[str]:
    return [start_within(greets("ann")), start_within(greets("ann"))]


@workflow
async def places_two_orders() -> list[str]:
    return await places_two()


async def test_a_step_that_is_tried_again_has_started_its_run_once(url: str) -> None:
    async with Engine(url) as engine:
        run_id = await engine.run(places_an_order("ann"))

        assert len(calls) == 3
        assert await (await engine.get(run_id, greets)).result() == "hello ann"
        assert [run.id for run in (await engine.list(workflow=greets)).runs] == [run_id]


async def test_two_starts_of_a_step_are_two_runs(url: str) -> None:
    async with Engine(url) as engine:
        first, second = await engine.run(places_two_orders())

        assert first != second
        assert sum((await engine.counts()).values()) == 3


def test_a_step_gives_its_connection_to_a_client(url: str) -> None:
    with sync.Engine(url) as engine, sync.Client(url) as client:

        @step(transaction=True)
        def starts_by_a_client() -> None:
            client.start(greets("ann"), id="of-a-step", connection=step_info().connection)

        @workflow
        async def has_a_client() -> None:
            await starts_by_a_client()

        engine.run(has_a_client())

        assert engine.get("of-a-step", greets).result(timeout=20) == "hello ann"


def test_a_step_in_a_transaction_that_would_wait_for_its_own_commit_is_refused(url: str) -> None:
    with sync.Engine(url) as engine:

        @step(transaction=True, retry=Retry(attempts=1))
        def waits_for_itself() -> None:
            engine.start(greets("ann"))

        @workflow
        async def is_stuck() -> None:
            await waits_for_itself()

        with pytest.raises(RunParked, match="start_within"):
            engine.run(is_stuck())


def test_a_connection_that_is_awaited_is_refused_where_nobody_awaits(postgres_url: str) -> None:
    with sync.Client(postgres_url) as client:
        awaited = object.__new__(psycopg.AsyncConnection)

        with pytest.raises(PerdureError, match="is awaited"):
            client.start(greets("ann"), connection=awaited)


async def test_a_step_that_started_a_run_may_still_not_write_to_perdures_own_tables(tmp_path: Path) -> None:
    @step(transaction=True, retry=Retry(attempts=1))
    def meddles() -> None:
        start_within(greets("ann"))
        step_info().connection.execute("DELETE FROM record")

    @workflow
    async def is_naughty() -> None:
        await meddles()

    async with Engine(f"sqlite:///{tmp_path}/runs.db") as engine:
        with pytest.raises(RunParked, match="Perdure's own tables"):
            await engine.run(is_naughty())

        assert (await engine.list(workflow=greets)).runs == []


async def test_a_step_that_starts_a_run_under_an_id_that_is_taken_is_told_to_use_another(
    tmp_path: Path,
) -> None:
    hints: list[str] = []

    @step(transaction=True, retry=Retry(attempts=1))
    def takes_an_id() -> None:
        try:
            start_within(greets("bob"), id="order-17")
        except ConflictError as refused:
            hints.append(refused.hint)

    @workflow
    async def tries_it() -> None:
        await takes_an_id()

    async with Engine(f"sqlite:///{tmp_path}/runs.db") as engine:
        await engine.start(greets("ann"), id="order-17")
        await engine.run(tries_it())

    assert hints == ["Use another id."]


async def test_a_step_that_starts_runs_comes_to_the_same_end_crashed_anywhere() -> None:
    report = await crash_everywhere(places_two_orders())

    assert report.runs > 3


async def test_a_step_without_a_transaction_starts_nothing_within(tmp_path: Path) -> None:
    @step(retry=Retry(attempts=1))
    def has_none() -> None:
        start_within(greets("ann"))

    with pytest.raises(StepError, match="transaction=True"):
        await has_none()
    with pytest.raises(OutsideRun, match="connection="):
        start_within(greets("ann"))
