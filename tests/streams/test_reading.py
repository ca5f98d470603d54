"""Looking at what a stream keeps: page after page, from any place, without handling it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import perdure as awaiting
from perdure import PositionGone, Stream, StreamError, StreamPage
from perdure.core.positions import place_at
from perdure.streaming import reading
from perdure.sync import Client
from perdure.testing import Harness
from tests.streams.events import Paid, Placed
from tests.streams.test_keeping import let_go

Orders = Stream[Placed | Paid]
ORDERS = Stream("read", Placed)


async def test_page_after_page_gives_all_in_order_and_goes_on_when_more_has_come(
    harness: Harness, orders: Orders
) -> None:
    await harness.append_batch(orders, [Placed(f"{n % 3}", n) for n in range(25)])
    await harness.settle()
    seen, place, sizes = list[int](), "earliest", list[int]()

    for _ in range(4):
        page = await harness.events(orders, place, limit=10)
        place = page.next
        sizes.append(len(page.events))
        seen += [one.data.amount for one in page.events]
    await harness.append(orders, Placed("late", 25))
    await harness.settle()
    more = await harness.events(orders, place)

    assert sizes == [10, 10, 5, 0]
    assert seen == list(range(25))
    assert isinstance(more, StreamPage)
    assert [one.data for one in more.events] == [Placed("late", 25)]
    assert [(one.idempotency_key, one.attempt) for one in more.events] == [("", 0)]


async def test_it_begins_at_a_position_a_time_or_the_end(harness: Harness, orders: Orders) -> None:
    places = list[str]()
    for amount in range(3):
        places.append((await harness.append(orders, Placed("a", amount))).position)
        await harness.advance(minutes=1)
    await harness.settle()
    now = datetime.fromtimestamp(harness.now_ms() / 1000, tz=UTC)

    by_position = await harness.events(orders, places[1])
    by_time = await harness.events(orders, now - timedelta(seconds=90))
    at_end = await harness.events(orders, "latest")

    assert [one.data.amount for one in by_position.events] == [1, 2]
    assert [one.data.amount for one in by_time.events] == [2]
    assert at_end.events == []


async def test_a_stream_that_is_only_named_gives_what_its_json_holds(
    harness: Harness, orders: Orders
) -> None:
    await harness.append(orders, Placed("17", 5), id="placed-17", source="shop")
    await harness.settle()

    (found,) = (await harness.events(orders.name)).events

    assert found.data == {"order": "17", "amount": 5}
    assert (found.id, found.source, found.key) == ("placed-17", "shop", "17")


async def test_a_place_that_is_none_or_is_not_there_yet_is_an_error(harness: Harness, orders: Orders) -> None:
    last = await harness.append(orders, Placed("a", 1))
    await harness.settle()

    with pytest.raises(StreamError, match="is no place in a stream"):
        await harness.events(orders, "the middle")
    with pytest.raises(StreamError, match=f"its last is {last.position}"):
        await harness.events(orders, f"{last.position[:-1]}z")


async def test_of_what_was_let_go_the_first_that_is_kept_is_named(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed, keep=timedelta(hours=1))
    await harness.open_once()
    first = await harness.append(orders, Placed("a", 1))
    await harness.advance(hours=2)
    kept = await harness.append(orders, Placed("a", 2))
    await let_go(harness, name, down_to=1)

    with pytest.raises(PositionGone) as gone:
        await harness.events(orders, first.position)
    page = await harness.events(orders)

    assert gone.value.first <= kept.position
    assert [one.data.amount for one in page.events] == [2]


async def test_nor_is_what_goes_between_two_looks_passed_in_silence(
    harness: Harness, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Stream(name, Placed, keep=timedelta(hours=1))
    await harness.open_once()
    first = await harness.append(orders, Placed("a", 1))
    await harness.advance(hours=2)
    await harness.append(orders, Placed("a", 2))

    async def find_place(*_: object) -> int:
        await let_go(harness, name, down_to=1)
        return place_at(first.position) - 1

    monkeypatch.setattr(reading, "place_before", find_place)

    with pytest.raises(PositionGone):
        await harness.events(orders, first.position)


def test_code_without_asyncio_reads_it_too(tmp_path: Path) -> None:
    with Client(f"sqlite:///{tmp_path / 'shop.db'}") as client:
        client.append_batch(ORDERS, [Placed("a", n) for n in range(3)])

        page = client.events(ORDERS, limit=2)
        rest = client.events(ORDERS, page.next)

    assert [one.data.amount for one in [*page.events, *rest.events]] == [0, 1, 2]


async def test_none_is_given_while_an_open_transaction_may_put_one_before_it(postgres_url: str) -> None:
    orders = Stream("held-back", Placed)
    database = postgres_url[: postgres_url.index("schema=") - 1]
    async with (
        awaiting.Client(postgres_url) as client, await psycopg.AsyncConnection.connect(database) as other,
    ):  # fmt: skip
        await client.append(orders, Placed("first"))
        await client.append(orders, Placed("open"), connection=other)
        await client.append(orders, Placed("behind"))
        before = await client.events(orders)
        await other.commit()
        after = await client.events(orders, before.next)

    assert [one.data.order for one in before.events] == ["first"]
    assert [one.data.order for one in after.events] == ["open", "behind"]
