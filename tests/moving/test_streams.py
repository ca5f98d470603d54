"""Streams go on after a move as if nothing had been: handlers, windows, joins, parked events and waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Client, Event, NonRetryable, Stream, Window, workflow
from perdure.blocks.serving import _defined
from perdure.errors import StoreCorrupt, StoreMoved
from perdure.moving import Progress, abandon_between, comparing, move, move_between
from perdure.moving.marking import opened
from perdure.stores.base import Store
from perdure.stores.opening import open_store
from perdure.testing import Harness
from tests.moving.conftest import homes
from tests.moving.test_broken_off import Fuse, Killed, Mortal
from tests.stores.test_move_streams import fill, read, rows_of

numbers = count(1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Ordered:
    order: str
    cents: int = 0


@dataclass(frozen=True)
class Paid:
    order: str
    receipt: int = 0


@dataclass(frozen=True)
class Sum:
    events: int = 0
    cents: int = 0


arrivals: Stream[Paid] = Stream("arrivals of moving", Paid, key=lambda one: one.order)


@workflow
async def waits_for_two(order: str) -> list[int]:
    return [(await arrivals.next(Paid, where={"order": order})).data.receipt for _ in range(2)]


class Shop:
    """Two streams, a handler that refuses some events, a window, and a join."""

    def __init__(self) -> None:
        number = next(numbers)
        self.orders = orders = Stream(f"orders-{number}", Ordered, key=lambda one: one.order)
        self.payments = Stream(f"payments-{number}", Paid, key=lambda one: one.order)
        self.seen = list[tuple[str, int]]()
        self.keys = dict[int, list[str]]()
        self.bad = {13}

        @orders.on()
        async def note(event: Event[Ordered]) -> None:
            self.keys.setdefault(event.data.cents, []).append(event.idempotency_key)
            if event.data.cents in self.bad:
                raise NonRetryable("no")
            self.seen.append((event.key, event.data.cents))

        self.note = note
        self.hourly = orders.window(Ordered, tumbling=HOUR, initial=Sum())(add)
        within = timedelta(minutes=10)
        self.pairs = orders.join(Ordered, self.payments, Paid, name="paid", within=within)

    def sums(self, store: Store) -> list[Window[Sum]]:
        page = store.streams.events(self.hourly.results.name, after=0, limit=1_000)
        return [self.hourly.results.decode(event) for event in page.events]

    def pairs_in(self, store: Store) -> list[tuple[int, int]]:
        page = store.streams.events(self.pairs.results.name, after=0, limit=1_000)
        found = [self.pairs.results.decode(event) for event in page.events]
        return [(one.left.cents, one.right.receipt) for one in found if one.left and one.right]


def add(sums: Sum, event: Event[Ordered]) -> Sum:
    """One event more."""
    return Sum(sums.events + 1, sums.cents + event.data.cents)


@pytest.fixture
def shop() -> Iterator[Shop]:
    yield Shop()
    _defined._handlers.clear()


def at(url: str, *, seed: int, like: Harness | None = None) -> Harness:
    """An engine on a store; `like`: at the time of another."""
    return Harness(url.removeprefix("sqlite:///"), seed=seed, clock=None if like is None else like.clock)


def events_in(store: Store, stream: str) -> list[Any]:
    return list(store.streams.events(stream, after=0, limit=1_000).events)


async def begin(first: Harness, shop: Shop) -> tuple[str, list[Any]]:
    """Have all under way: the position of the event `x`, and what there is of the stream of orders."""
    orders, subscription = shop.orders, first.subscription(shop.note)
    sent = await first.append(orders, Ordered("a", 1), id="x")
    batch = [("a", 2), ("b", 3), ("c", 13), ("c", 14)]
    await first.append_batch(orders, [Ordered(*one) for one in batch])
    await first.start(waits_for_two("z"), id="waits")
    await first.append(arrivals, Paid("z", 1))
    await first.until(lambda: len(shop.seen) == 3)
    await first.settle()
    parked = [one.position for one in await subscription.parked()]
    await subscription.edit(parked[0], Ordered("c", 15), reason="was wrong", by="ann")
    await subscription.stop(reason="while it moves")
    await first.settle()
    await first.append_batch(orders, [Ordered("b", 5), Ordered("d", 6), Ordered("b", 7)])
    await first.settle()
    return sent.position, events_in(first.store.store, orders.name)


async def test_all_that_is_under_way_in_streams_goes_on_in_the_other_store(
    urls: tuple[str, str], shop: Shop
) -> None:
    first = at(urls[0], seed=1)
    async with first:
        position, before = await begin(first, shop)
    assert sorted(shop.seen) == [("a", 1), ("a", 2), ("b", 3)]

    moved = await asyncio.to_thread(move, *urls)

    assert moved.events >= len(before) + 1
    async with at(urls[1], seed=2, like=first) as second:
        store, subscription = second.store.store, second.subscription(shop.note)
        await second.settle()
        assert events_in(store, shop.orders.name) == before
        again = await second.append(shop.orders, Ordered("a", 1), id="x")
        assert (again.position, again.is_duplicate) == (position, True)

        # the handler goes on where it was, and each key in its order
        stands = await subscription.status()
        assert (stands.status, stands.reason) == ("stopped", "while it moves")
        await subscription.resume()
        await second.append(shop.orders, Ordered("d", 8))
        await second.until(lambda: len(shop.seen) == 7)
        assert Counter(shop.seen[3:]) == Counter([("b", 5), ("d", 6), ("b", 7), ("d", 8)])
        assert [cents for key, cents in shop.seen if key == "b"] == [3, 5, 7]
        late = events_in(store, shop.orders.name)[len(before) :]
        assert min(event.position for event in late) > max(event.position for event in before)

        # what was parked is the same event, as it was edited
        parked = await subscription.parked()
        details = await subscription.show(parked[0].position)
        assert [note.by for note in details.notes] == ["ann"]
        await subscription.redrive(reason="moved", by="bob")
        await second.until(lambda: len(shop.seen) == 9)
        assert shop.seen[7:] == [("c", 15), ("c", 14)]
        assert shop.keys[15] == shop.keys[13]

        # a run is given its next event, and not the first one again
        await second.append(arrivals, Paid("z", 2))
        run = await second.get("waits", waits_for_two)
        assert await run.result() == [1, 2]

        # what waits in a join is paired, and windows have all that they counted
        await second.append(shop.payments, Paid("a", 9))
        await second.until(lambda: len(shop.pairs_in(store)) == 2)
        await second.advance(hours=2)
        await second.until(lambda: len(shop.sums(store)) == 4)
        sums = {one.key: (one.value, one.events) for one in shop.sums(store)}
        assert sums == {
            "a": (Sum(2, 3), 2), "b": (Sum(3, 15), 3), "c": (Sum(2, 27), 2), "d": (Sum(2, 14), 2),
        }  # fmt: skip
        assert sorted(shop.pairs_in(store)) == [(1, 9), (2, 9)]
        assert list(store.check()) == []


async def test_a_client_that_had_the_store_open_can_append_nothing_more(
    urls: tuple[str, str], shop: Shop
) -> None:
    async with Client(urls[0]) as client:
        await client.append(shop.orders, Ordered("a", 1))
        await asyncio.to_thread(move, *urls)

        with pytest.raises(StoreMoved):
            await client.append(shop.orders, Ordered("a", 2))

    async with Client(urls[1]) as client:
        await client.append(shop.orders, Ordered("a", 2))
    with opened(urls[0], create=False) as source, opened(urls[1], create=False) as target:
        assert [len(events_in(store, shop.orders.name)) for store in (source, target)] == [1, 2]


async def test_there_and_back_again_all_is_as_it_was(postgres_url: str, tmp_path: Path, shop: Shop) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", postgres_url, f"sqlite:///{tmp_path}/back.db"
    async with at(urls[0], seed=1) as first:
        await begin(first, shop)

    await asyncio.to_thread(move, urls[0], urls[1])
    async with Client(urls[1]) as client:
        await client.append(shop.orders, Ordered("b", 8))
    await asyncio.to_thread(move, urls[1], urls[2])

    async with at(urls[2], seed=3, like=first) as third:
        await third.subscription(shop.note).resume()
        await third.append(shop.orders, Ordered("b", 9))
        await third.until(lambda: len(shop.seen) == 8)
        places = [event.position for event in events_in(third.store.store, shop.orders.name)]
    assert [cents for key, cents in shop.seen if key == "b"] == [3, 5, 7, 8, 9]
    assert places[:8] == list(range(1, 9))
    assert places[8] > 1 << 29  # from a transaction of PostgreSQL
    assert places[9] == places[8] + 1


# -- killed anywhere -----------------------------------------------------------------------------------


def fill_at(url: str) -> dict[str, list[Any]]:
    """Rows in all tables; what they are."""
    store = open_store(url)
    lease = store.acquire("w", now_ms=0, ttl_ms=1 << 50)
    fill(store, lease)
    store.release(lease)
    rows = rows_of(read(store))
    store.close()
    return rows


def rows_at(url: str) -> dict[str, list[Any]]:
    with opened(url, create=False) as store:
        return rows_of(read(store))


def do(work: Callable[[Store, Store], object], urls: tuple[str, str], moments: int = -1) -> bool:
    """Move or abandon, and perhaps die at it. Whether it came to its end."""
    with opened(urls[0], create=False) as source, opened(urls[1], create=True) as target:
        fuse = Fuse(moments)
        try:
            work(Mortal(source, fuse), Mortal(target, fuse))  # type: ignore[arg-type]
        except Killed:
            return False
        return True


def without_waits(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What a move may change of the rows: a file gives what it has as soon as all has arrived."""
    return {name: those for name, those in rows.items() if name != "awaiting"}


def test_a_move_of_streams_that_is_killed_at_each_transaction_in_turn_arrives_whole(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "PAGE_ROWS_MAX", 4)
    rows = fill_at(urls[0])
    stride = 1 if all("sqlite" in url for url in urls) else 3

    killed = 0
    while not do(move_between, urls, killed):
        assert len(homes(*urls)) <= 1, killed
        killed += stride

    assert killed >= 18
    assert homes(*urls) == [urls[1]]
    assert without_waits(rows_at(urls[1])) == without_waits(rows)


def test_a_move_of_streams_that_is_killed_at_any_transaction_can_be_undone_and_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    rows = fill_at(urls[0])

    undone = 0
    with suppress(StoreMoved):
        while not do(move_between, urls, undone * 3):
            do(abandon_between, urls)
            assert homes(*urls) == [urls[0]], undone
            assert rows_at(urls[0]) == rows
            assert not any(rows_at(urls[1]).values())
            undone += 1

    assert undone >= 9
    do(move_between, urls)
    assert rows_at(urls[1]) == rows


def test_what_a_damaged_run_waits_for_stays_behind_with_it_as_does_a_damaged_event(tmp_path: Path) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    rows = fill_at(urls[0])
    change(urls[0], "UPDATE run SET workflow = 'other' WHERE id = 'waits'")
    change(urls[0], "UPDATE event SET key = 'other' WHERE id = 'large'")

    moved = move(*urls, leave_damaged=True)

    assert [(left.id, "event 7" in left.what) for left in moved.left] == [("waits", False), ("", True)]
    found = rows_at(urls[1])
    assert found["awaiting"] == [row for row in rows["awaiting"] if row[0] != rows["awaiting"][0][0]]
    assert [row[1] for row in found["event"]] == [2, 3, 4, 5, 6, 1]


def test_a_store_whose_windows_are_damaged_is_not_moved(tmp_path: Path) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    fill_at(urls[0])
    change(urls[0], "UPDATE event_window SET events = 9")

    with pytest.raises(StoreCorrupt, match=r"the window of 'k'.*cannot be left behind"):
        move(*urls, leave_damaged=True)

    with opened(urls[0], create=False) as source:
        assert source.move_mark() is None
    assert not any(rows_at(urls[1]).values())


def change(url: str, sql: str) -> None:
    """Change the file behind the store's back."""
    connection = apsw.Connection(url.removeprefix("sqlite:///"))
    connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE lane SET cursor = cursor + 1",
        "UPDATE subscription SET status = 1",
        "UPDATE dead SET attempts = 7",
        "DELETE FROM dead_note WHERE deed = 1",
        "UPDATE seek SET who = 'eve'",
        "UPDATE awaiting SET wanted = 9",
        "DELETE FROM event_window WHERE state IS NULL",
        "DELETE FROM lane_time WHERE side = 1",
        "UPDATE schema SET fingerprint = 'other'",
        "UPDATE stream SET gone = gone + 1",
        "DELETE FROM event WHERE id = 'e4'",
        "UPDATE event SET pos = pos + 1 WHERE id = 'large'",
        "UPDATE event SET identity = NULL WHERE id = 'e4'",
    ],
)
def test_a_row_that_did_not_arrive_as_it_left_is_found_before_the_source_is_given_up(
    tmp_path: Path, changed: str
) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    fill_at(urls[0])

    def spoil(progress: Progress) -> None:
        if progress.step == "copy" and progress.events:
            change(urls[1], changed)

    with pytest.raises(StoreCorrupt, match="Nothing is lost"):
        move(*urls, progress=spoil)

    assert homes(*urls) == []
