"""Orders of a shop: the work of the processes that are killed. Three runs, and nearly every block.

Each step notes its effect at the moment of it, and which results its workflow had
seen by then.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from perdure import (
    Client,
    Engine,
    Retry,
    RunCancelled,
    RunParked,
    Signal,
    State,
    StoreUnavailable,
    compensate,
    step,
    step_info,
    workflow,
)
from perdure.runtime.clock import SystemClock
from perdure.testing.engine import HarnessEngine

from .lives import Notes, Witness

nudge = Signal[int]("nudge")
stage = State[str]("stage")
ORDERS = 2
_FLAKY_TRIES = 2


class Death:
    """Counts moments, and ends this process at those that are named: `("step", 3)`, the third of its kind."""

    def __init__(self, moments: tuple[tuple[str, int], ...] = ()) -> None:
        self._moments = {*moments}
        self.seen = Counter[str]()

    def may_come(self, moment: str) -> None:
        """This is a moment at which the process may die."""
        self.seen[moment] += 1
        if (moment, self.seen[moment]) in self._moments:
            os.kill(os.getpid(), signal.SIGKILL)


class Process:
    """What a life of this program knows."""

    death = Death()
    ledger: Notes


def effect(name: str, *, after: list[str]) -> str:
    """Do what cannot be undone. `after`: the keys of the steps whose results the workflow had."""
    info = step_info()
    Process.death.may_come("step")
    Process.ledger.add(info.run_id, info.key, info.idempotency_key, name, after)
    Process.death.may_come("effect")
    return info.key


@step(retry=Retry(delay=0))
async def pay(part: int, after: list[str]) -> str:
    return effect(f"pay {part}", after=after)


@step(retry=Retry(delay=0))
def pack(after: list[str]) -> str:
    return effect("pack", after=after)


@step(retry=Retry(delay=0))
async def flaky(after: list[str]) -> str:
    key = effect("flaky", after=after)
    if step_info().attempt < _FLAKY_TRIES:
        raise OSError("the line broke")
    return key


@step(retry=Retry(delay=0))
async def give_back() -> None:
    effect("give back", after=[])


@workflow
async def wrap() -> str:
    return await pack([])


@workflow
async def ship() -> list[Any]:
    stage.set("paying")
    paid = list(await asyncio.gather(*(pay(part, []) for part in range(2))))
    paid.append(await pay(2, paid))
    await wrap()
    await asyncio.sleep(0.005)
    nudged = await nudge.receive() + await nudge.receive()
    paid.append(await flaky(paid))
    stage.set("shipped")
    return [nudged, len(paid)]


@workflow
async def regret() -> None:
    compensate(give_back())
    await pay(9, [])
    await asyncio.Event().wait()


async def work(witness: Witness, death: Death) -> None:
    """A life: bring all orders to their end."""
    Process.death, Process.ledger = death, witness.ledger
    engine = HarnessEngine(witness.url, clock=SystemClock())
    async with engine:
        engine.faulty.before_commit = lambda batch: death.may_come("before commit")
        engine.faulty.after_commit = lambda batch: death.may_come("after commit")
        await drive_all(engine, witness.acknowledged)


async def serve(witness: Witness) -> None:
    """A life: run whatever others start, for ever."""
    Process.death, Process.ledger = Death(), witness.ledger
    async with Engine(witness.url) as engine:
        await engine.serve()


async def ask(witness: Witness) -> None:
    """A life of a client: it runs nothing, and brings all orders to their end."""
    async with Client(witness.url) as client:
        await drive_all(client, witness.acknowledged)


async def drive_all(client: Client, acknowledged: Notes, *, batch: str = "", insists: bool = False) -> None:
    """Start every order, and see that it comes to the right end.

    `batch`: what the ids begin with. `insists`: asks again, with the same ids, where nothing answered.
    """
    work = [partial(drive, client, f"{batch}order-{number}", acknowledged) for number in range(ORDERS)]
    work.append(partial(drive_regret, client, f"{batch}regret", acknowledged))
    await asyncio.gather(*(insist(one) if insists else one() for one in work))


async def insist(ask: Callable[[], Awaitable[None]]) -> None:
    """Ask until the store answers."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(0.02)


async def drive(client: Client, run_id: str, acknowledged: Notes) -> None:
    run = await client.start(ship(), id=run_id)
    acknowledged.add("started", run_id)
    for value in (10, 20):
        await run.send(nudge, value, id=str(value))
        acknowledged.add("sent", run_id, value)
    while True:
        try:
            result = await run.result()
        except RunParked:  # its worker died five times in one place
            await run.resume()
        else:
            break
    assert result == [30, 4], result
    assert await run.state(stage) == "shipped"


async def drive_regret(client: Client, run_id: str, acknowledged: Notes) -> None:
    run = await client.start(regret(), id=run_id)
    acknowledged.add("started", run_id)
    await run.cancel("regretted")
    while True:
        try:
            await run.result()
        except RunCancelled:
            return
        except RunParked:
            await run.resume()


def assert_all_was_done(witness: Witness, batches: Iterable[str] = ("",)) -> None:
    """Every effect came about."""
    effects = {(line[0], line[3]) for line in witness.ledger.lines()}
    for batch in batches:
        runs = [f"{batch}order-{number}" for number in range(ORDERS)]
        expected = {(run, what) for run in runs for what in ("pay 0", "pay 1", "pay 2", "flaky")}
        expected.add((f"{batch}regret", "give back"))
        assert expected <= effects, f"never done: {expected - effects}"
