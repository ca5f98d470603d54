"""Event streams: appended once, handled in order by key, and gone on with after a crash."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest

from perdure import (
    Appended,
    Client,
    DefinitionError,
    DuplicateConflict,
    Engine,
    Event,
    NonRetryable,
    NotSerialisable,
    OutsideRun,
    Retry,
    StoreError,
    StoreFull,
    Stream,
    event,
    workflow,
)
from perdure.core.events import DeadKind
from perdure.stores.base import Batch, Committed
from perdure.stores.sqlite import SqliteStore
from perdure.testing import Harness


@event("order.placed")
@dataclass(frozen=True)
class Placed:
    order: str
    amount: int = 0


@event("order.paid", version=2)
@dataclass(frozen=True)
class Paid:
    order: str


numbers = count(1)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a stream that no other test has: handlers of this one may live on until garbage is collected."""
    return f"orders-{next(numbers)}"


@pytest.fixture
def orders(name: str) -> Stream[Placed | Paid]:
    return Stream(name, Placed | Paid, key=lambda one: one.order)


async def parked(harness: Harness, stream: str, handler: str) -> list[tuple[int, DeadKind]]:
    """Positions and reasons."""
    store = harness.store.store
    row = store.streams.subscribe(stream, handler, lanes=1, from_start=True)
    return [
        (dead.position, DeadKind(dead.kind))
        for dead in store.streams.dead_events(row.number, after=0, limit=100)
    ]


async def test_what_is_appended_is_handled_once_and_in_order_of_its_key(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = defaultdict[str, list[int]](list)

    @orders.on(Placed)
    async def note(event: Event[Placed]) -> None:
        await asyncio.sleep(0)
        seen[event.key].append(event.data.amount)

    await harness.open_once()
    for amount in range(50):
        await harness.append(orders, Placed(f"order-{amount % 5}", amount))
    await harness.settle()

    assert seen == {f"order-{key}": list(range(key, 50, 5)) for key in range(5)}
    assert note.name == "note"


async def test_an_event_carries_what_names_it(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    seen = list[Event[Any]]()

    @orders.on(Paid)
    def note(event: Event[Paid]) -> None:
        seen.append(event)

    await harness.open_once()
    appended = await harness.append(orders, Paid("one"), id="payment-1", source="till")
    await harness.append(orders, Placed("one"))
    await harness.until(lambda: seen)
    await harness.settle()

    (got,) = seen
    assert (got.data, got.id, got.source, got.type, got.version) == (
        Paid("one"),
        "payment-1",
        "till",
        "order.paid",
        2,
    )
    assert (got.key, got.stream, got.position, got.attempt) == ("one", orders.name, appended.position, 1)
    assert got.time == got.appended_at
    assert note.name == "note"


async def test_the_next_event_of_a_key_waits_while_other_keys_go_on(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    begun, gate = list[tuple[str, int]](), asyncio.Event()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        begun.append((event.key, event.data.amount))
        if event.key == "slow":
            await gate.wait()

    await harness.open_once()
    await harness.append_batch(
        orders, [Placed("slow", 1), Placed("slow", 2), Placed("quick", 3), Placed("quick", 4)]
    )
    await harness.until(lambda: len(begun) == 3)
    before = list(begun)
    gate.set()
    await harness.settle()

    assert before == [("slow", 1), ("quick", 3), ("quick", 4)]
    assert begun[-1] == ("slow", 2)
    assert note.name == "note"


async def test_an_event_appended_again_is_the_same_one(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    first = await harness.append(orders, Placed("a", 1), id="x")
    again = await harness.append(orders, Placed("a", 1), id="x")
    elsewhere = await harness.append(orders, Placed("a", 1), id="x", source="another")
    await harness.settle()

    assert (first.position, False, True) == (again.position, first.is_duplicate, again.is_duplicate)
    assert elsewhere.position > first.position
    assert seen == [1, 1]
    assert note.name == "note"


async def test_an_id_that_stands_for_another_event_is_refused_and_nothing_is_written(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.append(orders, Placed("a", 1), id="x")

    with pytest.raises(DuplicateConflict, match="'x'"):
        await harness.append(orders, Placed("a", 2), id="x")

    page = harness.store.store.streams.events(orders.name, after=0, limit=10)
    assert len(page.events) == 1


async def test_a_workflow_appends_exactly_once_though_it_crashes(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[Any]()

    @workflow
    async def places_two() -> int:
        first = await orders.append(Placed("a", 1))
        both = await orders.append_batch([Placed("a", 2), Placed("a", 3)])
        return len({first.position, *(one.position for one in both)})

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append((event.data.amount, event.source))

    run = await harness.start(places_two(), id="it")
    assert await run.result() == 3
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert seen == [(amount, "run/it") for amount in (1, 2, 3)]
    assert note.name == "note"


async def test_after_a_crash_what_was_under_way_is_handled_again_and_nothing_else(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen, hangs = list[tuple[int, str]](), True

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append((event.data.amount, event.idempotency_key))
        if event.data.amount == 2 and hangs:
            await asyncio.get_running_loop().create_future()

    await harness.open_once()
    await harness.append_batch(orders, [Placed(f"{amount}", amount) for amount in range(5)])
    await harness.until(lambda: len(seen) == 5)
    await harness.settle()
    hangs = False
    await harness.crash()
    await harness.settle()

    assert sorted(amount for amount, _ in seen) == [0, 1, 2, 2, 3, 4]
    assert len({key for _, key in seen}) == 5
    assert note.name == "note"


async def test_a_handler_that_fails_is_tried_again_and_then_its_key_is_parked(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, int, int]]()

    @orders.on(retry=Retry(attempts=3, delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        seen.append((event.key, event.data.amount, event.attempt))
        if event.data.amount == 1:
            raise ValueError("no")

    await harness.open_once()
    await harness.append_batch(orders, [Placed("bad", 1), Placed("bad", 2), Placed("good", 3)])
    await harness.advance(100)
    await harness.append(orders, Placed("bad", 4))
    await harness.crash()
    await harness.append_batch(orders, [Placed("bad", 5), Placed("good", 6)])
    await harness.settle()

    assert sorted(seen) == [("bad", 1, 1), ("bad", 1, 2), ("bad", 1, 3), ("good", 3, 1), ("good", 6, 1)]
    assert await parked(harness, orders.name, "note") == [
        (1, DeadKind.FAILED), (2, DeadKind.BEHIND), (4, DeadKind.BEHIND), (5, DeadKind.BEHIND),
    ]  # fmt: skip


async def test_an_error_that_is_for_good_parks_at_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.attempt)
        raise NonRetryable("never")

    await harness.append(orders, Placed("a"))
    await harness.settle()

    assert seen == [1]
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.FAILED)]


async def test_an_event_that_cannot_be_read_is_parked_and_never_handled(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @event("order.placed")
    @dataclass(frozen=True)
    class Changed:
        order: int

    await harness.append(orders, Placed("not a number"))
    now: Stream[Changed] = Stream(orders.name, Changed)
    seen: list[int] = []

    @now.on(Changed)
    async def note(event: Event[Changed]) -> None:
        seen.append(event.data.order)

    await harness.restart()
    await harness.settle()

    assert seen == []
    assert await parked(harness, orders.name, note.name) == [(1, DeadKind.UNREADABLE)]


async def test_a_new_handler_begins_with_the_first_event_or_with_the_next(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, int]]()
    await harness.append(orders, Placed("a", 1))

    @orders.on()
    async def from_the_first(event: Event[Placed]) -> None:
        seen.append(("first", event.data.amount))

    @orders.on(begin="next")
    async def from_the_next(event: Event[Placed]) -> None:
        seen.append(("next", event.data.amount))

    await harness.restart()
    await harness.append(orders, Placed("a", 2))
    await harness.settle()

    assert sorted(seen) == [("first", 1), ("first", 2), ("next", 2)]
    assert from_the_first.stream == from_the_next.stream


async def test_what_another_process_appends_is_handled(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.open_once()
    async with Client(harness.url) as client:
        await client.append(orders, Placed("a", 7))
    await harness.until(lambda: seen)

    assert seen == [7]
    assert note.name == "note"


async def test_a_value_that_is_not_of_the_stream_is_refused(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    of_any: Stream[Any] = orders

    with pytest.raises(NotSerialisable, match="the stream is of Paid, Placed"):
        await harness.append(of_any, "what?")
    with pytest.raises(NotSerialisable, match="does not fit"):
        await harness.append(orders, Placed("a", amount="much"))  # pyright: ignore[reportArgumentType]
    bad: Stream[Placed] = Stream("bad", Placed, key=lambda one: one.amount)  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]
    with pytest.raises(NotSerialisable, match="no text"):
        await harness.append(bad, Placed("a"))


async def test_append_of_a_stream_is_for_workflows(orders: Stream[Placed | Paid]) -> None:
    with pytest.raises(OutsideRun, match=r"engine\.append"):
        await orders.append(Placed("a"))


async def test_two_handlers_of_one_name_are_refused(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    kept = [orders.on(name="note")(print), orders.on(name="note")(repr)]

    with pytest.raises(DefinitionError, match="two handlers named 'note'"):
        await harness.restart()

    assert len(kept) == 2


async def test_while_a_key_waits_for_its_next_try_it_holds_up_no_other(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[str]()

    @orders.on(concurrency=1, retry=Retry(delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        if event.data.amount == 1 and event.attempt == 1:
            raise ValueError("not yet")
        seen.append(event.key)

    await harness.append_batch(orders, [Placed("bad", 1), Placed("good"), Placed("bad")])
    await harness.settle()
    before = list(seen)
    await harness.advance(10)

    assert (before, seen) == (["good"], ["good", "bad", "bad"])
    assert note.name == "note"


async def test_a_drain_lets_handlers_end_and_begins_no_more(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen, gate = list[int](), asyncio.Event()

    @orders.on(concurrency=1)
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        await gate.wait()

    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    await harness.until(lambda: seen)
    draining = asyncio.create_task(harness.engine.drain(60))
    await harness.settle()
    gate.set()
    await draining
    drained = list(seen)
    await harness.restart()
    await harness.settle()

    assert (drained, seen) == ([1], [1, 2])
    assert note.name == "note"


async def test_an_event_that_the_disk_has_changed_is_parked_and_the_others_go_on(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()
    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2), Placed("c", 3)])
    path = harness.url.removeprefix("sqlite:///")
    with apsw.Connection(path) as connection:
        connection.execute("UPDATE event SET type = 'other' WHERE key = 'b'")

    @orders.on(Placed)
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    await harness.restart()
    await harness.settle()

    assert sorted(seen) == [1, 3]
    assert await parked(harness, orders.name, note.name) == [(2, DeadKind.UNREADABLE)]


async def test_a_handler_that_cancels_itself_is_tried_again_and_keeps_no_place(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, int]]()

    @orders.on(concurrency=1, retry=Retry(delay=10, jitter=False))
    async def note(event: Event[Placed]) -> None:
        seen.append((event.key, event.attempt))
        if event.key == "bad" and event.attempt == 1:
            raise asyncio.CancelledError

    await harness.append_batch(orders, [Placed("bad"), Placed("good")])
    await harness.settle()
    await harness.advance(10)

    assert seen == [("bad", 1), ("good", 1), ("bad", 2)]
    assert note.name == "note"


@pytest.mark.parametrize(("order", "at_once"), [("stream", 1), ("key", 2), ("none", 4)])
async def test_the_order_says_what_may_be_handled_at_once(
    harness: Harness, orders: Stream[Placed | Paid], order: Literal["key", "stream", "none"], at_once: int
) -> None:
    begun, gate = list[int](), asyncio.Event()

    @orders.on(order=order)
    async def note(event: Event[Placed]) -> None:
        begun.append(event.data.amount)
        await gate.wait()

    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2), Placed("b", 3), Placed("b", 4)])
    await harness.settle()
    first = list(begun)
    gate.set()
    await harness.settle()

    assert len(first) == at_once
    assert sorted(begun) == [1, 2, 3, 4]
    assert note.name == "note"


async def test_no_more_are_handled_at_once_than_the_handler_says(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    begun, gate = list[str](), asyncio.Event()

    @orders.on(concurrency=3)
    async def note(event: Event[Placed]) -> None:
        begun.append(event.key)
        await gate.wait()

    await harness.append_batch(orders, [Placed(f"{number}") for number in range(10)])
    await harness.settle()
    first = len(begun)
    gate.set()
    await harness.settle()

    assert (first, len(begun)) == (3, 10)
    assert note.name == "note"


async def test_a_full_store_refuses_an_append_and_keeps_what_handlers_did(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[int]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)
        if event.data.amount == 1:
            harness.store.fill_up()

    await harness.append(orders, Placed("a", 1))
    await harness.until(lambda: seen)
    harness.store.fill_up()
    with pytest.raises(StoreFull):
        await harness.append(orders, Placed("a", 2))
    await harness.until(lambda: harness.engine.is_quiet)
    await harness.append(orders, Placed("a", 3))
    await harness.settle()
    await harness.crash()
    await harness.settle()

    assert seen == [1, 3]
    assert note.name == "note"


async def test_an_engine_serves_the_handlers_that_it_was_given(
    tmp_path: Path, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def wanted(event: Event[Placed]) -> None: ...

    @orders.on()
    async def unwanted(event: Event[Placed]) -> None: ...

    async with Engine(f"sqlite:///{tmp_path}/runs.db", handlers=[wanted]) as engine:
        assert engine.handlers == [f"{orders.name}/wanted"]
    async with Engine(f"sqlite:///{tmp_path}/runs.db", handlers=[]) as engine:
        assert engine.handlers == []
    assert unwanted.name == "unwanted"


async def test_many_appends_of_a_client_at_once_are_few_commits(
    tmp_path: Path, orders: Stream[Placed | Paid], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, submit = list[int](), SqliteStore.submit

    def count_and_submit(store: SqliteStore, batch: Batch) -> Committed:
        commits.append(len(batch.appends))
        return submit(store, batch)

    monkeypatch.setattr(SqliteStore, "submit", count_and_submit)
    async with Client(f"sqlite:///{tmp_path}/runs.db") as client:
        appended = await asyncio.gather(
            *(client.append(orders, Placed("a", amount)) for amount in range(100)),
            client.append(orders, Placed("a", 1), id="x"),
            client.append(orders, Placed("a", 2), id="x"),
            return_exceptions=True,
        )

    assert len(commits) < 10
    assert len({one.position for one in appended if isinstance(one, Appended)}) == 101
    assert [type(one) for one in appended if isinstance(one, Exception)] == [DuplicateConflict]


async def test_where_no_streams_are_kept_it_is_said(postgres_url: str, orders: Stream[Placed | Paid]) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    async with Engine(postgres_url, handlers=[]) as engine, Client(postgres_url) as client:
        for either in (engine, client):
            with pytest.raises(StoreError, match="keeps no event streams"):
                await either.append(orders, Placed("a"))
    with pytest.raises(StoreError, match="keeps no event streams"):
        async with Engine(postgres_url, handlers=[note]):
            pass
