"""The engine, the client and run handles, awaiting and blocking: what goes in, and what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

from perdure import (
    Client,
    Engine,
    Run,
    RunPage,
    RunStatus,
    RunView,
    Signal,
    State,
    Update,
    step,
    sync,
    workflow,
)

approval = Signal[str]("approval")
progress = State[int]("progress")
resize = Update[int, list[str]]("resize")


@step
async def charge(cents: int) -> str:
    return str(cents)


@workflow
async def checkout(cents: int, *, currency: str = "EUR") -> list[str]:
    return [await charge(cents), currency]


@workflow
async def returns_nothing() -> None: ...


async def awaits(engine: Engine) -> None:
    run = await engine.start(checkout(5, currency="CHF"), id="order-17", tags={"shop": "north"})
    assert_type(run, Run[list[str]])
    assert_type(await run.result(), list[str])
    assert_type(await engine.run(checkout(5)), list[str])
    assert_type(await engine.run(returns_nothing()), None)
    await engine.start(checkout(5), timeout=timedelta(days=1), on_conflict="raise", reuse="if_failed")

    await engine.start(checkout("5"))  # error: reportArgumentType
    await engine.start(checkout(5, curency="CHF"))  # error: reportCallIssue, reportUnknownArgumentType
    await engine.start(checkout)  # error: reportArgumentType
    await engine.start(charge(5))  # error: reportArgumentType
    await engine.run(charge(5))  # error: reportArgumentType
    await engine.start(checkout(5), "order-17")  # error: reportCallIssue
    await engine.start(checkout(5), on_conflict="ignore")  # error: reportArgumentType
    await engine.start(checkout(5), timeout="1 day")  # error: reportArgumentType
    engine.start(checkout(5))  # error: reportUnusedCoroutine
    total: int = await run.result()  # error: reportAssignmentType
    del total


async def finds(engine: Engine, client: Client) -> None:
    assert_type(await engine.get("order-17", checkout), Run[list[str]])
    assert_type(await (await client.get("order-17", returns_nothing)).result(), None)
    unknown = await engine.get("order-17")
    assert_type(unknown, Run[Any])
    assert_type(await engine.info("order-17"), RunView)
    assert_type(await engine.list(status=[RunStatus.PARKED], workflow=checkout), RunPage)

    await engine.get(17, checkout)  # error: reportCallIssue, reportArgumentType
    await engine.get("order-17", charge)  # error: reportCallIssue, reportArgumentType
    await engine.list(status="parked")  # error: reportArgumentType


async def talks(run: Run[list[str]], client: Client) -> None:
    await run.send(approval, "ann")
    await client.send("order-17", approval, "ann")
    assert_type(await run.state(progress), int | None)
    assert_type(await run.state(progress, 0), int | None)
    assert_type(await run.update(resize, 3), list[str])
    assert_type(await client.update("order-17", resize, 3), list[str])
    async for value in run.watch(progress):
        assert_type(value, int)
    assert_type(await run.status(), RunStatus)

    await run.send(approval, 7)  # error: reportArgumentType
    await run.send(progress, 7)  # error: reportArgumentType
    await client.send("order-17", approval, 7)  # error: reportArgumentType
    await run.update(resize, "three")  # error: reportArgumentType
    await run.state(approval)  # error: reportArgumentType


def blocks() -> None:
    with sync.Engine("sqlite:///shop.db") as engine:
        assert_type(engine, sync.Engine)
        run = engine.start(checkout(5), id="order-17")
        assert_type(run, sync.Run[list[str]])
        assert_type(run.result(), list[str])
        assert_type(run.result(timeout=1.5), list[str])
        assert_type(engine.run(returns_nothing()), None)
        assert_type(engine.get("order-17", checkout), sync.Run[list[str]])
        assert_type(engine.get("order-17"), sync.Run[Any])
        assert_type(engine.list(), RunPage)
        assert_type(run.state(progress), int | None)
        assert_type(run.update(resize, 3), list[str])
        assert_type(engine.update("order-17", resize, 3), list[str])
        for value in run.watch(progress):
            assert_type(value, int)
        run.send(approval, "ann")
        reach: Callable[[str], RunView] = engine.info
        reach("order-17")

        engine.start(checkout("5"))  # error: reportArgumentType
        engine.start(charge(5))  # error: reportArgumentType
        engine.send("order-17", approval, 7)  # error: reportArgumentType
        run.update(resize, "three")  # error: reportArgumentType
        total: int = run.result()  # error: reportAssignmentType
        del total
    with sync.Client("sqlite:///shop.db") as client:
        assert_type(client, sync.Client)
        assert_type(client.run(checkout(5)), list[str])


async def mixed(engine: sync.Engine) -> None:
    # The blocking one in a thread, where a loop runs.
    assert_type(await asyncio.to_thread(engine.run, checkout(5)), list[str])
    await engine.run(checkout(5))  # error: reportGeneralTypeIssues
