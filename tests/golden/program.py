"""The program whose journals are kept for ever. Nothing in it may change: each release replays them.

What a later release adds is tried in new workflows, below the old ones.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

from perdure import (
    NonRetryable,
    Retry,
    Signal,
    State,
    StepFailed,
    Update,
    compensate,
    continue_as_new,
    now,
    patched,
    random,
    run_info,
    start_child,
    step,
    step_info,
    uuid,
    workflow,
)


class OutOfStock(NonRetryable):
    """Raised by a step, and known by name when it is replayed."""

    def __init__(self, item: str, wanted: int) -> None:
        super().__init__(f"{wanted} {item} are not there")
        self.item = item
        self.wanted = wanted


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Line:
    item: str
    count: int
    price: Decimal
    colour: Colour | None = None


@dataclass
class Order:
    id: str
    lines: list[Line]
    placed_at: datetime
    notes: frozenset[str] = frozenset()


approval = Signal[str]("approval")
parcel = Signal[Line]("parcel")
address = Update[str, str]("address")
status = State[str]("status")


@step
async def charge(order: Order) -> Decimal:
    return sum((line.price * line.count for line in order.lines), Decimal(0))


@step
def reserve(item: str, count: int) -> bytes:
    if item == "pears":
        raise OutOfStock(item, count)
    return f"{count} {item}".encode()


@step(retry=Retry(attempts=3, delay=1, jitter=False))
async def stumble(name: str) -> int:
    if step_info().attempt < 3:
        raise ConnectionError(f"{name} does not answer")
    return step_info().attempt


@step(retry=Retry(attempts=2, delay=1, jitter=False))
async def break_down(name: str) -> None:
    raise ConnectionError(f"{name} is down")


@step
async def echo(value: int) -> int:
    return value


@step
async def undo(what: str) -> str:
    return f"{what} undone"


@workflow
async def values(order: Order) -> dict[str, Decimal]:
    """Values of many types cross the journal."""
    status.set("charging")
    total = await charge(order)
    held = [await reserve(line.item, line.count) for line in order.lines]
    status.set("held")
    return {held[-1].decode(): total, str(len(order.notes)): Decimal(order.placed_at.year)}


@workflow
async def failing(item: str) -> list[str]:
    """Steps that are retried, that fail with an error of the user's, and that fail for good."""
    seen = [str(await stumble("the bank"))]
    try:
        await reserve(item, 3)
    except OutOfStock as error:
        seen.append(f"{error.item}: {error.wanted}")
    try:
        await break_down("the shop")
    except ConnectionError as error:
        seen.append(f"{isinstance(error, StepFailed)}")
    return seen


@workflow
async def fails(item: str) -> None:
    """An error that ends the run."""
    await reserve(item, 1)


@workflow
async def waiting(days: int) -> str:
    """Sleeps, timeouts that fire and that do not, and signals."""
    await asyncio.sleep(86_400 * days)
    await echo(1)
    try:
        async with asyncio.timeout(60):
            await approval.receive()
    except TimeoutError:
        status.set("late")
    async with asyncio.timeout(3_600):
        who = await approval.receive()
    return f"{who} at {now():%Y-%m-%d}, {run_info().id}"


@workflow
async def chance(count: int) -> tuple[list[int], UUID]:
    """Random numbers and UUIDs come from the run's seed."""
    numbers = [random().randrange(1_000) for _ in range(count)]
    drawn = await asyncio.gather(*(echo(random().randrange(1_000)) for _ in numbers))
    return [*numbers, *drawn, random().randrange(1_000)], uuid()


@workflow
async def branches(count: int) -> list[list[int]]:
    """gather, a TaskGroup, a queue between tasks, a race, as_completed, a semaphore."""
    gathered = await asyncio.gather(*(echo(number) for number in range(count)))
    queue: asyncio.Queue[int] = asyncio.Queue()
    limit = asyncio.Semaphore(2)

    async def produce(number: int) -> None:
        async with limit:
            queue.put_nowait(await echo(10 * number))

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(produce(number))
        queued = [await queue.get() for _ in range(count)]
    racers = [asyncio.ensure_future(echo(100 + number)) for number in range(count)]
    done, others = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    won = sorted(racer.result() for racer in done)
    for other in others:
        other.cancel()
    completed = [await one for one in asyncio.as_completed([echo(1_000 + number) for number in range(count)])]
    return [gathered, queued, won, completed]


@workflow
async def small(number: int) -> int:
    """A child."""
    if number < 0:
        raise OutOfStock("numbers", number)
    return await echo(number)


@workflow
async def parent(number: int) -> list[str]:
    """Children that are awaited, that fail, and that are started apart."""
    seen = [str(await small(number))]
    try:
        await small(-number)
    except OutOfStock as error:
        seen.append(str(error))
    apart = await start_child(small(number + 1), id=f"apart-{number}", tags={"of": "parent"})
    left = await start_child(small(number + 2), on_parent_close="abandon")
    seen.append(f"{apart.id}: {await apart}")
    seen.append(left.id)
    return seen


@workflow
async def rounds(left: int, sent: list[str]) -> list[str]:
    """Goes on as a new run until nothing is left."""
    sent.append(await approval.receive())
    if left > 1:
        continue_as_new(rounds(left - 1, sent))
    return sent


@workflow
async def asked(start: str) -> str:
    """Answers requests, and refuses some."""
    here = start

    async def move(there: str) -> str:
        nonlocal here
        await echo(len(there))
        before, here = here, there
        return before

    def look(there: str) -> None:
        if not there:
            raise ValueError("an address is not empty")

    address.handle(move, validate=look)
    await approval.receive()
    return here


@workflow
async def undone(item: str) -> None:
    """A saga whose last step fails."""
    compensate(undo("charge"))
    await echo(1)
    compensate(undo("reserve"))
    await reserve(item, 1)


@workflow
async def cancelled(name: str) -> None:
    """Is asked to stop while it waits, and cleans up."""
    try:
        await asyncio.gather(approval.receive(), small(5), asyncio.sleep(1_000))
    finally:
        status.set("cleaning up")
        await undo(name)


@workflow(timeout=3_600)
async def out_of_time(name: str) -> None:
    """Takes longer than it may."""
    try:
        await approval.receive()
    finally:
        await undo(name)


@workflow
async def changed(number: int) -> list[int]:
    """Code that was changed after runs had begun, and suits both."""
    done = [await echo(number)]
    if patched("one more"):
        done.append(await echo(number + 1))
    done.append(len(await approval.receive()))
    return done


@workflow
async def handled(count: int) -> list[str]:
    """A handler gets each signal, and a loop over signals ends by itself."""
    seen: list[str] = []
    parcel.handle(lambda line: seen.append(f"{line.count} {line.item}"))
    async for who in approval:
        seen.append(who)
        if len(seen) >= count:
            break
    return seen


@workflow
async def parks(name: str) -> None:
    """Stops for a person."""
    await echo(1)
    await break_down(name)
