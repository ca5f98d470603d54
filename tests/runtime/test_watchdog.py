"""Code that holds the engine's loop is named, once for each stall; what merely waits is not.

Nothing sleeps: what holds the loop waits for the watchdog's own report.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from perdure import Engine, step, workflow
from perdure.runtime.watchdog import Watchdog
from perdure.testing import Harness

_PATIENCE_S = 20
_LOOK_EVERY_S = 0.02


class Reports(logging.Handler):
    """What was said; who holds the loop lets go when it is named."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self.named = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "held the engine's event loop" in record.getMessage():
            self.said.append(record.getMessage())
            self.named.set()

    def hold(self, seconds: float = _PATIENCE_S) -> bool:
        """Stand still until somebody says so."""
        named = self.named.wait(seconds)
        self.named.clear()
        return named


reports = Reports()


@pytest.fixture(autouse=True)
def listen() -> Iterator[None]:
    reports.said.clear()
    reports.named.clear()
    logging.getLogger("perdure").addHandler(reports)
    yield
    logging.getLogger("perdure").removeHandler(reports)


@workflow
async def holds_the_loop() -> bool:
    return reports.hold()


@step
async def holds() -> bool:
    return reports.hold()


@step
def waits_on_a_thread() -> bool:
    return reports.hold()


@workflow
async def asks(which: str) -> bool:
    return await (holds() if which == "async" else waits_on_a_thread())


@pytest.fixture
async def quick(harness: Harness) -> AsyncIterator[Harness]:
    """An engine with a second watchdog that looks more often than its own does."""
    await harness.open_once()
    watchdog = Watchdog(harness.engine.driver, look_every_s=_LOOK_EVERY_S)
    watchdog.start()
    yield harness
    watchdog.stop()


async def let_the_loop_turn() -> None:
    """For so long that a stall would have been noticed."""
    turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(12 * _LOOK_EVERY_S, turned.set_result, None)
    await turned


async def test_an_engine_names_a_workflow_that_holds_its_loop(harness: Harness) -> None:
    named = await harness.engine.run(holds_the_loop(), id="order-17")

    assert named
    assert len(reports.said) == 1
    assert reports.said[0].startswith(
        "Workflow code of run 'order-17' has held the engine's event loop for 1.0 s"
    )
    assert f"{__file__}:" in reports.said[0]
    assert "into a function with @step" in reports.said[0]


async def test_a_step_on_the_loop_is_named_with_its_line_and_what_to_do(quick: Harness) -> None:
    named = await quick.engine.run(asks("async"), id="one")

    assert named
    assert reports.said[0].startswith("Step '0/0/holds' of run 'one' has held")
    assert f"at {__file__}:" in reports.said[0]
    assert 'on="process"' in reports.said[0]


async def test_code_that_is_no_runs_is_named_too(quick: Harness) -> None:
    await asyncio.sleep(0)  # into a turn of the loop

    named = reports.hold()

    assert named
    assert reports.said[0].startswith("Code of this program has held")
    assert "asyncio.to_thread" in reports.said[0]


async def test_one_stall_is_told_once_and_the_next_one_again(quick: Harness) -> None:
    for _ in range(2):
        assert reports.hold(0.7)  # the engine's own watchdog needs longer
        assert not reports.named.wait(10 * _LOOK_EVERY_S)  # the same stall goes on
        await let_the_loop_turn()

    assert len(reports.said) == 2


async def test_a_step_that_takes_long_on_a_thread_is_no_stall(quick: Harness) -> None:
    run = await quick.engine.start(asks("thread"))

    await let_the_loop_turn()

    said = [*reports.said]
    reports.named.set()
    assert await run.result()
    assert said == []


async def test_a_watchdog_ends_with_its_engine(tmp_path: Path) -> None:
    before = threading.enumerate()
    async with Engine(f"sqlite:///{tmp_path / 'runs.db'}"):
        threads = [thread for thread in threading.enumerate() if thread not in before]
        watchdogs = [thread for thread in threads if thread.name == "perdure-watchdog"]

    for thread in watchdogs:
        thread.join(_PATIENCE_S)

    assert [thread.is_alive() for thread in watchdogs] == [False]
