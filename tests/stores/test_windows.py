"""Windows in a store: kept with the lane that they are of, with what came of them, or not at all."""

from __future__ import annotations

import pytest

from perdure.core.event_time import LaneTime
from perdure.core.events import LaneMark, NewEvent
from perdure.core.windows import LaneRows, WindowChange, WindowRow
from perdure.stores.base import Batch, Lease, Store
from perdure.stores.sqlite.blobs import INLINE_BYTES_MAX

TIME = LaneTime(10, 11, 5, 2, 1)
ROW = WindowRow("k", 0, 60, 1, 0, ((0, 1), (-60, 2)), 3, b'{"sum":3}')


@pytest.fixture
def number(store: Store, lease: Lease) -> int:
    """Of a subscription, whose lanes are those of `lease`."""
    row = store.streams.subscribe("orders", "sums", lanes=2, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    return row.number


def change(
    number: int,
    *windows: WindowRow,
    gone: tuple[tuple[str, int, int], ...] = (),
    results: tuple[NewEvent, ...] = (),
    time: LaneTime = TIME,
) -> Batch:
    told = [("sums", results)] if results else []
    return Batch(windows=[WindowChange(number, 1, [time], windows, gone, told)])


def result(payload: bytes = b"1", name: str = "k/0/1") -> NewEvent:
    return NewEvent(name, "orders/sums", "window", 1, "k", 59, 70, "", payload, True)


def appended(store: Store) -> list[tuple[str, bytes]]:
    page = store.streams.events("sums", after=0, limit=100)
    return [(event.id, event.payload) for event in page.events]


def test_windows_are_read_as_they_were_written(store: Store, lease: Lease, number: int) -> None:
    empty = WindowRow("k", 60, 120, 2, 1, (), 1, None)

    store.commit(lease, change(number, ROW, empty))

    assert store.streams.windows(number) == [LaneRows(1, [TIME], [ROW, empty])]
    assert store.streams.open_windows(number) == [(TIME, 1)]


def test_a_window_is_replaced_and_removed(store: Store, lease: Lease, number: int) -> None:
    other = ROW._replace(key="j")
    store.commit(lease, change(number, ROW, other))

    later = LaneTime(20, 21, 15, 3, 1)
    store.commit(
        lease, change(number, ROW._replace(events=4), gone=(("j", 0, 0), ("none", 0, 0)), time=later)
    )

    assert store.streams.windows(number) == [LaneRows(1, [later], [ROW._replace(events=4)])]


def test_windows_of_others_are_not_seen(store: Store, lease: Lease, number: int) -> None:
    row = store.streams.subscribe("orders", "others", lanes=2, from_start=True)
    store.commit(lease, change(number, ROW))

    assert store.streams.windows(row.number) == []
    assert store.streams.open_windows(row.number) == []


def test_a_result_is_appended_with_the_windows_and_once(store: Store, lease: Lease, number: int) -> None:
    store.commit(lease, change(number, results=(result(),)))

    store.commit(lease, change(number, results=(result(), result(name="k/60/1"))))

    assert appended(store) == [("k/0/1", b"1"), ("k/60/1", b"1")]


def test_a_result_that_came_out_otherwise_before_is_not_lost(store: Store, lease: Lease, number: int) -> None:
    for payload in (b"1", b"2", b"3", b"2"):
        store.commit(
            lease, change(number, results=(result(payload), result(payload, "other" + str(payload))))
        )

    events = store.streams.events("sums", after=0, limit=100).events
    first, second, third = (event for event in events if event.id.startswith("k"))
    assert (first.id, second.id) == ("k/0/1", f"k/0/1~{first.position}")
    assert third.id == f"{second.id}~{second.position}"
    assert [first.payload, second.payload, third.payload] == [b"1", b"2", b"3"]


def test_of_a_lane_that_is_anothers_nothing_is_written(
    store: Store, lease: Lease, other: Store, second: Lease, number: int
) -> None:
    other.commit(second, change(number, ROW, results=(result(),)))

    assert store.streams.windows(number) == []
    assert appended(store) == []


def test_a_lane_that_is_moved_back_has_no_windows(store: Store, lease: Lease, number: int) -> None:
    store.commit(lease, Batch(lanes=[LaneMark(9, (), number, 1), LaneMark(9, (), number, 0)]))
    store.commit(lease, change(number, ROW))

    store.commit(lease, Batch(lanes=[LaneMark(10, (), number, 1), LaneMark(3, (), number, 0)]))
    before = store.streams.windows(number)
    store.commit(lease, Batch(lanes=[LaneMark(3, (), number, 1)]))

    assert len(before) == 1
    assert store.streams.windows(number) == []


def test_large_states_are_kept_and_leave_nothing_behind(store: Store, lease: Lease, number: int) -> None:
    large = b'"' + b"x" * INLINE_BYTES_MAX + b'"'
    row = ROW._replace(state=large)

    store.commit(lease, change(number, row, row._replace(key="j")))
    read = [window.state for window in store.streams.windows(number)[0].windows]
    well = list(store.check())
    store.commit(lease, change(number, row._replace(state=large + b" "), gone=(("j", 0, 0),)))
    store.commit(lease, change(number, row._replace(state=b"1")))

    assert (read, well, list(store.check())) == ([large, large], [], [])


def test_windows_are_kept_in_the_commit_that_gives_their_lane_up(
    store: Store, lease: Lease, number: int
) -> None:
    batch = change(number, ROW, results=(result(),))
    batch.lanes.append(LaneMark(9, (), number, 1, is_given_up=True))

    store.commit(lease, batch)

    assert store.streams.windows(number) == [LaneRows(1, [TIME], [ROW])]
    assert appended(store) == [("k/0/1", b"1")]


def test_windows_of_a_lane_that_was_sent_elsewhere_are_not_written(
    store: Store, lease: Lease, number: int
) -> None:
    store.commit(lease, Batch(lanes=[LaneMark(9, (), number, 1)]))
    store.commit(lease, change(number, ROW))

    store.streams.seek(number, 0, now_ms=1, who="", reason="")
    store.commit(lease, change(number, ROW, results=(result(),)))
    store.streams.claim_lanes(lease, [number], now_ms=1)
    none = store.streams.windows(number)
    anew = change(number, ROW)
    anew.windows[0] = anew.windows[0]._replace(generation=1)
    store.commit(lease, anew)

    assert (none, appended(store)) == ([], [])
    assert store.streams.windows(number) == [LaneRows(1, [TIME], [ROW])]


def test_windows_go_with_their_subscription(store: Store, lease: Lease, number: int) -> None:
    store.commit(lease, change(number, ROW))
    store.release(lease)

    worker = store.streams.unsubscribe(number)

    assert (worker, store.streams.windows(number), list(store.check())) == ("", [], [])
