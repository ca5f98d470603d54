"""Shadows of handlers: they get the same events, do nothing of what they would, and are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from perdure import (
    Comparison,
    DefinitionError,
    Difference,
    Effect,
    Event,
    Held,
    PerdureError,
    Retry,
    Shadow,
    Signal,
    Stream,
    start_within,
    workflow,
)
from perdure.sync import Client as SyncClient
from perdure.testing import Harness
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]


@dataclass(frozen=True)
class Charged:
    order: str
    amount: int


@workflow
async def ship(order: str, amount: int) -> None: ...


go = Signal[int]("go")


@workflow
async def wait() -> int:
    return await go.receive()


@pytest.fixture
def charges(name: str) -> Stream[Charged]:
    return Stream(f"{name}-charges", Charged, key=lambda one: one.order)


def kept(harness: Harness, stream: Stream[Any]) -> list[str]:
    """The payloads of the events that a stream has."""
    page = harness.store.store.streams.events(stream.name, after=0, limit=1_000)
    return [event.payload.decode() for event in page.events]


async def test_what_a_shadow_does_is_held_back_and_is_as_the_handler_did_it(
    harness: Harness, orders: Orders, charges: Stream[Charged]
) -> None:
    seen = list[tuple[str, bool]]()

    @orders.on()
    async def charge(event: Event[Placed]) -> None:
        seen.append((event.idempotency_key, event.is_shadow))
        charged = Charged(event.key, event.data.amount)
        await harness.append(charges, charged, id=event.idempotency_key)
        await harness.start(ship(event.key, event.data.amount), id=f"ship-{event.idempotency_key}")
        await harness.append(charges, charged)

    await harness.open_once()
    for amount in range(3):
        await harness.append(orders, Placed(f"order-{amount}", amount))
    await harness.until(lambda: len(kept(harness, charges)) == 6)
    before, runs = kept(harness, charges), len((await harness.list()).runs)
    shadow = await harness.subscription(charge).fork("new")
    await harness.until(lambda: len(kept(harness, shadow.held)) == 3)
    result = await harness.subscription(shadow).compare()

    keys = [key for key, is_shadow in seen if not is_shadow]
    assert sorted(key for key, is_shadow in seen if is_shadow) == sorted(keys)
    assert (kept(harness, charges), len((await harness.list()).runs)) == (before, runs)
    assert result == Comparison(handled=3, same=6, unknown=3, differences=[])


async def test_what_other_code_would_do_otherwise_is_shown(
    harness: Harness, orders: Orders, charges: Stream[Charged]
) -> None:
    factor, done = [1], list[int]()

    @orders.on()
    async def charge(event: Event[Placed]) -> None:
        done.append(event.data.amount)
        if event.data.amount == 2 and factor == [1]:
            return
        amount = event.data.amount * (factor[0] if event.data.amount else 1)
        await harness.append(charges, Charged(event.key, amount), id=event.idempotency_key)

    await harness.open_once()
    for amount in range(3):
        await harness.append(orders, Placed("a", amount))
    await harness.until(lambda: len(done) == 3)
    factor[0] = 10
    shadow = await harness.subscription(charge).fork("new")
    await harness.settle()
    await harness.until(lambda: len(kept(harness, shadow.held)) == 3)
    result = await harness.subscription(shadow.name, orders.name).compare()

    assert (result.handled, result.same) == (3, 1)
    assert isinstance(result.differences[0], Difference)
    assert [(one.verdict, one.effect.data, one.found) for one in result.differences] == [
        ("differs", '{"order":"a","amount":10}', '{"order":"a","amount":1}'),
        ("missing", '{"order":"a","amount":20}', ""),
    ]
    assert len((await harness.subscription(shadow).compare(limit=1)).differences) == 1


async def test_a_shadow_in_a_transaction_writes_nothing(
    harness: Harness, orders: Orders, charges: Stream[Charged]
) -> None:
    table = "till_" + orders.name.replace("-", "_")
    found = list[tuple[bool, int]]()

    @orders.on(transaction=True)
    def charge(event: Event[Placed], connection: Any) -> None:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (amount integer)")
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        found.append((event.is_shadow, rows))
        connection.execute(f"INSERT INTO {table} VALUES ({event.data.amount})")
        charges.append_within(Charged(event.key, event.data.amount), id=event.idempotency_key)
        start_within(ship(event.key, event.data.amount), id=f"ship-{event.idempotency_key}")

    await harness.open_once()
    await harness.append(orders, Placed("a", 7))
    await harness.settle()
    shadow = await harness.subscription(charge).fork("new")
    await harness.settle()
    before, runs = kept(harness, charges), len((await harness.list()).runs)
    await harness.append(orders, Placed("a", 8))
    await harness.settle()
    result = await harness.subscription(shadow).compare()

    assert [rows for is_shadow, rows in found if not is_shadow] == [0, 1]
    assert sum(is_shadow for is_shadow, _ in found) == 2
    assert (len(before), runs) == (1, 1)
    assert (len(kept(harness, charges)), len((await harness.list()).runs)) == (2, 2)
    assert (result.handled, result.same, result.differences) == (2, 4, [])


async def test_a_shadow_on_a_thread_is_held_back_too(
    harness: Harness, orders: Orders, charges: Stream[Charged]
) -> None:
    @orders.on()
    def charge(event: Event[Placed]) -> None:
        with SyncClient(harness.url) as client:
            client.append(charges, Charged(event.key, 1), id=event.idempotency_key)

    await harness.open_once()
    await harness.append(orders, Placed("a"))
    await harness.until(lambda: kept(harness, charges))
    shadow = await harness.subscription(charge).fork("new")
    await harness.until(lambda: kept(harness, shadow.held))
    result = await harness.subscription(shadow).compare()

    assert len(kept(harness, charges)) == 1
    assert (result.handled, result.same) == (1, 1)


async def test_what_is_sent_to_runs_is_held_back(harness: Harness, orders: Orders) -> None:
    @orders.on()
    async def charge(event: Event[Placed]) -> None:
        if event.is_shadow:
            await harness.send("waiting", go, event.data.amount)
            await harness.cancel("waiting", "enough")

    await harness.open_once()
    run = await harness.start(wait(), id="waiting")
    await harness.append(orders, Placed("a", 7))
    await harness.settle()
    shadow = await harness.subscription(charge).fork("new")
    await harness.until(lambda: kept(harness, shadow.held))
    await harness.settle()
    (event,) = harness.store.store.streams.events(shadow.held.name, after=0, limit=9).events

    effects = shadow.held.decode(event).effects
    assert [(one.kind, one.type, one.data) for one in effects][:1] == [("send", "go", "7")]
    assert [one.type for one in effects] == ["go", "cancel"]
    assert (await run.status()).is_open
    assert (await harness.subscription(shadow).compare()).unknown == 2


async def test_what_cannot_be_held_back_is_refused_and_parks_the_event_in_the_shadow(
    harness: Harness, orders: Orders
) -> None:
    @orders.on(retry=Retry(attempts=1))
    async def charge(event: Event[Placed]) -> None:
        run = await harness.start(ship(event.key, 1))
        if event.is_shadow:
            await run.result()

    await harness.open_once()
    await harness.append(orders, Placed("a"))
    await harness.settle()
    shadow = await harness.subscription(charge).fork("new")
    await harness.settle()
    (parked,) = await harness.subscription(shadow).parked()

    assert "The function of a shadow waits for a run" in parked.error
    assert await harness.subscription(charge).parked() == []


async def test_what_it_would_do_are_events_that_others_can_handle(
    harness: Harness, orders: Orders, charges: Stream[Charged]
) -> None:
    told = list[Held]()

    @orders.on()
    async def charge(event: Event[Placed]) -> None:
        await harness.append(charges, Charged(event.key, 1), id=event.idempotency_key)

    await harness.open_once()
    await harness.append(orders, Placed("a"))
    await harness.until(lambda: kept(harness, charges))
    shadow: Shadow[Placed] = await harness.subscription(charge).fork("new")

    @shadow.held.on()
    async def tell(event: Event[Held]) -> None:
        told.append(event.data)

    await harness.until(lambda: told)

    (held,) = told
    key = f"{charge.name}/{orders.name}/{held.position}"
    data = '{"order":"a","amount":1}'
    assert held.effects == [Effect("append", charges.name, key, "", "Charged", "a", data)]
    assert tell.name == "tell"


async def test_forked_again_it_goes_on_where_it_was(harness: Harness, orders: Orders) -> None:
    seen = list[int]()

    @orders.on()
    async def charge(event: Event[Placed]) -> None:
        if event.is_shadow:
            seen.append(event.data.amount)

    await harness.open_once()
    for amount in range(3):
        await harness.append(orders, Placed("a", amount))
    await harness.settle()
    shadow = await harness.subscription(charge).fork("new", begin="latest")
    await harness.append(orders, Placed("a", 3))
    await harness.advance(2)
    again = await harness.subscription(charge).fork("new", begin="earliest")
    await harness.restart()
    await harness.append(orders, Placed("a", 4))
    await harness.settle()

    assert seen == [3, 4]
    assert shadow.name == again.name == "charge~new"


async def test_what_has_no_function_to_call_is_refused(harness: Harness, orders: Orders) -> None:
    windows = orders.window(Placed, tumbling=60, initial=0, name="windows")(lambda total, event: total)

    @orders.on()
    async def charge(event: Event[Placed]) -> None: ...

    await harness.open_once()
    await harness.append(orders, Placed("a"))
    await harness.settle()

    with pytest.raises(DefinitionError, match="has no shadow"):
        await harness.subscription(windows).fork("new")
    with pytest.raises(PerdureError, match="its function is needed"):
        await harness.subscription(charge.name, orders.name).fork("new")
    assert not any(isinstance(one, Shadow) for one in [charge, windows])
