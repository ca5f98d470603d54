"""Where a server does the work of a commit, runs that go in step do not all wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Signal, State, step, workflow
from perdure.core.records import Kind
from perdure.runtime import committer
from perdure.stores.base import Batch, Committed, Lease, Store
from tests.runtime.waiting import until

word = Signal[int]("word")
heard = State[int]("heard")
made: list[int] = []


class SlowStore:
    """A file that is as far away as a server. Keeps what it was given; a commit waits until it may go on."""

    reads_block = True

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[Batch] = []
        self.written: list[Batch] = []
        self.is_held = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def listen(self, heard: Callable[[], None]) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        self.batches.append(batch)
        self.is_held = not self.goes_on.is_set()
        assert self.goes_on.wait(20)
        committed = self.store.commit(lease, batch)
        self.written.append(batch)
        return committed


class SlowEngine(Engine):
    """An engine on such a store."""

    slow: SlowStore

    async def _open(self, store: Store) -> None:
        self.slow = SlowStore(store)
        await super()._open(self.slow)  # type: ignore[arg-type]

    def sizes(self) -> list[int]:
        """How many records each commit had that had any."""
        return [len(batch.records) for batch in self.slow.batches if batch.records]


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowEngine]:
    monkeypatch.setattr(committer, "_ENOUGH", 3)
    made.clear()
    async with asyncio.timeout(30), SlowEngine(f"sqlite:///{tmp_path}/runs.db") as engine:
        yield engine


@step
async def makes(number: int) -> int:
    made.append(number)
    return number


@workflow
async def in_step(number: int, steps: int) -> list[int]:
    return [await makes(number) for _ in range(steps)]


@workflow
async def hears(count: int) -> int:
    total = 0
    for _ in range(count):
        total += await word.receive() + await makes(1)
        heard.set(total)
    return total


async def test_what_is_ready_is_written_while_others_get_ready(engine: SlowEngine) -> None:
    runs = [await engine.start(in_step(number, 1)) for number in range(10)]

    await asyncio.gather(*(run.result() for run in runs))

    assert max(engine.sizes()) < 10


async def test_runs_that_go_in_step_are_written_in_turns_and_lose_nothing(engine: SlowEngine) -> None:
    runs = await asyncio.gather(*(engine.start(in_step(number, 5)) for number in range(10)))

    results = await asyncio.gather(*(run.result() for run in runs))

    assert results == [[number] * 5 for number in range(10)]
    assert sorted(made) == sorted(5 * list(range(10)))
    sizes = engine.sizes()
    assert sizes[0] == 3
    assert max(sizes) < 10
    assert sum(sizes) == 50


async def test_nothing_is_delivered_that_is_not_on_disk(engine: SlowEngine) -> None:
    runs = await asyncio.gather(*(engine.start(in_step(number, 2)) for number in range(10)))
    engine.slow.goes_on.clear()
    await until(lambda: engine.slow.is_held)
    on_disk = {record.run for batch in engine.slow.written for record in batch.records}

    await until(lambda: len(made) >= 10 + len(on_disk))
    for _ in range(10):
        await asyncio.sleep(0)
    still = list(made)
    engine.slow.goes_on.set()
    await asyncio.gather(*(run.result() for run in runs))

    assert len(still) == 10 + len(on_disk), "a first step of each, and a second one of whose first is on disk"
    assert len(made) == 20


async def test_what_belongs_together_is_in_one_commit(engine: SlowEngine) -> None:
    runs = await asyncio.gather(*(engine.start(hears(5)) for _ in range(10)))

    for number in range(5):
        await asyncio.gather(*(run.send(word, number) for run in runs))

    assert await asyncio.gather(*(run.result() for run in runs)) == [15] * 10
    taken = [len(batch.taken) for batch in engine.slow.batches]
    recorded = [sum(record.kind == Kind.SIGNAL for record in batch.records) for batch in engine.slow.batches]
    assert taken == recorded  # a message is taken as the record is written that was made of it
    assert sum(taken) == 50
