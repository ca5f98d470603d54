"""Dead letters in a store: what waits behind what, what people do, and lanes whose workers died."""

from __future__ import annotations

import pytest

from perdure.core.events import (
    Append,
    Author,
    DeadEvent,
    DeadFilter,
    DeadKind,
    Deed,
    LaneMark,
    LaneWatch,
    NewEvent,
    Standing,
)
from perdure.stores.base import Batch, Lease, Store

ANN = Author("ann", "mended", 7)


@pytest.fixture
def row(store: Store) -> int:
    """A subscription of one lane to a stream with five events."""
    events = [NewEvent(f"{n}", "", "placed", 1, "k", 5, 6, "", b"%d" % n, False) for n in range(1, 6)]
    store.submit(Batch(appends=[Append("orders", events)]))
    return store.streams.subscribe("orders", "h", lanes=1, from_start=True).number


@pytest.fixture
def at(store: Store) -> list[int]:
    """Where the events stand; the first at 1."""
    return [0, *(event.position for event in store.streams.events("orders", after=0, limit=9).events)]


def dead(row: int, position: int, kind: DeadKind, *, holds: int = 1, key: str = "k") -> DeadEvent:
    return DeadEvent(row, position, 0, key, int(kind), 1, None, 9, holds)


def parked(store: Store, row: int) -> list[tuple[int, int]]:
    return [(one.position, one.kind) for one in store.streams.dead.events(row, DeadFilter(), limit=9)]


def due(store: Store, row: int, key: str = "k") -> list[int]:
    return [event.position for event in store.streams.dead.due(row, 0, key, limit=9).events]


def redrive(store: Store, row: int, *, key: str | None = None, limit: int = 9) -> list[int]:
    number = store.streams.dead.begin_redrive(row)
    return store.streams.dead.redrive(row, number, DeadFilter((), key), ANN, limit=limit).places


def test_what_comes_behind_one_that_holds_is_parked_and_otherwise_due(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    store.commit(lease, Batch(dead=[dead(row, at[1], DeadKind.BEHIND)]))
    first = due(store, row)
    store.commit(lease, Batch(cleared=[(row, at[1])], dead=[dead(row, at[2], DeadKind.FAILED)]))
    store.commit(lease, Batch(dead=[dead(row, at[3], DeadKind.BEHIND)]))

    assert first == [at[1]]
    assert (due(store, row), parked(store, row)) == ([], [(at[2], 1), (at[3], 3)])


def test_an_event_that_is_put_in_line_after_a_redrive_is_due_though_its_worker_did_not_know(
    store: Store, lease: Lease, row: int, at: list[int], other: Store
) -> None:
    store.commit(lease, Batch(dead=[dead(row, at[1], DeadKind.FAILED), dead(row, at[2], DeadKind.BEHIND)]))

    redriven = redrive(other, row)
    store.commit(lease, Batch(dead=[dead(row, at[3], DeadKind.BEHIND)]))

    assert redriven == [at[1], at[2]]
    assert (due(store, row), parked(store, row)) == ([at[1], at[2], at[3]], [])


def test_one_that_fails_again_parks_what_was_due_behind_it_and_nothing_before_it(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    batch = [dead(row, at[1], DeadKind.FAILED), *(dead(row, at[n], DeadKind.BEHIND) for n in (2, 3, 4))]
    store.commit(lease, Batch(dead=batch))
    redrive(store, row)

    store.commit(lease, Batch(dead=[dead(row, at[2], DeadKind.FAILED)]))

    assert (due(store, row), parked(store, row)) == ([at[1]], [(at[2], 1), (at[3], 3), (at[4], 3)])
    (one,) = store.streams.dead.events(row, DeadFilter((at[2],)), limit=9)
    assert (one.redrives, one.holds, one.due) == (1, 1, 0)


def test_a_part_of_a_key_is_handed_over_from_its_beginning(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    batch = [dead(row, at[1], DeadKind.FAILED), *(dead(row, at[n], DeadKind.BEHIND) for n in (2, 3))]
    store.commit(lease, Batch(dead=batch))
    number = store.streams.dead.begin_redrive(row)
    wanted = DeadFilter((at[3],))

    dry = store.streams.dead.redrive(row, 0, wanted, None, limit=9)
    first = store.streams.dead.redrive(row, number, wanted, ANN, limit=2)
    store.commit(lease, Batch(dead=[dead(row, at[1], DeadKind.FAILED)]))
    after_failure = store.streams.dead.redrive(row, number, wanted, ANN, limit=9)

    assert dry.places == [at[1], at[2], at[3]]
    assert (first.places, first.failed, first.out) == ([at[1], at[2]], 0, 2)
    assert (after_failure.places, after_failure.failed, after_failure.out) == ([], 1, 0)


def test_events_that_do_not_hold_are_meant_one_by_one(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    store.commit(lease, Batch(dead=[dead(row, at[n], DeadKind.FAILED, holds=0) for n in (1, 2)]))
    number = store.streams.dead.begin_redrive(row)

    found = store.streams.dead.redrive(row, number, DeadFilter((at[2],)), ANN, limit=9)

    assert (found.places, due(store, row), parked(store, row)) == ([at[2]], [at[2]], [(at[1], 1)])


def test_an_edit_is_what_is_delivered_and_all_that_people_did_is_kept(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    store.commit(lease, Batch(dead=[dead(row, at[1], DeadKind.FAILED)]))

    edited = [store.streams.dead.edit(row, at[1], payload, ANN) for payload in (b"10", b"11")]
    nothing = store.streams.dead.edit(row, at[2], b"12", ANN)
    redrive(store, row)

    (event,) = store.streams.dead.due(row, 0, "k", limit=9).events
    original = store.streams.dead.event(row, at[1])
    assert (edited, nothing, event.payload, event.id) == ([True, True], False, b"11", "1")
    assert original is not None
    assert original.payload == b"1"
    notes = store.streams.dead.notes(row, at[1])
    assert [(note.deed, note.payload) for note in notes] == [
        (Deed.EDITED, b"10"), (Deed.EDITED, b"11"), (Deed.REDRIVEN, None),
    ]  # fmt: skip
    assert notes[0][2:5] == (7, "ann", "mended")
    assert list(store.check()) == []


def test_what_is_discarded_is_gone_and_remembered(
    store: Store, lease: Lease, row: int, at: list[int]
) -> None:
    store.commit(lease, Batch(dead=[dead(row, at[n], DeadKind.FAILED) for n in (1, 2)]))

    gone = store.streams.dead.discard(row, DeadFilter((at[1],)), ANN)
    again = store.streams.dead.discard(row, DeadFilter((at[1],)), ANN)

    assert (gone, again, parked(store, row)) == ([at[1]], [], [(at[2], 1)])
    assert store.streams.dead.discarded(row) == [at[1]]
    assert store.streams.dead.counts(row) == {1: 1}


def test_what_people_do_is_seen_by_the_edition(store: Store, lease: Lease, row: int, at: list[int]) -> None:
    def edition() -> int:
        return store.streams.dead.standings()[0].edition

    seen = [edition()]
    store.commit(lease, Batch(dead=[dead(row, at[n], DeadKind.FAILED) for n in (1, 2)]))
    unchanged = edition()
    redrive(store, row)
    seen.append(edition())
    store.commit(lease, Batch(dead=[dead(row, at[1], DeadKind.FAILED)]))
    store.streams.dead.discard(row, DeadFilter((at[1],)), ANN)
    seen.append(edition())
    store.streams.dead.change_standing(row, [Standing.ACTIVE], Standing.STOPPED, reason="no", at_ms=8)
    seen.append(edition())

    assert unchanged == seen[0]
    assert seen == sorted(set(seen))


def test_a_subscription_stands_otherwise_only_from_where_it_stands(store: Store, row: int) -> None:
    change = store.streams.dead.change_standing

    changed = [
        change(row, [Standing.ACTIVE], Standing.SUSPENDED, reason="out", at_ms=8),
        change(row, [Standing.ACTIVE], Standing.SUSPENDED, reason="again", at_ms=9),
        change(row, [Standing.STOPPED], Standing.ACTIVE, reason="", at_ms=9),
    ]

    (stands,) = store.streams.dead.standings()
    assert changed == [True, False, False]
    assert (stands.status, stands.at_ms, stands.reason) == (Standing.SUSPENDED, 8, "out")


def test_the_death_of_a_lanes_worker_is_counted_by_who_claims_it_and_a_release_is_not(
    store: Store, lease: Lease, row: int, at: list[int], other: Store, second: Lease
) -> None:
    store.streams.claim_lanes(lease, [row], now_ms=1)
    store.commit(lease, Batch(watches=[LaneWatch(row, 0, 1, at[5], (at[2], at[3]))]))

    (died,) = other.streams.claim_lanes(second, [row], now_ms=20_000)
    other.commit(second, Batch(watches=[LaneWatch(row, 0, 2, at[5], (at[2],), ((at[2], 2),))]))
    other.release(second)
    third = other.acquire("third", now_ms=20_001, ttl_ms=10_000)
    (released,) = other.streams.claim_lanes(third, [row], now_ms=20_002)
    other.commit(third, Batch(watches=[LaneWatch(row, 0, 0, 0)], lanes=[LaneMark(at[5], (), row, 0)]))
    other.release(third)
    fourth = other.acquire("fourth", now_ms=20_003, ttl_ms=10_000)
    (over,) = other.streams.claim_lanes(fourth, [row], now_ms=20_004)

    assert died.watch == LaneWatch(row, 0, 2, at[5], (), ((at[2], 2), (at[3], 2)))
    assert released.watch == LaneWatch(row, 0, 2, at[5], (), ((at[2], 2),))
    assert over.watch is None
