"""What a stream lets go of: the oldest, not what is wanted still, and never silently."""

from __future__ import annotations

import pytest

from perdure.core.event_time import LaneTime
from perdure.core.events import Append, DeadEvent, LaneMark, NewEvent
from perdure.core.standing import KeepRule
from perdure.core.windows import WindowChange
from perdure.stores.base import Batch, Lease, Store
from perdure.stores.sqlite.blobs import INLINE_BYTES_MAX
from tests.stores.test_stream import append, append_all, names

ALL = KeepRule("orders", 0, None, waits=False)
WAITS = ALL._replace(waits=True)


def event(name: str, at_ms: int, payload: bytes = b"12345") -> NewEvent:
    return NewEvent(name, "here", "placed", 1, "k", at_ms, at_ms, "", payload, True)


def fill(store: Store, count: int) -> list[int]:
    """Events `1` … `count`, appended at 1, 2 … ms; the positions, the first of which is nobody's."""
    placed = append_all(store, *(event(str(n), n) for n in range(1, count + 1)))
    return [0, *(one.position for one in placed)]


def subscribe(store: Store, lease: Lease, *, lanes: int = 1) -> int:
    """The number of a subscription whose lanes are the lease's."""
    number = store.streams.subscribe("orders", "h", lanes=lanes, from_start=True).number
    store.streams.claim_lanes(lease, [number], now_ms=1)
    return number


def kept(store: Store) -> list[str]:
    """The events that are not let go."""
    return names(store, after=store.streams.span("orders", since_ms=0).gone)


def test_what_is_older_than_the_rule_says_goes_and_the_rest_stays(store: Store) -> None:
    fill(store, 9)

    count = store.streams.let_go(KeepRule("orders", 5, None, waits=True), now_ms=9, limit=100)

    assert (count, kept(store)) == (3, ["4", "5", "6", "7", "8", "9"])


def test_what_is_over_the_size_goes_the_oldest_first(store: Store) -> None:
    fill(store, 9)
    rule = KeepRule("orders", None, 12, waits=True)

    assert store.streams.let_go(rule, now_ms=0, limit=100) == 7
    assert kept(store) == ["8", "9"]
    append(store, event("10", 10))
    assert store.streams.let_go(rule, now_ms=0, limit=100) == 1


def test_it_goes_in_pieces(store: Store) -> None:
    fill(store, 9)

    counts = [store.streams.let_go(ALL, now_ms=100, limit=4) for _ in range(4)]

    assert (counts, kept(store)) == ([4, 4, 1, 0], [])


def test_who_asks_for_what_is_gone_is_given_nothing_and_told(store: Store) -> None:
    positions = fill(store, 4)
    store.streams.let_go(KeepRule("orders", 2, None, waits=True), now_ms=5, limit=100)

    page = store.streams.events("orders", after=0, limit=100)
    rest = store.streams.events("orders", after=page.gone, limit=100)

    assert (page.events, page.after, page.gone, page.last) == ([], 0, positions[2], positions[4])
    assert [one.id for one in rest.events] == ["3", "4"]


def test_what_a_subscription_has_not_done_stays_unless_the_rule_says_so(store: Store, lease: Lease) -> None:
    positions = fill(store, 6)
    number = subscribe(store, lease, lanes=2)
    marks = [
        LaneMark(positions[4], (), number, 0), LaneMark(positions[2], tuple(positions[3:5]), number, 1),
    ]  # fmt: skip
    store.commit(lease, Batch(lanes=marks))

    waits = store.streams.let_go(WAITS, now_ms=100, limit=100)
    not_waits = store.streams.let_go(ALL, now_ms=100, limit=100)

    assert (waits, not_waits) == (2, 4)


def test_a_new_subscription_begins_with_the_first_that_is_kept(store: Store, lease: Lease) -> None:
    positions = fill(store, 6)
    store.streams.let_go(KeepRule("orders", 2, None, waits=True), now_ms=6, limit=100)

    row = store.streams.subscribe("orders", "h", lanes=1, from_start=True)

    (lane,) = store.streams.claim_lanes(lease, [row.number], now_ms=1)
    assert lane.cursor == positions[3]


def test_an_event_that_is_parked_stays_until_it_is_parked_no_more(store: Store, lease: Lease) -> None:
    positions = fill(store, 6)
    number = subscribe(store, lease)
    dead = DeadEvent(number, positions[2], 0, "k", 1, 1, b"{}", 9)
    store.commit(lease, Batch(dead=[dead], lanes=[LaneMark(positions[6], (), number, 0)]))

    store.streams.let_go(WAITS, now_ms=100, limit=100)
    parked = append_all(store, event("2", 2))[0].is_duplicate
    store.release(lease)
    assert store.streams.unsubscribe(number) == ""
    store.streams.let_go(WAITS, now_ms=100, limit=100)
    left = append_all(store, event("2", 2))[0].is_duplicate

    assert (parked, left) == (True, False)


def test_an_id_is_known_for_as_long_as_its_event_is_kept(store: Store) -> None:
    fill(store, 2)
    before = append_all(store, event("1", 1))
    store.streams.let_go(ALL, now_ms=100, limit=1)

    after = append_all(store, event("1", 1), event("2", 2))

    assert [one.is_duplicate for one in (*before, *after)] == [True, False, True]


def test_large_payloads_go_with_their_events_and_count_for_the_size(store: Store) -> None:
    large = b'"' + b"x" * INLINE_BYTES_MAX + b'"'
    append(store, event("a", 1, large), event("b", 2, b"1"), event("c", 3, b"1"))

    count = store.streams.let_go(KeepRule("orders", None, 2, waits=True), now_ms=9, limit=100)

    assert (count, kept(store)) == (1, ["b", "c"])
    assert list(store.check()) == []


def test_where_there_is_nothing_to_let_go_nothing_is_done(store: Store) -> None:
    assert store.streams.let_go(ALL, now_ms=9, limit=100) == 0
    fill(store, 1)
    assert store.streams.let_go(KeepRule("orders", 9, 9, waits=True), now_ms=9, limit=100) == 0


@pytest.mark.parametrize("rule", [ALL, KeepRule("orders", None, 0, waits=True)])
def test_what_is_appended_afterwards_is_kept_and_read(store: Store, rule: KeepRule) -> None:
    fill(store, 3)
    store.streams.let_go(rule, now_ms=100, limit=100)

    store.submit(Batch(appends=[Append("orders", [event("new", 200)])]))

    assert kept(store) == ["new"]


def test_what_a_join_has_not_read_of_its_second_stream_stays(store: Store, lease: Lease) -> None:
    positions = fill(store, 6)
    row = store.streams.subscribe("payments", "paid", lanes=2, from_start=True, other="orders")
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    ends = [LaneMark(1 << 60, (), row.number, lane) for lane in range(2)]

    store.commit(lease, Batch(lanes=ends, windows=[read_to(row.number, 0, positions[4])]))
    before = store.streams.let_go(WAITS, now_ms=100, limit=100)
    store.commit(lease, Batch(lanes=ends, windows=[read_to(row.number, 1, positions[2])]))
    after = store.streams.let_go(WAITS, now_ms=100, limit=100)

    assert (before, after) == (0, 2)
    assert store.streams.let_go(ALL, now_ms=100, limit=100) == 4


def test_a_join_of_an_earlier_release_holds_its_second_stream_from_when_it_is_served(store: Store) -> None:
    fill(store, 6)
    old = store.streams.subscribe("payments", "paid", lanes=2, from_start=True)

    now = store.streams.subscribe("payments", "paid", lanes=2, from_start=True, other="orders")

    assert now == old._replace(other="orders")
    assert store.streams.subscriptions() == [now]
    assert store.streams.let_go(WAITS, now_ms=100, limit=100) == 0


def test_a_join_that_is_below_its_second_stream_begins_there_anew_when_it_is_sent_on(
    store: Store, lease: Lease
) -> None:
    positions = fill(store, 6)
    row = store.streams.subscribe("payments", "paid", lanes=2, from_start=True, other="orders")
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    store.commit(lease, Batch(windows=[read_to(row.number, 0, positions[2]), read_to(row.number, 1, 0)]))
    store.streams.let_go(ALL, now_ms=100, limit=4)

    stands = [store.streams.stand(row.number, since_ms=0)]
    store.streams.seek(row.number, 0, now_ms=1, who="", reason="")
    stands.append(store.streams.stand(row.number, since_ms=0))

    found = [(one.other_cursor, one.other_gone) for one in stands if one is not None]
    assert found == [(positions[2], positions[4]), (0, positions[4])]


def read_to(number: int, lane: int, position: int) -> WindowChange:
    """A lane of a join has taken the events of its second stream up to there."""
    return WindowChange(number, lane, [LaneTime(), LaneTime(cursor=position)], [], [], [])
