"""A client in a process of its own, on the file of a worker that runs in this one."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from perdure import Client, RunStatus
from perdure.doors import StoreDoor
from perdure.testing import Harness
from tests.runtime.shop import approval, shop_order, stage


async def test_a_client_in_another_process_starts_asks_sends_cancels_and_lists(
    harness: Harness, checkout: Path
) -> None:
    path = os.pathsep.join([str(checkout), *sys.path])

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.shop", harness.url,
        stdout=asyncio.subprocess.PIPE, cwd=checkout, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    output, _ = await process.communicate()

    assert output.decode().splitlines() == [
        "waiting",
        "renamed bob",
        "hello bob, approved by the boss",
        "Run 'order-2' was cancelled: not wanted.",
        "['order-2 cancelled', 'order-1 completed']",
    ]


async def test_what_a_client_asks_while_no_worker_runs_is_done_by_the_next_one(harness: Harness) -> None:
    await harness.stop()
    async with Client(harness.url) as client:
        run = await client.start(shop_order("ann"), id="order-1")
        await run.send(approval, "the boss")
        state_before = await run.state(stage)
        status_before = await run.status()
        await harness.open()

        assert await run.result() == "hello ann, approved by the boss"
        assert await run.state(stage) == "waiting"
    assert (state_before, status_before) == (None, RunStatus.RUNNING)


async def test_a_handle_sends_without_a_look_at_its_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(harness.url) as client:
        run = await client.start(shop_order("ann"), id="order-1")
        door = client.door
        assert isinstance(door, StoreDoor)
        looks: list[str] = []
        look = door._store.run_by_id
        monkeypatch.setattr(door._store, "run_by_id", lambda id, **of: looks.append(id) or look(id, **of))

        await run.send(approval, "the boss")

        assert await run.result() == "hello ann, approved by the boss"
    assert looks == []


async def test_what_a_handle_of_an_earlier_generation_sends_reaches_the_latest(harness: Harness) -> None:
    async with Client(harness.url) as client:
        earlier = await client.start(shop_order("ann"), id="order-1")
        await earlier.send(approval, "the boss")
        await earlier.result()
        latest = await client.start(shop_order("bob"), id="order-1", reuse="always")

        await earlier.send(approval, "her deputy")

        assert await latest.result() == "hello bob, approved by her deputy"
