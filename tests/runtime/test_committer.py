"""What the store is asked beside commits: nobody is left waiting, whatever goes wrong there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure import Engine
from perdure.core.ready import Ready
from perdure.errors import LeaseLost
from perdure.runtime.reads import Reads
from perdure.stores.base import Store
from perdure.stores.opening import open_store
from perdure.testing.crashing.doomed import InlineCommitter
from tests.runtime.test_reads_off_the_loop import FarStore


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with asyncio.timeout(10), Engine(f"sqlite:///{tmp_path}/runs.db") as engine:
        yield engine


def divide_by_zero(_: Store) -> float:
    return 1 / 0


def leave(_: Store) -> None:
    raise SystemExit("the process is told to end")


async def test_any_error_of_a_verb_is_raised_where_it_is_waited_for_and_the_writer_goes_on(
    engine: Engine,
) -> None:
    committer = engine._driver.committer

    with pytest.raises(ZeroDivisionError):
        await committer.wait_between(divide_by_zero)
    after = await committer.wait_between(lambda _: "written")

    assert after == "written"
    assert committer.error is None


async def test_any_error_of_a_verb_goes_to_whom_its_result_would_go(engine: Engine) -> None:
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    engine._driver.committer.ask_between(divide_by_zero, told.set_result)

    assert isinstance(await told, ZeroDivisionError)


async def test_what_ends_a_process_stops_the_worker_and_everybody_hears_of_it(engine: Engine) -> None:
    committer = engine._driver.committer
    asked = asyncio.ensure_future(committer.wait_between(leave))
    written: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    committer.after_commit(written.set_result)
    committer.check_lease()

    with pytest.raises(LeaseLost, match="told to end"):
        await asked

    assert isinstance(committer.error, SystemExit)
    await written
    with pytest.raises(LeaseLost, match="told to end"):
        await committer.wait_between(lambda _: "written")
    with pytest.raises(SystemExit):
        await engine.serve()


async def test_who_waited_for_a_commit_under_way_when_the_worker_stopped_is_told_once(engine: Engine) -> None:
    committer, gate, told = engine._driver.committer, threading.Event(), list[Exception | None]()
    found: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    committer.ask_between(leave, found.set_result)
    committer.ask_between(lambda _: gate.wait(), lambda _: None)
    committer.after_commit(told.append)
    committer.check_lease()

    await found
    gate.set()
    written = threading.Event()
    committer._work.put(written.set)  # pyright: ignore[reportArgumentType]
    await asyncio.to_thread(written.wait)
    await asyncio.sleep(0)

    assert [type(one) for one in told] == [LeaseLost]
    assert isinstance(committer.error, SystemExit)


async def test_a_worker_that_is_crashed_in_tests_hands_over_any_error_too(tmp_path: Path) -> None:
    with closing(open_store(f"sqlite:///{tmp_path}/runs.db")) as store:
        lease = store.acquire("w", now_ms=0, ttl_ms=15_000, tags=())
        stopped: list[BaseException] = []
        committer = InlineCommitter(store, lease, Ready(), lambda *_: None, stopped.append)

        with pytest.raises(ZeroDivisionError):
            await committer.wait_between(divide_by_zero)
        before = list(stopped)
        with pytest.raises(LeaseLost, match="told to end"):
            await committer.wait_between(leave)

    assert not before
    assert [type(one) for one in stopped] == [SystemExit]


@pytest.mark.parametrize("is_far", [True, False], ids=["on a thread", "at once"])
async def test_any_error_of_a_read_is_raised_where_it_is_waited_for(tmp_path: Path, is_far: bool) -> None:
    with closing(open_store(f"sqlite:///{tmp_path}/runs.db")) as store:
        reads = Reads(FarStore(store) if is_far else store)

        async with asyncio.timeout(10):
            with pytest.raises(ZeroDivisionError):
                await reads.wait(divide_by_zero)

        reads.stop()


async def test_a_read_that_must_go_on_is_asked_again_after_any_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.runtime.reads._AGAIN_S", 0.0)
    found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    divisors = [0.5, 0]
    with closing(open_store(f"sqlite:///{tmp_path}/runs.db")) as store:
        reads = Reads(FarStore(store))

        reads.ask_again(lambda _: 1 / divisors.pop(), found.set_result, "dividing")
        async with asyncio.timeout(10):
            quotient = await found

        reads.stop()
    assert quotient == 2.0
    assert "While dividing. Trying again." in caplog.text
    assert "ZeroDivisionError" in caplog.text
