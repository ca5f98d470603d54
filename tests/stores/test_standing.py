"""How far subscriptions are, as a store counts it, and sending them elsewhere."""

from __future__ import annotations

import pytest

from perdure import LeaseLost
from perdure.core.event_time import LaneTime
from perdure.core.events import Append, Author, DeadEvent, LaneMark, LanePast, NewEvent
from perdure.core.standing import KeepRule, SeekRow, StreamSpan
from perdure.core.windows import WindowChange
from perdure.stores import standing
from perdure.stores.base import Batch, Lease, Store
from perdure.stores.rows import Handling
from tests.stores.test_stream import append_all

ALL = KeepRule("orders", 0, None, waits=False)


def fill(store: Store, count: int) -> list[int]:
    """Events `1` … `count`, appended at 10, 20 … ms, that happened a ms before; they take turns in the lanes.

    Gives their positions; the first of these is nobody's.
    """
    placed = append_all(store, *(make(str(n), 10 * n) for n in range(1, count + 1)))
    return [0, *(one.position for one in placed)]


def make(name: str, at_ms: int) -> NewEvent:
    return NewEvent(name, "", "t", 1, "", at_ms - 1, at_ms, "", b"1", True)


def subscribe(store: Store, lease: Lease, *, lanes: int = 1) -> int:
    """The number of a subscription whose lanes are the lease's."""
    number = store.streams.subscribe("orders", "h", lanes=lanes, from_start=True).number
    store.streams.claim_lanes(lease, [number], now_ms=1)
    return number


def mark(number: int, cursor: int, *done: int, lane: int = 0, generation: int = 0) -> LaneMark:
    stretches = tuple(end for position in done for end in (position, position))
    return LaneMark(cursor, stretches, number, lane, generation)


def dead(number: int, position: int, *, at_ms: int = 1) -> DeadEvent:
    return DeadEvent(number, position, 0, "", 1, 1, None, at_ms)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ten events are counted."""
    monkeypatch.setattr(standing, "COUNTED_MAX", 10)


def test_what_is_not_done_is_counted_by_lane(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease, lanes=2)
    positions = fill(store, 9)
    by_lane = [[n for n in range(1, 10) if positions[n] % 2 == lane] for lane in range(2)]
    # Of each lane the first is done, and the third.
    marks = [
        mark(number, positions[mine[0]], positions[mine[2]], lane=lane) for lane, mine in enumerate(by_lane)
    ]
    store.commit(lease, Batch(lanes=marks))

    stand = store.streams.stand(number, since_ms=60)

    assert stand is not None
    assert [(one.behind, one.oldest_at_ms, one.oldest_time_ms) for one in stand.lanes] == [
        (len(mine) - 2, 10 * mine[1], 10 * mine[1] - 1) for mine in by_lane
    ]
    assert (stand.gone, stand.is_exact, stand.appended) == (0, True, 4)
    assert {one.worker for one in stand.lanes} == {"first"}
    store.release(lease)
    freed = store.streams.stand(number, since_ms=0)
    assert freed is not None
    assert {one.worker for one in freed.lanes} == {""}


def test_of_a_join_both_streams_count(store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = fill(store, 9)
    store.submit(Batch(appends=[Append("payments", [make("a", 35), make("b", 200)])]))
    number = store.streams.subscribe("payments", "paid", lanes=2, from_start=True, other="orders").number
    store.streams.claim_lanes(lease, [number], now_ms=1)
    time = [LaneTime(), LaneTime(cursor=positions[6])]
    store.commit(lease, Batch(windows=[WindowChange(number, 0, time, [], [], [])]))

    stand = store.streams.stand(number, since_ms=60)
    monkeypatch.setattr(standing, "COUNTED_MAX", 9)
    rough = store.streams.stand(number, since_ms=60)

    assert stand is not None
    assert rough is not None
    mine = [10 * n for n in range(1, 10) if positions[n] % 2 == 0 and n > 6]
    others = [10 * n for n in range(1, 10) if positions[n] % 2 == 1]
    assert sum(one.behind for one in stand.lanes) == 2 + len(mine) + len(others)
    first, second = stand.lanes
    assert first.oldest_at_ms in (35, 200, mine[0])
    assert first.oldest_at_ms == first.oldest_time_ms + 1  # type: ignore[operator]
    assert second.oldest_at_ms == others[0]
    assert (stand.appended, stand.is_exact, rough.is_exact) == (5, True, False)


def test_what_is_parked_is_counted_apart(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 3)
    parked = [dead(number, positions[n], at_ms=100 - n) for n in (1, 2)]
    store.commit(lease, Batch(lanes=[mark(number, positions[2])], dead=parked))

    stand = store.streams.stand(number, since_ms=0)

    assert stand is not None
    assert (stand.lanes[0].behind, stand.parked, stand.parked_at_ms) == (1, 2, 98)


@pytest.mark.usefixtures("few")
def test_of_very_many_the_rest_is_estimated(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease, lanes=2)
    positions = fill(store, 200)
    store.commit(lease, Batch(lanes=[mark(number, positions[120])]))

    stand = store.streams.stand(number, since_ms=0)

    assert stand is not None
    assert not stand.is_exact
    assert stand.lanes[0].oldest_at_ms == 1_210
    assert stand.lanes[1].oldest_at_ms in (10, 20)
    # PostgreSQL knows only about how many there are, and soon after they came next to nothing.
    assert stand.lanes[0].behind < stand.lanes[1].behind
    assert 5 <= stand.lanes[1].behind <= 300


def test_nothing_is_known_of_what_is_not_there(store: Store) -> None:
    assert store.streams.stand(7, since_ms=0) is None
    assert store.streams.weigh(7, 0) is None
    assert store.streams.seek(7, 0, now_ms=1, who="", reason="") is None
    assert store.streams.find("orders", source="", id="1") is None
    assert store.streams.span("orders", since_ms=0) == StreamSpan(0, 0, 0, 0)


@pytest.mark.parametrize(("at_ms", "event"), [(10, 1), (11, 2), (500, 50), (505, 51), (1_000, 100)])
def test_a_time_is_found_among_append_times(store: Store, at_ms: int, event: int) -> None:
    positions = fill(store, 100)

    span = store.streams.span("orders", since_ms=at_ms)

    assert (span.since, span.last) == (positions[event] - 1, positions[-1])


def test_a_time_after_all_or_before_them_is_one_of_the_ends(store: Store) -> None:
    fill(store, 100)

    assert (span := store.streams.span("orders", since_ms=1_001)).since == span.last
    assert (span := store.streams.span("orders", since_ms=0)).since == span.earliest


def test_a_time_is_found_where_clocks_differ_and_events_are_gone(store: Store) -> None:
    positions = fill(store, 100)
    store.streams.let_go(ALL, now_ms=300, limit=1_000)
    append_all(store, make("ahead", 2_000), make("right", 1_500), make("later", 2_001))
    ahead = store.streams.find("orders", source="", id="ahead")

    assert ahead is not None
    assert store.streams.span("orders", since_ms=1_600).since == ahead - 1
    early = store.streams.span("orders", since_ms=100)
    assert (early.since, early.earliest, early.gone) == (positions[30] - 1, positions[30] - 1, positions[29])


def test_what_a_seek_does_is_known_before(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 9)
    marks = [mark(number, positions[4], positions[8])]
    store.commit(lease, Batch(lanes=marks, dead=[dead(number, positions[2])]))
    start = positions[1] - 1

    # Done are 1, 2 (which is parked), 3, 4 and 8.
    assert store.streams.weigh(number, start) == (5, 0, 1, True)
    assert store.streams.weigh(number, positions[3]) == (2, 0, 0, True)
    assert store.streams.weigh(number, positions[6]) == (1, 2, 0, True)
    assert store.streams.weigh(number, positions[9]) == (0, 4, 0, True)


@pytest.mark.usefixtures("few")
def test_what_a_seek_of_very_many_does_is_estimated(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 100)
    store.commit(lease, Batch(lanes=[mark(number, positions[50])]))

    back = store.streams.weigh(number, 0)
    on = store.streams.weigh(number, positions[100])

    assert back is not None
    assert on is not None
    assert (back.skipped, on.again, back.is_exact, on.is_exact) == (0, 0, False, False)
    assert 10 <= back.again <= 100
    assert 10 <= on.skipped <= 100


def test_a_worker_marks_and_parks_nothing_of_a_lane_that_was_sent_elsewhere(
    store: Store, lease: Lease, other: Store
) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)
    store.commit(lease, Batch(lanes=[mark(number, positions[4])]))

    assert other.streams.seek(number, positions[2], now_ms=7, who="ann", reason="why") == 0
    late = Batch(lanes=[mark(number, positions[5])], dead=[dead(number, positions[5])])
    store.commit(lease, late)
    (again,) = store.streams.claim_lanes(lease, [number], now_ms=8)
    none = store.streams.claim_lanes(lease, [number], now_ms=8)
    store.commit(lease, late)
    parked = store.streams.dead_events(number, after=0, limit=9)
    store.commit(lease, Batch(lanes=[mark(number, positions[3], generation=again.generation)]))
    store.release(lease)
    third = store.acquire("third", now_ms=9, ttl_ms=10_000)
    (last,) = store.streams.claim_lanes(third, [number], now_ms=9)

    assert (again.cursor, again.done, again.generation) == (positions[2], (), 1)
    assert again.history == (LanePast(7, positions[2], positions[5] - positions[2], 0),)
    assert (none, parked, last.cursor) == ([], [], positions[3])
    assert other.streams.seeks(number, limit=9) == [SeekRow(positions[2], 7, "ann", "why")]


def test_a_handler_in_a_transaction_does_nothing_in_a_lane_that_was_sent_elsewhere(
    store: Store, lease: Lease
) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)
    done = list[int]()

    def handle(place: int, generation: int) -> Exception | None:
        handling = Handling(
            number, 0, positions[place], lambda _: done.append(place), lambda _: None, generation=generation
        )
        store.commit(lease, Batch(handlings=[handling]))
        return handling.failed

    store.streams.seek(number, positions[2], now_ms=7, who="", reason="")
    late = handle(4, 0)
    store.streams.claim_lanes(lease, [number], now_ms=8)
    again = handle(3, 1)
    stand = store.streams.stand(number, since_ms=0)

    assert stand is not None
    assert (type(late), again, done, stand.lanes[0].behind) == (LeaseLost, None, [3], 2)


def test_a_lane_that_was_sent_elsewhere_is_not_another_workers(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)

    store.streams.seek(number, positions[2], now_ms=7, who="", reason="")

    assert other.streams.claim_lanes(second, [number], now_ms=8) == []
    assert len(store.streams.claim_lanes(lease, [number], now_ms=8)) == 1


def test_a_worker_is_given_its_lanes_again_though_they_are_more_than_its_share(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    number = subscribe(store, lease, lanes=5)
    positions = fill(store, 5)
    other.streams.claim_lanes(second, [number], now_ms=2)

    store.streams.seek(number, positions[2], now_ms=7, who="", reason="")
    given_up = LaneMark(positions[5], (), number, 4, is_given_up=True)
    store.commit(lease, Batch(lanes=[given_up]))
    theirs = other.streams.claim_lanes(second, [number], now_ms=8)
    again = store.streams.claim_lanes(lease, [number], now_ms=8)

    assert (theirs, store.streams.shares(lease, [number])) == ([], {number: 3})
    assert [(row.lane, row.cursor) for row in again] == [(lane, positions[2]) for lane in range(5)]
    assert {row.generation for row in again} == {1}


def test_what_is_parked_by_the_last_mark_of_a_lane_is_parked(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)

    last = LaneMark(positions[5], (), number, 0, is_given_up=True)
    store.commit(lease, Batch(lanes=[last], dead=[dead(number, positions[5])]))

    assert [one.position for one in store.streams.dead_events(number, after=0, limit=9)] == [positions[5]]


def test_what_is_parked_behind_the_place_is_parked_no_more(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)
    parked = [dead(number, positions[n]) for n in (1, 2, 3)]
    store.commit(lease, Batch(lanes=[mark(number, positions[5])], dead=parked))

    store.streams.seek(number, positions[2], now_ms=7, who="", reason="")

    left = store.streams.dead_events(number, after=0, limit=9)
    assert [one.position for one in left] == positions[1:3]


def test_what_people_did_to_parked_events_behind_the_place_is_forgotten(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 3)
    parked = [dead(number, position) for position in positions[1:]]
    store.commit(lease, Batch(dead=parked, lanes=[mark(number, positions[3])]))
    for position in positions[1:]:
        store.streams.dead.edit(number, position, b"2", Author("ann", "why", 3))

    before = store.streams.dead.standings()[0].edition
    store.streams.seek(number, positions[2], now_ms=7, who="", reason="")

    assert [len(store.streams.dead.notes(number, position)) for position in positions[1:]] == [1, 1, 0]
    assert store.streams.dead.standings()[0].edition > before


def test_no_place_is_taken_whose_events_are_gone(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 5)
    store.streams.let_go(ALL, now_ms=31, limit=9)

    assert store.streams.seek(number, positions[2], now_ms=7, who="", reason="") == positions[3]
    assert store.streams.claim_lanes(lease, [number], now_ms=8) == []
    assert store.streams.seeks(number, limit=9) == []


def test_an_event_is_found_by_the_id_that_it_was_given(store: Store) -> None:
    positions = fill(store, 3)
    placed = append_all(
        store,
        make("drawn", 500)._replace(is_resent=False),
        make("x", 500)._replace(source="there"),
    )

    assert store.streams.find("orders", source="", id="2") == positions[2]
    assert store.streams.find("orders", source="there", id="x") == placed[1].position
    for source, name in (("there", "2"), ("", "drawn"), ("", "none")):
        assert store.streams.find("orders", source=source, id=name) is None
    store.streams.let_go(ALL, now_ms=31, limit=9)
    assert store.streams.find("orders", source="", id="2") is None


def test_a_subscription_that_nobody_serves_is_forgotten(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    positions = fill(store, 2)
    store.commit(lease, Batch(dead=[dead(number, positions[1])]))

    refused = store.streams.unsubscribe(number)
    store.release(lease)
    done = store.streams.unsubscribe(number)

    assert (refused, done) == ("first", "")
    assert store.streams.subscriptions() == []
    assert store.streams.dead_events(number, after=0, limit=9) == []
    assert list(store.check()) == []


def test_a_lane_keeps_its_past(store: Store, lease: Lease) -> None:
    number = subscribe(store, lease)
    past = (LanePast(1, 2, 3, 4), LanePast(5, 6, 7, 8))

    store.commit(lease, Batch(lanes=[LaneMark(4, (), number, 0, 0, past)]))
    stand = store.streams.stand(number, since_ms=0)
    store.release(lease)
    again = store.acquire("again", now_ms=1, ttl_ms=100)

    assert stand is not None
    assert stand.lanes[0].history == past
    assert [one.history for one in store.streams.claim_lanes(again, [number], now_ms=2)] == [past]
