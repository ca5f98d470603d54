"""What the workers of `test_workers` run.

Steps write a line to the file LEDGER at the moment of their effect, with fsync, as a
payment service would.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from perdure import Retry, step, step_info, workflow

PARTS = 4
SECONDS_OF_A_STEP = 0.1


def effect() -> None:
    """Do what cannot be undone: a line in the ledger."""
    info = step_info()
    line = json.dumps([os.getpid(), info.run_id, info.key, info.idempotency_key]) + "\n"
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(ledger, line.encode())
    os.fsync(ledger)
    os.close(ledger)


@step(retry=Retry(delay=0))
async def pay(order: int, part: int) -> int:
    effect()
    await asyncio.sleep(SECONDS_OF_A_STEP)
    return 100 * order + part


@workflow
async def ship(order: int) -> list[int]:
    return [await pay(order, part) for part in range(PARTS)]


@step(retry=Retry(delay=0))
async def fall_asleep() -> int:
    """Stands still in the worker that is to: as in a suspended machine, it does not know."""
    effect()
    if "STANDS_STILL" in os.environ:
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


@workflow
async def sleepy() -> list[int]:
    return [await fall_asleep(), await pay(0, 0)]


@step(retry=Retry(delay=0))
async def take_a_while() -> None:
    effect()
    os.write(sys.stdout.fileno(), b"begun\n")
    await asyncio.sleep(1)


@workflow
async def slow() -> None:
    for _ in range(2):
        await take_a_while()


@step(worker="gpu", retry=Retry(delay=0))
async def render() -> int:
    effect()
    os.write(sys.stdout.fileno(), b"begun\n")
    if "STANDS_STILL" in os.environ:
        os.kill(os.getpid(), signal.SIGSTOP)
    await asyncio.sleep(1)
    return os.getpid()


@workflow
async def rendered() -> int:
    return await render()


@step(worker="gpu", retry=Retry(delay=0))
async def deadly() -> None:
    effect()
    os.kill(os.getpid(), signal.SIGKILL)


@workflow
async def last_film() -> None:
    await deadly()
