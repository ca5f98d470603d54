"""A worker that kills itself: `python -m tests.crash.program STORE LEDGER [EVENT NUMBER]`.

It starts runs (or goes on with them) and waits for their results. Each step
writes a line to the ledger at the moment of its effect, with fsync, as a payment
service would. At the given event (`before commit`, `after commit`, `step`,
`effect`, `anything`), the time it comes for the NUMBER-th time, the process dies
by SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from perdure import Retry, RunCancelled, RunParked, Signal, State, compensate, now, step, step_info, workflow
from perdure.runtime.clock import SystemClock
from perdure.testing.engine import HarnessEngine

RUNS = 8

nudge = Signal[int]("nudge")
stage = State[str]("stage")


class Death:
    """Counts events, and ends the process at the one that was named."""

    def __init__(self, event: str, number: int) -> None:
        self._event = event
        self._left = number

    def may_come(self, event: str) -> None:
        """This is a moment at which the process may die."""
        if self._event in (event, "anything"):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


death = Death("", 0)
ledger = -1


def effect(name: str) -> None:
    """Do what cannot be undone: a line in the ledger."""
    info = step_info()
    death.may_come("step")
    line = json.dumps([info.run_id, info.key, info.idempotency_key, name]) + "\n"
    os.write(ledger, line.encode())
    os.fsync(ledger)
    death.may_come("effect")


@step(retry=Retry(delay=0))
async def pay(order: int, part: int) -> int:
    effect(f"pay {order} {part}")
    return 100 * order + part


@step(retry=Retry(delay=0))
def pack(order: int) -> str:
    effect(f"pack {order}")
    return f"packed {order}"


@step(retry=Retry(delay=0))
async def flaky(order: int) -> int:
    effect(f"flaky {order}")
    if step_info().attempt < 3:
        raise OSError("the line broke")
    return step_info().attempt


@step(retry=Retry(delay=0))
async def give_back(order: int) -> None:
    effect(f"give back {order}")


@workflow
async def pack_up(order: int) -> str:
    return await pack(order)


@workflow
async def ship(order: int) -> list[Any]:
    stage.set("paying")
    parts = await asyncio.gather(*(pay(order, part) for part in range(3)))
    stage.set("packing")
    packed = await pack_up(order)
    await asyncio.sleep(0.01)
    nudged = await nudge.receive() + await nudge.receive()
    tries = await flaky(order)
    stage.set("shipped")
    return [parts, packed, nudged, tries, now().year > 2000]


@workflow
async def regrets(order: int) -> None:
    compensate(give_back(order))
    await pay(order, 9)
    await asyncio.Event().wait()


def result_of(order: int) -> list[Any]:
    """What `ship(order)` must come to, however often the worker died."""
    return [[100 * order, 100 * order + 1, 100 * order + 2], f"packed {order}", 30, 3, True]


async def drive(engine: HarnessEngine, order: int) -> None:
    """Start one order, nudge it twice, and see that it comes to the right end."""
    run = await engine.start(ship(order), id=f"order-{order}")
    for signal_id, value in (("a", 10), ("b", 20)):
        await run.send(nudge, value, id=signal_id)
    while True:
        try:
            result = await run.result()
        except RunParked:  # it died five times in one place
            await run.resume()
        else:
            break
    assert result == result_of(order), result
    assert await run.state(stage) == "shipped"


async def regret(engine: HarnessEngine, order: int) -> None:
    """Start an order and cancel it: what was paid is given back."""
    run = await engine.start(regrets(order), id=f"order-{order}")
    await run.cancel("regretted")
    while True:
        try:
            await run.result()
        except RunCancelled:
            return
        except RunParked:
            await run.resume()


async def main(store: str) -> None:
    """Bring all orders to their end, in one life or in many."""
    engine = HarnessEngine(f"sqlite:///{store}", clock=SystemClock())
    async with engine:
        engine.faulty.before_commit = lambda batch: death.may_come("before commit")
        engine.faulty.after_commit = lambda batch: death.may_come("after commit")
        orders = [drive(engine, order) for order in range(RUNS)]
        await asyncio.gather(*orders, regret(engine, RUNS))
    sys.stdout.write("done\n")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        death = Death(sys.argv[3], int(sys.argv[4]))
    ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(main(sys.argv[1]))
