"""Two workers of different code on one store, as in a deploy: what the one parks, the other goes on with.

Guaranteed: a run that code did not fit is tried again by each worker that opens the store, whoever is
there beside it. A worker that was open before leaves it alone.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import Client, Engine, Run, RunStatus, Signal, step, workflow
from tests.runtime.waiting import until

paid = Signal[str]("paid")
shipped: list[str] = []


@step
async def check(order: str) -> str:
    return f"{order} checked"


@step
async def ship(order: str) -> str:
    shipped.append(order)
    return f"{order} shipped"


@workflow(name="deliver")
async def old_code(order: str) -> str:
    done = await ship(order)
    return f"{done}, {await paid.receive()}"


@workflow(name="deliver")
async def new_code(order: str) -> str:
    await check(order)
    done = await ship(order)
    return f"{done}, {await paid.receive()}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    shipped.clear()
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


async def let_new_code_park_it(url: str, client: Client) -> Run[str]:
    """Begin a run with the old code, which then leaves; the new code is there, and takes it up."""
    async with Engine(url, workflows=[old_code]) as older:
        await older.start(old_code("tea"), id="17")
        await until(lambda: asyncio.sleep(0, bool(shipped)))
    run = await client.get("17", old_code)
    await run.send(paid, "paid")

    async def is_parked() -> bool:
        return await run.status() is RunStatus.PARKED

    await until(is_parked)
    return run


async def test_what_new_code_parked_goes_on_with_a_worker_of_the_old_code_beside_the_new_one(
    url: str,
) -> None:
    async with Client(url) as client, Engine(url, workflows=[new_code]) as newer:
        run = await let_new_code_park_it(url, client)

        async with Engine(url, workflows=[old_code]):
            result = await run.result()
            counts = await newer.counts()

    assert result == "tea shipped, paid"
    assert shipped == ["tea"]
    assert counts == {"completed": 1}


async def test_a_worker_whose_code_does_not_fit_either_leaves_it_parked(url: str) -> None:
    async with Client(url) as client, Engine(url, workflows=[new_code]):
        run = await let_new_code_park_it(url, client)

        async with Engine(url, workflows=[new_code]):
            stayed = await run.status()

    assert stayed is RunStatus.PARKED
    assert shipped == ["tea"]
