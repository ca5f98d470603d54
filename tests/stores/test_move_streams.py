"""Moving streams: every row of every table, read in one store and written in another, of any kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perdure.core.event_time import LaneTime
from perdure.core.events import (
    Append,
    Author,
    DeadEvent,
    DeadFilter,
    DeadKind,
    LaneMark,
    LanePast,
    LaneWatch,
    NewEvent,
    Placed,
    SchemaRow,
    Standing,
)
from perdure.core.standing import KeepRule
from perdure.core.windows import WindowChange, WindowRow
from perdure.errors import StoreError, StoreMoved
from perdure.stores.base import Batch, Lease, MoveCursor, MovePage, Store
from perdure.stores.correlation import Found, wanted
from perdure.stores.rows import Damage
from perdure.stores.sqlite import SqliteStore
from perdure.stores.stream_rows import EVENT, KINDS, STREAM, kind_at
from tests.stores.arriving import ARRIVING, arriving
from tests.stores.build import LARGE, claim, start
from tests.stores.events import within

ALL = 1 << 30
ANN = Author("ann", "mended", 7)


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind, which is marked to take what `store` has."""
    with arriving(request.param, request, tmp_path) as opened:
        yield opened


def event(name: str, data: bytes = b'{"order": "a"}', *, key: str = "k", is_resent: bool = True) -> NewEvent:
    return NewEvent(name, "shop", "paid", 2, key, -5, 6, "00-trace", data, is_resent)


def append(store: Store, *events: NewEvent, stream: str = "orders") -> list[int]:
    outcomes = store.submit(Batch(appends=[Append(stream, [one]) for one in events])).appends
    return [one.position for placed in outcomes if isinstance(placed, list) for one in placed]


def ask(store: Store, run_id: str, order: str) -> Found:
    said: list[Found] = []
    asked = wanted("orders", "paid", {"order": order})
    within(store, lambda connection: said.append(store.streams.ask_within(connection, asked, run_id)))
    return said[0]


def fill(store: Store, lease: Lease) -> list[int]:
    """A row, or some, in every table. The positions of the events of `orders`."""
    streams = store.streams
    at = append(store, *(event(f"e{n}") for n in range(1, 7)), event("large", LARGE, is_resent=False))
    append(store, event("e1", key=""), stream="zeta")
    streams.let_go(KeepRule("orders", None, len(LARGE) + 70, waits=False), now_ms=9, limit=1)
    streams.put_schema(SchemaRow("orders", "paid", 2, "f", b"{}", 3, 0), streams.schema_stand("orders"))
    row = streams.subscribe("orders", "notes", lanes=2, from_start=True)
    join = streams.subscribe("orders", "pairs", lanes=2, from_start=True, other="zeta")
    streams.subscribe("outside", "intake", lanes=1, from_start=True, is_intake=True)
    for number in (row.number, join.number):
        streams.claim_lanes(lease, [number], now_ms=1)
    history = (LanePast(5, at[1], 3, 2),)
    marks = [LaneMark(at[1], (at[3], at[4]), row.number, 0, 0, history)]
    watches = [LaneWatch(row.number, 1, 1, at[2], (), ((at[2], 1),))]
    parked = [
        DeadEvent(row.number, at[n], 0, "k", int(kind), 2, b"no" if n == 3 else None, 9, 1)
        for n, kind in ((3, DeadKind.FAILED), (4, DeadKind.BEHIND))
    ]
    window = WindowRow("k", -60, 60, 1, 0, ((0, 1),), 3, LARGE)
    times = [LaneTime(10, 11, None, 2, 1), LaneTime(None, 0, 5, 0, 0, at[1])]
    change = WindowChange(
        join.number, 1, times, [window, window._replace(state=None, place=at[2] * 2 + 1)], (), ()
    )
    store.commit(lease, Batch(lanes=marks, watches=watches, dead=parked, windows=[change]))
    streams.dead.edit(row.number, at[3], b'{"edited": 1}', ANN)
    streams.dead.redrive(
        row.number, streams.dead.begin_redrive(row.number), DeadFilter((at[3],)), ANN, limit=1
    )
    streams.dead.change_standing(row.number, [Standing.ACTIVE], Standing.STOPPED, reason="looked at", at_ms=4)
    streams.seek(join.number, at[5], now_ms=3, who="ann", reason="again")
    for run_id in ("waits", "has"):
        start(store, lease, run_id)
    ask(store, "waits", "none yet")
    ask(store, "has", "a")
    return at


def read(store: Store, *, limit: int = ALL, bytes_max: int = ALL) -> list[MovePage]:
    """All pages but the empty one at the end."""
    pages: list[MovePage] = []
    after = MoveCursor()
    while not (page := store.export_page(after, limit=limit, bytes_max=bytes_max)).is_empty:
        pages.append(page)
        after = page.after
    return pages


def rows_of(pages: list[MovePage]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {kind.name: [] for kind in KINDS}
    for page in pages:
        kind = kind_at(page.kind) if page.kind else None
        if kind is not None:
            rows[kind.name] += [row[: kind.compared] for row in page.rows]
    return rows


def carry(source: Store, target: Store) -> list[MovePage]:
    pages = read(source)
    for page in pages:
        target.import_page(ARRIVING, page)
    return pages


def move(store: Store, lease: Lease, empty: Store) -> list[int]:
    """Fill one, and let the other take it all and open; the places of the events of `orders`."""
    at = fill(store, lease)
    store.release(lease)
    carry(store, empty)
    open_it(empty)
    return at


def open_it(store: Store) -> None:
    store.mark_move(ARRIVING, ARRIVING._replace(stage="arrived"), now_ms=0)


def test_a_store_of_any_kind_keeps_every_row_that_another_gives(
    store: Store, lease: Lease, empty: Store
) -> None:
    fill(store, lease)
    store.release(lease)
    given = rows_of(read(store))

    carry(store, empty)

    assert rows_of(read(empty)) == given
    assert [name for name, rows in given.items() if not rows] == []
    assert list(empty.check()) == []


@pytest.mark.parametrize(("limit", "bytes_max"), [(1, ALL), (2, ALL), (ALL, 1)])
def test_pages_of_any_size_hold_the_same_rows(store: Store, lease: Lease, limit: int, bytes_max: int) -> None:
    fill(store, lease)
    whole = read(store)

    pages = read(store, limit=limit, bytes_max=bytes_max)

    assert len(pages) > len(whole)
    assert rows_of(pages) == rows_of(whole)
    assert all(len(page.rows) <= limit for page in pages)


def test_each_page_may_come_again_after_the_last_that_arrived(
    store: Store, lease: Lease, empty: Store
) -> None:
    fill(store, lease)
    store.release(lease)
    given = rows_of(read(store))

    arrived = False
    for pages in range(2, 100):  # so many, and then it is broken off
        page = store.export_page(empty.arrived(), limit=3, bytes_max=ALL)
        for _ in range(pages):
            empty.import_page(ARRIVING, page)
            page = store.export_page(page.after, limit=3, bytes_max=ALL)
            arrived = arrived or page.is_empty
        if arrived:
            break

    assert rows_of(read(empty)) == given


def test_what_has_arrived_is_removed_when_the_move_is_given_up(
    store: Store, lease: Lease, empty: Store
) -> None:
    fill(store, lease)
    store.release(lease)
    carry(store, empty)

    empty.mark_move(ARRIVING, None, now_ms=0)

    assert read(empty) == []
    assert list(empty.check()) == []
    empty.mark_move(None, ARRIVING, now_ms=0)
    assert rows_of(carry(store, empty)) == rows_of(read(empty))


def test_new_events_come_after_those_that_were_moved_and_all_are_read(
    store: Store, lease: Lease, empty: Store
) -> None:
    at = move(store, lease, empty)

    late = append(empty, event("late"), event("later"))

    page = empty.streams.events("orders", after=at[0], limit=100)
    assert [one.position for one in page.events] == [*at[1:], *late]
    assert min(late) > max(at)
    assert not page.is_held_back
    zeta = empty.streams.events("zeta", after=0, limit=100)
    assert [one.id for one in zeta.events] == ["e1"]
    new = append(empty, event("first"), stream="a new one")
    assert [one.position for one in empty.streams.events("a new one", after=0, limit=9).events] == new


def test_an_event_that_is_sent_again_after_a_move_is_still_the_same_one(
    store: Store, lease: Lease, empty: Store
) -> None:
    at = move(store, lease, empty)

    (outcome,) = empty.submit(Batch(appends=[Append("orders", [event("e3")])])).appends

    assert outcome == [Placed(at[2], True)]
    assert empty.streams.find("orders", source="shop", id="e3") == at[2]


def test_what_a_stream_lets_go_after_a_move_is_counted_as_before(
    store: Store, lease: Lease, empty: Store
) -> None:
    at = move(store, lease, empty)
    empty.streams.let_go(KeepRule("orders", None, 1 << 40, waits=False), now_ms=9, limit=100)

    rule = KeepRule("orders", None, len(LARGE) + 20, waits=False)

    assert empty.streams.let_go(rule, now_ms=9, limit=100) == 4
    assert empty.streams.span("orders", since_ms=0).gone == at[4]


def test_a_run_that_waits_is_given_what_comes_and_what_the_store_that_was_left_had_not_given(
    store: Store, lease: Lease, empty: Store
) -> None:
    move(store, lease, empty)
    worker = empty.acquire("w", now_ms=0, ttl_ms=10_000)
    runs = claim(empty, worker, now_ms=1)

    append(empty, event("for it", b'{"order": "none yet"}'))
    settle(empty, worker)

    told = [[message.payload for message in empty.messages_for(run)] for run in runs]
    waits, has = told
    assert len(waits) == 1
    assert b"for it" in (waits[0] or b"")
    if not isinstance(store, SqliteStore):  # in SQLite it was given in the transaction that asked
        assert len(has) == 1
        assert b'"e2"' in (has[0] or b"")


def test_a_run_that_asks_after_a_move_is_given_what_came_before_it(
    store: Store, lease: Lease, empty: Store
) -> None:
    move(store, lease, empty)
    worker = empty.acquire("w", now_ms=0, ttl_ms=10_000)
    run = start(empty, worker, "asks")
    told = list[bytes]()

    for _ in range(2):
        found = ask(empty, "asks", "a")
        told += [found.event.encode()] if found.event else []
    settle(empty, worker)

    told += [message.payload or b"" for message in empty.messages_for(run)]
    assert [one.split(b",")[1] for one in told] == [b'"e2"', b'"e3"']


def settle(store: Store, lease: Lease) -> None:
    while store.streams.gives_later and (news := store.streams.look_for_awaited()) is not None:
        if not store.streams.give_awaited(lease, news).is_more:
            return


def test_a_worker_that_died_with_a_lane_is_counted_by_the_move(
    store: Store, lease: Lease, empty: Store
) -> None:
    at = append(store, event("e1"))
    number = store.streams.subscribe("orders", "notes", lanes=1, from_start=True).number
    store.streams.claim_lanes(lease, [number], now_ms=1)

    moving = ARRIVING._replace(stage="moving")
    store.mark_move(None, moving, now_ms=20_000)
    store.mark_move(moving, moving._replace(turn=2), now_ms=20_000)  # once, however often it is gone on with
    carry(store, empty)
    open_it(empty)

    worker = empty.acquire("w", now_ms=0, ttl_ms=10_000)
    (lane,) = empty.streams.claim_lanes(worker, [number], now_ms=1)
    assert lane.watch == LaneWatch(number, 0, 1, at[0])


def test_numbers_that_were_given_are_not_given_again(store: Store, lease: Lease, empty: Store) -> None:
    at = move(store, lease, empty)
    row = empty.streams.subscribe("orders", "notes", lanes=2, from_start=True)

    empty.streams.dead.edit(row.number, at[3], b"{}", ANN)
    empty.streams.seek(row.number, at[1], now_ms=9, who="bob", reason="once more")

    assert empty.streams.subscribe("zeta", "new", lanes=1, from_start=False).number > row.number + 2
    assert [seek.who for seek in empty.streams.seeks(row.number, limit=9)] == ["bob"]


@pytest.mark.parametrize("stage", ["moving", "moved", "arriving"])
def test_a_closed_store_takes_no_event_by_any_way(store: Store, other: Store, stage: str) -> None:
    if stage != "arriving":
        append(store, event("e1"))
    other.mark_move(None, ARRIVING._replace(stage=stage), now_ms=0)  # type: ignore[arg-type]

    with pytest.raises(StoreMoved):
        append(store, event("e2"))
    with pytest.raises(StoreMoved):
        store.streams.subscribe("orders", "late", lanes=1, from_start=True)
    with pytest.raises(StoreMoved):
        append_in_ones_own_transaction(store)

    assert all(one.id == "e1" for one in store.streams.events("orders", after=0, limit=9).events)


def append_in_ones_own_transaction(store: Store) -> None:
    appended = Append("orders", [event("within")])
    if isinstance(store, SqliteStore):
        import apsw

        connection = apsw.Connection(store.url.removeprefix("sqlite:///"))
        connection.execute("BEGIN IMMEDIATE")
        try:
            store.streams.append_within(connection, appended)
        finally:
            connection.execute("ROLLBACK")
            connection.close()
        return
    with psycopg.connect(store.url.partition("&schema")[0]) as connection:
        store.streams.append_within(connection, appended)


def test_streams_are_moved_to_an_empty_store_only(store: Store) -> None:
    append(store, event("e1"))

    with pytest.raises(StoreError, match="has runs of its own, or streams"):
        store.mark_move(None, ARRIVING, now_ms=0)

    assert store.move_mark() is None


# -- places that lie far apart --------------------------------------------------------------


def far(store: Store, *streams: tuple[str, int]) -> None:
    """Let streams arrive whose last places are these."""
    rows = [(name, 0, last) for name, last in streams]
    store.import_page(ARRIVING, MovePage([], [], [], 0, MoveCursor(), KINDS.index(STREAM) + 1, rows))
    events = [
        (name, place, f"at {place}", "", "paid", 1, "", 1, 2, "", b"{}", 0)
        for name, last in streams
        for place in (last - (1 << 41), last)
    ]
    page = MovePage([], [], [], 0, MoveCursor(), KINDS.index(EVENT) + 1, sorted(events))
    store.import_page(ARRIVING, page)
    open_it(store)


def test_new_events_come_after_places_that_reach_far(empty: Store) -> None:
    lasts = {"a": 1 << 58, "b": 1 << 45}
    far(empty, *lasts.items())

    for stream, last in lasts.items():
        (late,) = append(empty, event("late"), stream=stream)
        page = empty.streams.events(stream, after=0, limit=9)
        assert [one.position for one in page.events] == [last - (1 << 41), last, late]
        assert late > last
        assert not page.is_held_back


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "far.db")
    store.mark_move(None, ARRIVING, now_ms=0)
    yield store
    store.close()


def places(store: Store, stream: str) -> list[int]:
    return [one.position for one in store.streams.events(stream, after=0, limit=100).events]


def test_streams_whose_places_reach_far_do_not_get_into_each_others_way(file: SqliteStore) -> None:
    lasts = {"a": (1 << 52) + 17, "b": (1 << 60) - 1, "c": 3 << 40, "d": (1 << 45) - 1}
    far(file, *lasts.items())

    for stream, last in lasts.items():
        append(file, event("x"), event("y"), event("x"), stream=stream)
        assert places(file, stream) == [last - (1 << 41), last, last + 1, last + 2]
        assert file.streams.keeps_version(SchemaRow(stream, "paid", 2, "f", b"{}", 3, last))
    append(file, event("x"), stream="new")
    assert places(file, "new") == [1]
    assert list(file.check()) == []
    assert file.streams.find("d", source="shop", id="x") == lasts["d"] + 1
    assert file.streams.span("b", since_ms=6).last == lasts["b"] + 2


def test_a_damaged_event_whose_place_reaches_far_is_named_by_it(file: SqliteStore) -> None:
    far(file, ("a", 1 << 52), ("b", 1 << 45))
    within(file, lambda connection: connection.execute("UPDATE event SET key = 'other'"))

    found = list(file.check())

    assert [f"event {1 << 52} of stream number 1 is" in one for one in found].count(True) == 1
    assert [f"event {1 << 45} of stream number 4098 is" in one for one in found].count(True) == 1


def test_of_places_that_lie_far_apart_those_that_have_an_event_are_counted(file: SqliteStore) -> None:
    far(file, ("a", 1 << 50))
    append(file, event("x"), event("y"), stream="a")
    number = file.streams.subscribe("a", "h", lanes=1, from_start=True).number

    stand = file.streams.stand(number, since_ms=0)
    look = file.streams.weigh(number, (1 << 50) + 1)

    assert stand is not None
    assert (stand.appended, stand.lanes[0].behind) == (4, 4)
    assert look is not None
    assert look.skipped == 3
    assert file.streams.let_go(KeepRule("a", 5, None, waits=False), now_ms=10, limit=2) == 2


def test_streams_that_reach_too_far_for_a_file_are_refused(file: SqliteStore) -> None:
    with pytest.raises(StoreError, match="no room for these streams"):
        far(file, *((f"s{n}", 1 << 60) for n in range(9)))

    assert read(file) == []


def test_a_damaged_event_may_stay_behind_and_a_damaged_window_may_not(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("first", now_ms=0, ttl_ms=10_000)
    fill(store, lease)
    within(store, lambda connection: connection.execute("UPDATE event SET key = 'j' WHERE id = 'e4'"))
    within(store, lambda connection: connection.execute("UPDATE event_window SET events = 9 WHERE place = 0"))
    within(store, lambda connection: connection.execute("UPDATE dead_note SET who = 'eve'"))

    found = [wrong for page in read(store) for wrong in page.damage]

    assert [type(wrong) for wrong in found] == [Damage] * len(found)
    assert [(wrong.can_stay, wrong.run) for wrong in found] == [(False, 0)] * 3 + [(True, 0)]
    store.close()
