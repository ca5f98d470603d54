"""Seven orders and what happens to them. Each scene is complete in itself: the tests play them one by one.

A scene prepares the service's faults, starts an order, and brings it to its end.
It returns the end as the engine tells it; whether that is true, the service's
books say (`audit`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure import Engine
from perdure.errors import RunFailed

from .client import queue_faults, wait_for_request
from .workflow import Order, approval, checkout, status

ROOT = Path(__file__).resolve().parents[2]
STOCK = {"lamp": 20, "chandelier": 0}


@dataclass(frozen=True, slots=True)
class Shop:
    """Where the service listens, and where the runs are kept."""

    url: str
    store: str
    """As an engine takes it: `sqlite:///checkout.db`."""

    def open_engine(self) -> Engine:
        return Engine(self.store)


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of an order, as its run tells."""

    order: str
    delivered: bool
    said: str
    """The receipt or the error, in words."""
    status: str
    """The last status that the run published."""


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    story: str
    play: Callable[[Shop], Awaitable[Ending]]


@asynccontextmanager
async def open_shop(store: str) -> AsyncGenerator[Shop, None]:
    """Start the service in a process of its own, with full shelves; it ends with the block."""
    process = await start_module(
        "examples.checkout.service", "--stock", msgspec.json.encode(STOCK).decode(), piped=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    before = os.environ.get("SHOP_URL")
    try:
        url = (await process.stdout.readline()).decode().strip()
        # Steps read the address from the environment, here and in the workers that are started from here.
        os.environ["SHOP_URL"] = url
        yield Shop(url, store)
    finally:
        if before is None:
            os.environ.pop("SHOP_URL", None)
        else:
            os.environ["SHOP_URL"] = before
        process.stdin.close()
        await process.wait()


async def start_module(module: str, *arguments: str, piped: bool = False) -> Process:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=PIPE if piped else None,
        stdout=PIPE if piped else None,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        # Ctrl-C at the terminal is for the story alone; it ends the others in good order.
        start_new_session=True,
    )


async def bring_to_end(shop: Shop, order: Order, *, approved_by: str | None = None) -> Ending:
    """Start the order, or find it if it was started before, and wait for its end."""
    async with shop.open_engine() as engine:
        run = await engine.start(checkout(order), id=order.id)
        if approved_by is not None:
            # It may come before the run waits for it: a signal is kept until it is received.
            await run.send(approval, approved_by)
        try:
            receipt = await run.result()
            delivered, said = True, f"{receipt.payment}, approved by {receipt.approved_by}"
        except RunFailed as error:
            delivered, said = False, str(error.__cause__ or error)
        return Ending(order.id, delivered, said, str(await run.state(status)))


async def play_happy(shop: Shop) -> Ending:
    return await bring_to_end(shop, Order("order-1", "lamp", 1, 4_200))


async def play_flaky(shop: Shop) -> Ending:
    await asyncio.to_thread(queue_faults, shop.url, "/charges", "fail", times=2)
    await asyncio.to_thread(queue_faults, shop.url, "/charges", "hang")
    return await bring_to_end(shop, Order("order-2", "lamp", 1, 4_200))


async def play_late(shop: Shop) -> Ending:
    await asyncio.to_thread(queue_faults, shop.url, "/charges", "late")
    return await bring_to_end(shop, Order("order-3", "lamp", 2, 8_400))


async def play_out_of_stock(shop: Shop) -> Ending:
    await asyncio.to_thread(queue_faults, shop.url, "/refunds", "fail")
    return await bring_to_end(shop, Order("order-4", "chandelier", 1, 90_000))


async def play_not_approved(shop: Shop) -> Ending:
    return await bring_to_end(shop, Order("order-5", "lamp", 9, 378_000, approve_within_seconds=1.0))


async def play_approved(shop: Shop) -> Ending:
    return await bring_to_end(shop, Order("order-6", "lamp", 9, 378_000), approved_by="ann")


async def play_killed(shop: Shop) -> Ending:
    """Kill the worker when the card has been charged and the answer is still under way: the worst moment."""
    order = Order("order-7", "lamp", 1, 4_200)
    await asyncio.to_thread(queue_faults, shop.url, "/charges", "late")
    worker = await start_module(
        "examples.checkout.worker",
        *("--store", shop.store),
        *("--order", msgspec.json.encode(order).decode()),
    )
    try:
        await asyncio.to_thread(wait_for_request, shop.url, "/charges", order.id)
    finally:
        worker.kill()
        await worker.wait()
    return await bring_to_end(shop, order)


SCENES = (
    Scene("A good day", "Nothing fails.", play_happy),
    Scene("A flaky payment service", "It says 503 twice, and then nothing at all.", play_flaky),
    Scene(
        "A late answer",
        "The card is charged, but the answer comes too late. The second try has the same idempotency key.",
        play_late,
    ),
    Scene(
        "Out of stock",
        "The card is charged before the shelf turns out to be empty. The refund fails at first, too.",
        play_out_of_stock,
    ),
    Scene("Nobody approves", "A large order waits one second for an approval.", play_not_approved),
    Scene("Ann approves", "The same, and Ann says yes.", play_approved),
    Scene(
        "A worker is killed",
        "SIGKILL, after the card was charged and before the answer arrived. Another worker goes on.",
        play_killed,
    ),
)
