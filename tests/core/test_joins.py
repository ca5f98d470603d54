"""Joins of two streams, held against a plain computation of all events at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.event_time import LaneTime
from perdure.core.joins import JoinRules, LaneJoin
from perdure.core.windows import Missed, WindowRow

BEGIN = 1_700_000_000_000
OUTER = JoinRules(
    out_of_order_ms=5, idle_after_ms=None, future_ms=1_000, within_ms=10, unmatched=(True, True)
)
INNER = replace(OUTER, unmatched=(False, False))
LEFT = replace(OUTER, unmatched=(True, False))

CHANCES = st.builds(Random, st.integers(0, 2**32 - 1))
Told = tuple[int, int]
"""The positions of left and right; 0 for none."""


@dataclass(frozen=True)
class Given:
    side: int
    position: int
    key: str
    time: int
    at: int


@dataclass
class Lane:
    """A lane that is kept as rows, as a store would, and may be read from them anew."""

    rules: JoinRules
    kept: dict[tuple[str, int, int], WindowRow] = field(default_factory=dict[tuple[str, int, int], WindowRow])
    times: list[LaneTime] = field(default_factory=lambda: [LaneTime(), LaneTime()])
    told: list[Told] = field(default_factory=list[Told])
    missed: dict[tuple[int, int], Missed] = field(default_factory=dict[tuple[int, int], Missed])

    def __post_init__(self) -> None:
        self.crash()

    def crash(self) -> None:
        """Only what was written is left."""
        self.join = LaneJoin(self.rules, self.times, list(self.kept.values()))

    def add(self, event: Given) -> None:
        missed = self.join.add(
            event.side, event.position, event.key, BEGIN + event.time, BEGIN + event.at, b"state"
        )
        if missed is not None:
            self.missed[event.side, event.position] = missed

    def commit(self) -> None:
        rows, gone = self.join.take_changed()
        self.kept.update({(row.key, row.start_ms, row.place): row for row in rows})
        for place in gone:
            self.kept.pop(place, None)
        self.times = self.join.times
        for pair in self.join.take_told():
            self.told.append(
                (pair.left.place // 2 if pair.left else 0, pair.right.place // 2 if pair.right else 0)
            )

    def end(self) -> None:
        """Let events of another key come that take time to its end, on both sides."""
        for side in (0, 1):
            self.add(Given(side, 999, f"end {side}", 100_000, 100_000))
        self.commit()


def offline(rules: JoinRules, events: list[Given], late: set[tuple[int, int]]) -> list[Told]:
    """The same by the plainest code, from all events at once; without those that are late."""
    lefts, rights = (
        [one for one in events if one.side == side and (side, one.position) not in late] for side in (0, 1)
    )
    pairs = [
        (left.position, right.position)
        for left in lefts
        for right in rights
        if left.key == right.key and abs(left.time - right.time) <= rules.within_ms
        if not has_waited_in_vain(rules, left, rights) and not has_waited_in_vain(rules, right, lefts)
    ]
    alone = [(one.position, 0) for one in lefts if one.position not in {left for left, _ in pairs}]
    other = [(0, one.position) for one in rights if one.position not in {right for _, right in pairs}]
    return sorted(pairs + alone * rules.unmatched[0] + other * rules.unmatched[1])


def has_waited_in_vain(rules: JoinRules, one: Given, others: list[Given]) -> bool:
    """Whether it had been given up when the first event of the other side came."""
    if rules.idle_after_ms is None:
        return False
    patience_ms = max(rules.idle_after_ms, rules.within_ms + 1 + rules.out_of_order_ms)
    return one.at + patience_ms <= min(other.at for other in others)


@st.composite
def two_streams(
    draw: st.DrawFn, *, until: int = 60, delay: int = 7, most: int = 12
) -> tuple[list[Given], list[Given]]:
    """Each in its order; some of their events are later than they may be."""
    sides: list[list[Given]] = []
    for side in (0, 1):
        drawn = draw(
            st.lists(
                st.tuples(st.integers(0, until), st.integers(0, delay), st.sampled_from("ab")), max_size=most
            )
        )
        arrivals = sorted((time + delayed, time, key) for time, delayed, key in drawn)
        sides.append(
            [Given(side, place + 1, key, time, at) for place, (at, time, key) in enumerate(arrivals)]
        )
    return sides[0], sides[1]


@settings(max_examples=400, deadline=None)
@given(
    rules=st.sampled_from([OUTER, INNER, LEFT]),
    idle_ms=st.sampled_from([None, 4]),
    streams=two_streams(),
    chance=CHANCES,
)
def test_pairs_are_those_of_all_at_once_however_the_streams_are_read_and_whenever_it_crashes(
    rules: JoinRules, idle_ms: int | None, streams: tuple[list[Given], list[Given]], chance: Random
) -> None:
    rules = replace(rules, idle_after_ms=idle_ms)
    lane = Lane(rules)
    done, at = [0, 0], [0, 0]

    while done != [len(streams[0]), len(streams[1])]:
        kind, side = chance.random(), chance.randrange(2)
        if kind < 0.2 or at == [len(streams[0]), len(streams[1])]:
            lane.commit()
            done = list(at)
        elif kind < 0.3:
            lane.crash()
            at = list(done)
        elif at[side] < len(streams[side]):
            lane.add(streams[side][at[side]])
            at[side] += 1
    lane.end()

    assert sorted(one for one in lane.told if 999 not in one) == offline(
        rules, [*streams[0], *streams[1]], set(lane.missed)
    )
    assert {key for key, _, _ in lane.kept} <= {"", "end 0", "end 1"}


@settings(max_examples=100, deadline=None)
@given(
    streams=two_streams(),
    idle_ms=st.sampled_from([4, 30]),
    looks=st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 200)), max_size=8),
)
def test_a_look_at_which_nothing_is_due_changes_nothing(
    streams: tuple[list[Given], list[Given]], idle_ms: int, looks: list[tuple[int, int]]
) -> None:
    lane = Lane(replace(OUTER, idle_after_ms=idle_ms))
    for event in sorted([*streams[0], *streams[1]], key=lambda one: one.at):
        lane.add(event)
    lane.commit()

    for side, now in looks:
        before = (lane.join.times, lane.join.next_ms(0), lane.join.next_ms(1))
        is_due = lane.join.pass_time(side, BEGIN + now)
        rows, gone = lane.join.take_changed()

        assert is_due == bool(rows or gone)
        if not is_due:
            assert (lane.join.times, lane.join.next_ms(0), lane.join.next_ms(1)) == before


def read(lane: Lane, streams: tuple[list[Given], list[Given]], chance: Random, *, crash: bool) -> None:
    """Read both streams to their ends by chance, and look between two events whether there was silence.

    Whoever looks finds the side read to its end: it is not later then than the next event comes.
    """
    done, at, looked = [0, 0], [0, 0], [0, 0]
    while done != [len(streams[0]), len(streams[1])]:
        kind, side = chance.random(), chance.randrange(2)
        left = streams[side][at[side] :]
        if kind < 0.2 or at == [len(streams[0]), len(streams[1])]:
            lane.commit()
            done = list(at)
        elif kind < 0.3 and crash:
            lane.crash()
            at = list(done)
        elif kind < 0.5:
            before = streams[side][at[side] - 1].at if at[side] else 0
            looked[side] = chance.randint(before, max(before, left[0].at if left else before + 30))
            lane.join.pass_time(side, BEGIN + looked[side])
        elif left:
            lane.add(left[0])
            at[side] += 1


@settings(max_examples=300, deadline=None)
@given(
    rules=st.sampled_from([OUTER, INNER, LEFT]),
    idle_ms=st.sampled_from([None, 4, 30]),
    streams=two_streams(until=20, delay=30, most=4),
    chance=CHANCES,
)
def test_what_is_paired_late_or_alone_does_not_depend_on_how_the_streams_are_read_past_each_other(
    rules: JoinRules, idle_ms: int | None, streams: tuple[list[Given], list[Given]], chance: Random
) -> None:
    rules = replace(rules, idle_after_ms=idle_ms)
    as_it_came, read_anyhow = Lane(rules), Lane(rules)
    for event in sorted([*streams[0], *streams[1]], key=lambda one: one.at):
        as_it_came.add(event)
    as_it_came.commit()

    read(read_anyhow, streams, chance, crash=True)
    as_it_came.end()
    read_anyhow.end()

    assert read_anyhow.missed == as_it_came.missed
    assert sorted(read_anyhow.told) == sorted(as_it_came.told)


@pytest.mark.parametrize("first", [0, 1])
def test_what_was_read_first_of_the_other_side_makes_no_event_late(first: int) -> None:
    lane = Lane(replace(OUTER, idle_after_ms=4))
    other = Given(1, 1, "a", 0, 1)
    own = [Given(0, 1, "a", 0, 0), Given(0, 2, "a", 0, 6)]

    for event in [*own, other] if first == 0 else [other, *own]:
        lane.add(event)
    lane.commit()

    assert set(lane.missed) == {(0, 2)}
    assert lane.told == [(1, 1)]


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_event_of_a_side_is_not_late_for_the_time_that_the_other_side_waited(first: int) -> None:
    lane = Lane(replace(INNER, idle_after_ms=4))
    own, other = Given(0, 1, "a", 3, 100), Given(1, 1, "a", 0, 1)

    for event in [own, other] if first == 0 else [other, own]:
        lane.add(event)
    lane.commit()

    assert (lane.missed, lane.told) == ({}, [])  # the other had waited in vain by then


def make(rules: JoinRules, *events: tuple[int, int], at: int = 0) -> Lane:
    """A lane that got events (side, time) of one key, with positions from 1 on, all appended at once."""
    lane = Lane(rules)
    for place, (side, time) in enumerate(events):
        lane.add(Given(side, place + 1, "a", time, at))
    lane.commit()
    return lane


def test_two_events_exactly_the_time_apart_are_a_pair_and_those_further_apart_are_none() -> None:
    assert make(INNER, (0, 10), (1, 20), (1, 21), (1, 0), (0, 31)).told == [(1, 2), (5, 3)]


def test_an_event_without_a_partner_is_told_when_none_can_come_any_more() -> None:
    lane = make(LEFT, (0, 10), (1, 25))
    before = list(lane.told)

    lane.add(Given(1, 3, "b", 26, 0))
    lane.commit()

    assert (before, lane.told) == ([], [(1, 0)])


def test_one_that_had_a_partner_is_not_told_again_after_a_crash() -> None:
    lane = make(OUTER, (0, 10), (1, 12))
    lane.crash()
    lane.end()

    assert [one for one in lane.told if 999 not in one] == [(1, 2)]


def test_an_event_is_late_by_its_own_stream() -> None:
    lane = make(OUTER, (0, 20), (0, 14), (1, 14))

    assert lane.missed == {(0, 2): Missed("late", ((BEGIN + 4, BEGIN + 25),), BEGIN + 15)}
    assert lane.told == [(1, 3)]
    assert [time.late for time in lane.times] == [1, 0]


def test_an_event_where_the_watermark_is_is_in_time() -> None:
    lane = make(OUTER, (0, 20), (0, 15), (1, 10))

    assert lane.missed == {}
    assert lane.told == [(1, 3), (2, 3)]


def test_an_event_for_which_it_is_too_late_to_have_a_partner_does_not_wait() -> None:
    lane = make(LEFT, (1, 50), (0, 10))

    assert lane.told == [(2, 0)]


def test_silence_on_the_other_side_lets_an_event_go() -> None:
    lane = make(replace(LEFT, idle_after_ms=20), (1, 0), (0, 13), at=100)
    next_ms = lane.join.next_ms(1)

    for side in (0, 1):
        lane.join.pass_time(side, BEGIN + 128)
    lane.commit()
    before = list(lane.told)
    lane.join.pass_time(1, BEGIN + 129)
    lane.commit()

    assert next_ms == BEGIN + 129
    assert (before, lane.told) == ([], [(2, 0)])


def test_an_event_does_not_wait_for_ever_for_a_stream_that_never_has_any() -> None:
    lane = make(replace(LEFT, idle_after_ms=20), (0, 3), at=100)
    next_ms = lane.join.next_ms(1)

    lane.join.pass_time(1, BEGIN + 116)
    lane.commit()
    lane.crash()
    before = list(lane.told)
    lane.join.pass_time(1, BEGIN + 120)
    lane.commit()

    assert (next_ms, before, lane.told) == (BEGIN + 120, [], [(1, 0)])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["waits first", "read last"])
def test_an_event_that_had_waited_in_vain_by_then_is_not_paired_with_the_first_of_the_other_side(
    order: tuple[int, int],
) -> None:
    lane = Lane(replace(OUTER, idle_after_ms=20))
    events = [Given(0, 1, "a", 3, 100), Given(1, 1, "a", 3, 120)]

    for side in order:
        lane.add(events[side])
        lane.commit()
        lane.crash()
    lane.end()

    assert sorted(one for one in lane.told if 999 not in one) == [(0, 1), (1, 0)]


def test_old_events_that_wait_for_a_stream_that_has_none_wait_no_longer_than_new_ones() -> None:
    lane = Lane(replace(LEFT, idle_after_ms=20))
    lane.add(Given(0, 1, "a", 0, 100_000))
    lane.add(Given(0, 2, "a", 90_000, 100_001))

    assert lane.join.next_ms(1) == BEGIN + 100_020
    assert lane.join.pass_time(1, BEGIN + 100_021)
    lane.commit()
    assert lane.told == [(1, 0), (2, 0)]


@pytest.mark.parametrize(("key", "time_ms", "reason"), [("", BEGIN, "keyless"), ("a", None, "missing")])
def test_an_event_that_has_no_place_goes_aside(key: str, time_ms: int | None, reason: str) -> None:
    lane = make(OUTER)

    assert lane.join.add(0, 1, key, time_ms, BEGIN, b"") == Missed(reason)
    assert [time.misdated for time in lane.join.times] == [1, 0]
