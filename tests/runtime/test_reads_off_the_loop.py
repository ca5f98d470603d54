"""What blocks is not read on the loop: runs go through their lives on a store that refuses it there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Client,
    Engine,
    Retry,
    RunCancelled,
    RunClosed,
    RunParked,
    RunStatus,
    RunTerminated,
    RunTimedOut,
    Signal,
    Update,
    continue_as_new,
    run_info,
    start_child,
    step,
    workflow,
)
from perdure.core.records import MessageKind
from perdure.stores.base import Store
from perdure.stores.opening import open_store
from tests.runtime.test_late_messages import end_before_it_takes, message, waits
from tests.runtime.waiting import until

READS = {
    "attempted", "attempts", "children", "counts", "list_runs", "load", "messages", "messages_for",
    "open_runs", "parked_runs", "records", "replies", "reply", "run_by_id", "run_by_number", "sleeping_runs",
    "states", "tags_of", "workers",
}  # fmt: skip

answer = Signal[str]("answer")
double = Update[int, int]("double")
broken = True


class FarStore:
    """A file that is as slow to read as a server may be, and says who reads it on the loop."""

    reads_block = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refused: list[str] = []
        self._loop_thread = threading.get_ident()

    def listen(self, heard: Callable[[], None]) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.store, name)
        if name in READS and threading.get_ident() == self._loop_thread:
            self.refused.append(name)
            raise AssertionError(f"{name} was read on the loop")
        return verb


class FarEngine(Engine):
    """An engine on such a store."""

    far: FarStore

    async def _open(self, store: Store) -> None:
        self.far = FarStore(store)
        await super()._open(self.far)  # type: ignore[arg-type]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FarEngine]:
    """It is looked at the end that nothing was read on the loop."""
    global broken
    broken = True
    async with asyncio.timeout(30), FarEngine(f"sqlite:///{tmp_path}/runs.db") as engine:
        yield engine
    assert engine.far.refused == []


@step(retry=Retry(attempts=1))
async def fails_at_first() -> str:
    if broken:
        raise ValueError("broken")
    return "mended"


@workflow
async def waits_to_be_told() -> str:
    return await answer.receive()


@workflow
async def has_children() -> str:
    await start_child(waits_to_be_told(), id=f"{run_info().id} apart")
    return await waits_to_be_told()


@workflow
async def leaves_a_child_behind() -> str:
    await start_child(waits_to_be_told(), id="behind")
    return "gone"


@workflow
async def gives_up_its_child() -> str:
    try:
        async with asyncio.timeout(0.05):
            return await waits_to_be_told()
    except TimeoutError:
        return "gave up"


@workflow
async def goes_on(turn: int = 1) -> str:
    said = await answer.receive()
    if said == "go on":
        continue_as_new(goes_on(turn + 1))
    return f"{said} in turn {turn}"


@workflow
async def parks() -> str:
    return await fails_at_first()


async def children_are_there(engine: FarEngine) -> None:
    await until(lambda: engine.far.store.counts().get(1, 0) == 3)


async def test_a_parent_that_is_cancelled_ends_after_its_children(engine: FarEngine) -> None:
    run = await engine.start(has_children(), id="parent")
    await children_are_there(engine)

    await run.cancel("enough")
    await run.cancel("twice")
    with pytest.raises(RunCancelled, match="enough"):
        await run.result()

    assert set(engine.far.store.counts()) == {5}


async def test_a_parent_that_is_out_of_time_ends_after_its_children(engine: FarEngine) -> None:
    run = await engine.start(has_children(), id="parent", timeout=0.3)

    with pytest.raises(RunTimedOut):
        await run.result()

    assert set(engine.far.store.counts()) == {5, 7}


async def test_a_run_without_children_is_out_of_time_once(engine: FarEngine) -> None:
    run = await engine.start(waits_to_be_told(), id="one", timeout=0.05)

    with pytest.raises(RunTimedOut):
        await run.result()


async def test_a_parent_that_is_terminated_takes_its_children_along_and_refuses_updates(
    engine: FarEngine,
) -> None:
    run = await engine.start(has_children(), id="parent")
    await children_are_there(engine)

    await run.terminate("now")
    with pytest.raises(RunTerminated, match="now"):
        await run.result()
    await until(lambda: 1 not in engine.far.store.counts())

    assert engine.far.store.counts() == {5: 2, 6: 1}
    with pytest.raises(RunClosed):
        await run.update(double, 1)


async def test_children_that_are_left_behind_are_cancelled(engine: FarEngine) -> None:
    assert await engine.run(leaves_a_child_behind()) == "gone"

    with pytest.raises(RunCancelled):
        await (await engine.get("behind")).result()


async def test_a_child_that_nobody_waits_for_any_more_is_cancelled(engine: FarEngine) -> None:
    assert await engine.run(gives_up_its_child()) == "gave up"

    await until(lambda: engine.far.store.counts() == {3: 1, 5: 1})


async def test_a_run_continues_as_new_with_its_tags_and_what_it_was_sent(engine: FarEngine) -> None:
    run = await engine.start(goes_on(), id="one", tags={"shop": "a"})
    first = engine.far.store.run_by_id("one")
    assert first is not None

    await run.send(answer, "go on")
    await run.send(answer, "done")

    assert await (await engine.get("one", goes_on)).result() == "done in turn 2"
    assert (await (await engine.get("one")).info()).tags == {"shop": "a"}
    assert engine.far.store.messages_for(first.number) == []


async def test_what_a_generation_did_not_take_before_its_end_is_handed_on_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Client(url) as client:
        await client.start(waits(), id="it")
    store = open_store(url)
    sent = message(0, MessageKind.SIGNAL, "answer", b'"here"')
    end_before_it_takes(store, sent, goes_on=True)
    store.close()

    async with asyncio.timeout(30), FarEngine(url, workflows=[waits]) as engine:
        result = await (await engine.get("it", waits)).result()

    assert result == "here in turn 2"
    assert engine.far.refused == []


async def test_a_run_that_parks_is_opened_again(engine: FarEngine) -> None:
    global broken
    run = await engine.start(parks(), id="one")
    with pytest.raises(RunParked):
        await run.result()
    broken = False

    await run.resume()
    await run.resume()

    assert await run.result() == "mended"


async def test_a_run_that_is_parked_can_be_cancelled(engine: FarEngine) -> None:
    run = await engine.start(parks(), id="one")
    with pytest.raises(RunParked):
        await run.result()

    await run.cancel("enough")
    await until(lambda: engine.far.store.counts() == {5: 1})

    assert await run.status() is RunStatus.CANCELLED
