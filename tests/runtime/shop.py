"""A small program's workflows, imported by the worker and by the client in another process."""

from __future__ import annotations

import asyncio
import sys

from perdure import Client, RunCancelled, Signal, State, Update, step, workflow

approval = Signal[str]("approval")
stage = State[str]("stage")
rename = Update[str, str]("rename")


@step
async def greet(name: str) -> str:
    return f"hello {name}"


@workflow
async def shop_order(name: str) -> str:
    async def handle(new_name: str) -> str:
        nonlocal name
        name = new_name
        return f"renamed {name}"

    rename.handle(handle)
    stage.set("waiting")
    who = await approval.receive()
    return f"{await greet(name)}, approved by {who}"


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")


async def use_from_outside(url: str) -> None:
    """What another process does with a store while its worker runs."""
    async with Client(url) as client:
        run = await client.start(shop_order("ann"), id="order-1", tags={"kind": "order"})
        async for value in run.watch(stage):
            say(value)
            break
        say(await run.update(rename, "bob"))
        await run.send(approval, "the boss", id="1")
        await run.send(approval, "the boss", id="1")
        say(await run.result())
        doomed = await client.start(shop_order("carl"), id="order-2", tags={"kind": "order"})
        await doomed.cancel("not wanted")
        try:
            await doomed.result()
        except RunCancelled as error:
            say(error.what)
        say([f"{view.id} {view.status.value}" for view in (await client.list(tags={"kind": "order"})).runs])


if __name__ == "__main__":
    asyncio.run(use_from_outside(sys.argv[1]))
