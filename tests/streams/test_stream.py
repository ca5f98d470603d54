"""Event streams: appended once, handled in order by key, and gone on with after a crash."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from perdure import (
    Appended,
    Client,
    DefinitionError,
    DuplicateConflict,
    Engine,
    Event,
    NotSerialisable,
    OutsideRun,
    Stream,
    workflow,
)
from perdure.stores.base import Batch, Committed
from perdure.stores.sqlite import SqliteStore
from perdure.testing import Harness
from tests.streams.events import Paid, Placed


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


def _no_key(event: Placed) -> str:
    raise LookupError("it has none")


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        (datetime.max.replace(tzinfo=UTC), datetime.max.replace(microsecond=999_000, tzinfo=UTC)),
        (datetime(2024, 5, 17, 9, 59, 59, 999_900, UTC), datetime(2024, 5, 17, 9, 59, 59, 999_000, UTC)),
        (datetime(1960, 1, 1, 0, 0, 0, 1_500, UTC), datetime(1960, 1, 1, 0, 0, 0, 1_000, UTC)),
        (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    ],
)
async def test_any_time_may_be_given_and_is_kept_to_the_millisecond_that_it_is_in(
    harness: Harness, orders: Stream[Placed | Paid], time: datetime, kept: datetime
) -> None:
    seen = list[datetime]()

    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.time)

    await harness.open_once()
    await harness.append(orders, Placed("a"), time=time)
    await harness.settle()

    assert seen == [kept]
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
    with pytest.raises(NotSerialisable, match="key of a Placed: it is of type int, and no text") as refused:
        await harness.append(bad, Placed("secret", 4111))
    assert not [secret for secret in ("secret", "4111") if secret in str(refused.value)]
    none: Stream[Placed] = Stream("none", Placed, key=_no_key)
    with pytest.raises(NotSerialisable, match="key of a Placed: LookupError") as refused:
        await harness.append(none, Placed("secret", 4111))
    assert not [secret for secret in ("secret", "4111") if secret in str(refused.value)]


async def test_append_of_a_stream_is_for_workflows(orders: Stream[Placed | Paid]) -> None:
    with pytest.raises(OutsideRun, match=r"engine\.append"):
        await orders.append(Placed("a"))


async def test_two_handlers_of_one_name_are_refused(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    kept = [orders.on(name="note")(print), orders.on(name="note")(repr)]

    with pytest.raises(DefinitionError, match="two handlers named 'note'"):
        await harness.restart()

    assert len(kept) == 2


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
