"""Event streams: what may be appended, and what a handler gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from perdure import Appended, Client, Event, Handler, Stream, WorkflowCall, event, workflow


@event("placed", version=2)
@dataclass
class Placed:
    order: str


@dataclass
class Paid:
    order: str


orders: Stream[Placed | Paid] = Stream("orders", Placed | Paid, key=lambda one: one.order)
payments = Stream("payments", Paid, key=lambda one: one.order)

assert_type(payments, Stream[Paid])
Stream[Paid]("numbered", Paid, key=len)  # error: reportArgumentType


@orders.on(Placed)
async def place(event: Event[Placed]) -> None:
    assert_type(event.data, Placed)


assert_type(place, Handler[Placed])


@orders.on(Placed)  # error: reportArgumentType
async def misread(event: Event[Paid]) -> None: ...


@workflow
async def pays() -> str:
    appended = await payments.append(Paid("17"))
    await payments.append(Placed("17"))  # error: reportArgumentType
    return appended.position


async def append(client: Client) -> None:
    assert_type(await client.append(orders, Paid("17"), id="x"), Appended)
    assert_type(await client.append_batch(orders, [Paid("17"), Placed("17")]), list[Appended])
    await client.append(payments, "17")  # error: reportArgumentType


@orders.on(Placed, transaction=True)
def book(event: Event[Placed], connection: Any) -> None:
    assert_type(orders.append_within(Paid(event.key)), Appended)


assert_type(book, Handler[Placed])


@workflow
async def ships(order: str) -> int:
    paid = await orders.next(Paid, where={"order": order}, timeout=60)
    assert_type(paid, Event[Paid])
    return len(paid.data.order)


@orders.start_on(Placed, id=lambda event: event.data.order)
def shipping(event: Event[Placed]) -> WorkflowCall[int] | None:
    return ships(event.data.order)


assert_type(shipping, Handler[Placed])


@orders.start_on(Placed)  # error: reportArgumentType
def starts_nothing(event: Event[Placed]) -> str:
    return event.key


async def append_soon(client: Client) -> None:
    assert_type(await client.append_nowait(orders, Paid("17")), Appended)
    client.append_nowait(payments, "17")  # error: reportArgumentType
