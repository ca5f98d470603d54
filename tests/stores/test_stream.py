"""Event streams in a store: append, read along, subscribe, and lanes under a lease."""

from __future__ import annotations

import pytest

from perdure import LeaseLost
from perdure.core.events import Append, Clash, DeadEvent, LaneMark, NewEvent, Placed
from perdure.stores.base import Batch, Lease, Store
from perdure.stores.sqlite.blobs import INLINE_BYTES_MAX


def make(
    name: str, payload: bytes = b"1", *, resent: bool = True, source: str = "here", key: str = "k"
) -> NewEvent:
    return NewEvent(name, source, "placed", 1, key, 5, 6, "", payload, resent)


def append(store: Store, *events: NewEvent, stream: str = "orders") -> list[Placed] | Clash:
    return store.submit(Batch(appends=[Append(stream, events)])).appends[0]


def append_all(store: Store, *events: NewEvent) -> list[Placed]:
    placed = append(store, *events)
    assert not isinstance(placed, Clash)
    return placed


def names(store: Store, stream: str = "orders", *, after: int = 0, limit: int = 100) -> list[str]:
    return [event.id for event in store.streams.events(stream, after=after, limit=limit).events]


def test_events_are_read_in_the_order_in_which_they_were_appended(store: Store, other: Store) -> None:
    append(store, make("a"), make("b"))
    append(other, make("c"))

    first = store.streams.events("orders", after=0, limit=2)
    rest = other.streams.events("orders", after=first.after, limit=2)
    end = store.streams.events("orders", after=rest.after, limit=2)

    assert [event.id for event in (*first.events, *rest.events, *end.events)] == ["a", "b", "c"]
    assert end.after == rest.after


def test_an_event_is_read_as_it_was_appended(store: Store) -> None:
    append(store, NewEvent("a", "s", "t", 3, "k", -5, 7, "00-trace", b'{"x":1}', False))

    (event,) = store.streams.events("orders", after=0, limit=9).events

    assert event[1:] == ("a", "s", "t", 3, "k", -5, 7, "00-trace", b'{"x":1}', "")
    assert event.position > 0


def test_streams_do_not_see_each_other(store: Store) -> None:
    append(store, make("a"))
    append(store, make("a", b"2"), stream="others")

    assert (names(store), names(store, "others"), names(store, "none")) == (["a"], ["a"], [])


def test_the_same_event_again_is_a_duplicate_also_within_one_append(store: Store) -> None:
    _, b = append_all(store, make("a"), make("b"))

    again, c, c_again = append_all(store, make("b"), make("c"), make("c"))
    (elsewhere,) = append_all(store, make("a", source="elsewhere"))

    assert (again, c_again) == (Placed(b.position, True), Placed(c.position, True))
    assert (c.is_duplicate, elsewhere.is_duplicate) == (False, False)
    assert b.position < c.position < elsewhere.position
    assert names(store) == ["a", "b", "c", "a"]


def test_an_event_that_is_appended_twice_in_one_batch_is_one(store: Store) -> None:
    """The second append goes by what became of the first, be that refused."""
    append(store, make("a"))

    first, second, third = store.submit(
        Batch(
            appends=[
                Append("orders", [make("b")]),
                Append("orders", [make("b"), make("c")]),
                Append("orders", [make("b"), make("c", b"2")]),
            ]
        )
    ).appends
    refused, after = store.submit(
        Batch(
            appends=[Append("orders", [make("d"), make("a", b"2")]), Append("orders", [make("d"), make("e")])]
        )
    ).appends

    assert (first, second, third) == (
        [Placed(first[0].position, False)],
        [Placed(first[0].position, True), Placed(second[1].position, False)],
        Clash(1, second[1].position),
    )
    assert isinstance(refused, Clash)
    assert [one.is_duplicate for one in after] == [False, False]
    assert names(store) == ["a", "b", "c", "d", "e"]


def test_an_append_that_names_two_events_alike_is_refused(store: Store) -> None:
    outcome = append(store, make("a"), make("a", b"2"))

    assert isinstance(outcome, Clash)
    assert (outcome.place, names(store)) == (1, [])


def test_an_append_of_nothing_is_nothing(store: Store) -> None:
    assert append(store) == []
    assert names(store) == []


@pytest.mark.parametrize(
    "other_one",
    [make("b", b"2"), make("b", key="j"), make("b")._replace(type="paid"), make("b")._replace(version=2)],
)
def test_an_id_with_other_content_refuses_the_whole_append_and_no_other(
    store: Store, other_one: NewEvent
) -> None:
    _, b = append_all(store, make("a"), make("b"))

    refused, (d,) = store.submit(
        Batch(appends=[Append("orders", [make("c"), other_one]), Append("orders", [make("d")])])
    ).appends

    assert (refused, d.is_duplicate) == (Clash(1, b.position), False)
    assert names(store) == ["a", "b", "d"]


def test_an_id_that_was_drawn_is_not_looked_for(store: Store) -> None:
    append(store, make("a", resent=False))

    (again,) = append_all(store, make("a", b"2", resent=False))

    assert not again.is_duplicate
    assert names(store) == ["a", "a"]


def test_large_payloads_are_kept_once_and_a_refused_append_leaves_none(store: Store) -> None:
    large = b'"' + b"x" * INLINE_BYTES_MAX + b'"'
    append(store, make("a", large), make("b", large))
    append(store, make("c", large + b" "), make("a", b"other"))

    events = store.streams.events("orders", after=0, limit=9).events

    assert [event.payload for event in events] == [large, large]
    assert list(store.check()) == []


def test_a_subscription_is_made_once_and_begins_where_it_was_told(store: Store, lease: Lease) -> None:
    _, b = append_all(store, make("a"), make("b"))
    old = store.streams.subscribe("orders", "old", lanes=2, from_start=True)
    new = store.streams.subscribe("orders", "new", lanes=1, from_start=False)

    assert store.streams.subscribe("orders", "old", lanes=7, from_start=False) == old
    lanes = store.streams.claim_lanes(lease, [old.number, new.number], now_ms=1)
    assert [(lane.subscription, lane.lane, lane.cursor) for lane in lanes] == [
        (old.number, 0, 0), (old.number, 1, 0), (new.number, 0, b.position),
    ]  # fmt: skip


def test_a_lane_is_one_workers_until_its_lease_ends(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=2, from_start=True)

    mine = store.streams.claim_lanes(lease, [row.number], now_ms=1)
    none = other.streams.claim_lanes(second, [row.number], now_ms=1)
    store.release(lease)
    theirs = other.streams.claim_lanes(second, [row.number], now_ms=2)

    assert (len(mine), none, len(theirs)) == (2, [], 2)


def test_what_is_done_of_a_lane_is_given_to_who_claims_it_next(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=2, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    store.commit(lease, Batch(lanes=[LaneMark(1, (), row.number, 1), LaneMark(3, (5, 7), row.number, 1)]))
    dead = DeadEvent(row.number, 2, 1, "k", 1, 3, b"{}", 9, holds=1)
    store.commit(lease, Batch(dead=[dead]))
    store.release(lease)

    lanes = other.streams.claim_lanes(second, [row.number], now_ms=2)

    assert [(lane.cursor, lane.done, lane.parked) for lane in lanes] == [(0, (), ()), (3, (5, 7), ("k",))]
    assert other.streams.dead_events(row.number, after=0, limit=5) == [dead]
    assert other.streams.dead_events(row.number, after=2, limit=5) == []


def test_a_worker_that_lost_its_lease_marks_nothing(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=1, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    taken = other.streams.claim_lanes(second, [row.number], now_ms=20_000)

    with pytest.raises(LeaseLost):
        store.commit(lease, Batch(lanes=[LaneMark(9, (), row.number, 0)]))
    other.release(second)
    again = other.acquire("third", now_ms=20_001, ttl_ms=10)

    assert len(taken) == 1
    assert [lane.cursor for lane in other.streams.claim_lanes(again, [row.number], now_ms=20_002)] == [0]


def test_a_lane_of_another_is_not_marked(store: Store, lease: Lease, other: Store, second: Lease) -> None:
    row = store.streams.subscribe("orders", "h", lanes=1, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)

    other.commit(second, Batch(lanes=[LaneMark(9, (), row.number, 0)]))
    store.release(lease)

    assert [lane.cursor for lane in other.streams.claim_lanes(second, [row.number], now_ms=2)] == [0]


def test_subscriptions_are_listed_by_stream_and_name(store: Store) -> None:
    for stream, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.streams.subscribe(stream, name, lanes=2, from_start=True)

    assert [(row.stream, row.name, row.lanes) for row in store.streams.subscriptions()] == [
        ("a", "y", 2), ("a", "z", 2), ("b", "x", 2),
    ]  # fmt: skip


def test_a_worker_claims_its_share_of_the_lanes_and_is_told_what_that_is(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=5, from_start=True)

    alone = store.streams.claim_lanes(lease, [row.number], now_ms=1)
    shares = [store.streams.shares(lease, [row.number])]
    none = other.streams.claim_lanes(second, [row.number], now_ms=1)
    shares.append(store.streams.shares(lease, [row.number]))
    given_up = [LaneMark(7, (9,), row.number, lane, is_given_up=True) for lane in (3, 4)]
    store.commit(lease, Batch(lanes=given_up))
    theirs = other.streams.claim_lanes(second, [row.number], now_ms=1)
    again = store.streams.claim_lanes(lease, [row.number], now_ms=1)

    assert (len(alone), none, again) == (5, [], [])
    assert shares == [{row.number: 5}, {row.number: 3}]
    assert [(lane.lane, lane.cursor, lane.done) for lane in theirs] == [(3, 7, (9,)), (4, 7, (9,))]


def test_a_lane_that_was_given_up_is_not_marked_any_more(store: Store, lease: Lease) -> None:
    row = store.streams.subscribe("orders", "h", lanes=1, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)

    store.commit(lease, Batch(lanes=[LaneMark(7, (), row.number, 0, is_given_up=True)]))
    store.commit(lease, Batch(lanes=[LaneMark(9, (), row.number, 0)]))

    assert [lane.cursor for lane in store.streams.claim_lanes(lease, [row.number], now_ms=1)] == [7]


def test_lanes_that_are_not_shared_are_those_of_who_has_served_longest(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=3, from_start=True)
    whole = [row.number]

    first = store.streams.claim_lanes(lease, [row.number], now_ms=1, whole=whole)
    none = other.streams.claim_lanes(second, [row.number], now_ms=1, whole=whole)
    shares = [
        store.streams.shares(lease, [row.number], whole=whole),
        other.streams.shares(second, [row.number], whole=whole),
    ]
    store.release(lease)
    then = other.streams.claim_lanes(second, [row.number], now_ms=1, whole=whole)

    assert (len(first), none, len(then)) == (3, [], 3)
    assert shares == [{row.number: 3}, {row.number: 0}]


def test_a_share_grows_when_another_worker_has_gone(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    row = store.streams.subscribe("orders", "h", lanes=4, from_start=True)
    store.streams.claim_lanes(lease, [row.number], now_ms=1)
    other.streams.claim_lanes(second, [row.number], now_ms=1)

    store.release(lease)
    taken = other.streams.claim_lanes(second, [row.number], now_ms=2)

    assert len(taken) == 4
