"""Windows over event time, held against a plain computation of all events at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.event_time import LaneTime
from perdure.core.windows import LaneRows, LaneWindows, Missed, Told, WindowRow, WindowRules

BEGIN = 1_700_000_000_000 // 3_600_000 * 3_600_000
"""A whole hour, long after 1970."""

TUMBLING = WindowRules(
    size_ms=10, every_ms=10, out_of_order_ms=5, lateness_ms=0, idle_after_ms=None, future_ms=1_000
)
SLIDING = replace(TUMBLING, size_ms=20)
SESSIONS = replace(TUMBLING, every_ms=0)


@dataclass(frozen=True)
class Given:
    """An event: its state is the set of the numbers of its window's events."""

    number: int
    key: str
    time: int
    """After BEGIN."""
    at: int
    """When it is appended, after BEGIN."""


@dataclass
class Lane:
    """A lane that is kept as rows, as a store would, and may be read from them anew."""

    rules: WindowRules
    kept: dict[tuple[str, int], WindowRow] = field(default_factory=dict[tuple[str, int], WindowRow])
    time: LaneTime = field(default_factory=LaneTime)
    told: list[Told] = field(default_factory=list[Told])
    missed: list[tuple[int, Missed]] = field(default_factory=list[tuple[int, Missed]])

    def __post_init__(self) -> None:
        self.crash()

    def crash(self) -> None:
        """Only what was written is left."""
        rows = LaneRows(0, [self.time], list(self.kept.values()))
        self.windows = LaneWindows(self.rules, rows.times[0], rows.windows, merge)

    def add(self, event: Given) -> None:
        def fold(state: bytes | None) -> bytes:
            return merge(state or b"", str(event.number).encode())

        missed = self.windows.add(event.key, BEGIN + event.time, BEGIN + event.at, fold)
        if missed is not None:
            self.missed.append((event.number, missed))

    def commit(self) -> None:
        rows, gone = self.windows.take_changed()
        self.kept.update({(row.key, row.start_ms): row for row in rows})
        for place in gone:
            self.kept.pop(place[:2], None)
        self.time = self.windows.time
        self.told += self.windows.take_told()

    def end(self) -> None:
        """Let an event of another key come that closes all."""
        self.add(Given(-1, "end", 100_000, 100_000))
        self.commit()

    def results(self) -> dict[tuple[str, int, int], set[int]]:
        """What is right in the end: what was told, without what was superseded."""
        superseded = {(one.key, *part) for one in self.told for part in one.replaces}
        right = [one for one in self.told if (one.key, one.start_ms, one.revision) not in superseded]
        found = {
            (one.key, one.start_ms - BEGIN, one.end_ms - BEGIN): numbers(one.state)
            for one in right
            if one.key != "end"
        }
        assert len(found) == len([one for one in right if one.key != "end"]), "a window was told twice"
        assert all(one.events == len(numbers(one.state)) for one in right)
        return found


def merge(first: bytes, second: bytes) -> bytes:
    return b",".join(part for part in (first, second) if part)


def numbers(state: bytes) -> set[int]:
    found = [int(part) for part in state.split(b",")]
    assert len(found) == len(set(found)), "an event was counted twice"
    return set(found)


def offline(rules: WindowRules, events: Iterable[Given]) -> dict[tuple[str, int, int], set[int]]:
    """The same by the plainest code, from all events at once."""
    found = defaultdict[tuple[str, int, int], set[int]](set)
    by_key = defaultdict[str, list[Given]](list)
    for event in events:
        by_key[event.key].append(event)
    for key, mine in by_key.items():
        if rules.every_ms:
            for event in mine:
                for start in range(-1_000, 1_000, rules.every_ms):
                    if start <= event.time < start + rules.size_ms:
                        found[key, start, start + rules.size_ms].add(event.number)
            continue
        session: list[Given] = []
        for event in [*sorted(mine, key=lambda one: one.time), None]:
            if session and (event is None or event.time - session[-1].time >= rules.size_ms):
                place = (key, session[0].time, session[-1].time + rules.size_ms)
                found[place] = {one.number for one in session}
                session = []
            if event is not None:
                session.append(event)
    return dict(found)


@st.composite
def events_in_bound(draw: st.DrawFn) -> list[Given]:
    """Events that come at most `out_of_order_ms` later than one that happened after them."""
    times = draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 4)), max_size=30))
    arrivals = sorted((time + delay, time) for time, delay in times)
    keys = draw(st.lists(st.sampled_from("ab"), min_size=len(times), max_size=len(times)))
    return [
        Given(number, key, time, arrival)
        for number, (key, (arrival, time)) in enumerate(zip(keys, arrivals, strict=True))
    ]


forms = st.sampled_from([TUMBLING, SLIDING, SESSIONS])
chances = st.randoms(use_true_random=False)


@settings(max_examples=400, deadline=None)
@given(rules=forms, events=events_in_bound(), idle_ms=st.sampled_from([None, 3]), chance=chances)
def test_events_within_the_bound_give_what_all_at_once_give_whenever_it_crashes(
    rules: WindowRules, events: list[Given], idle_ms: int | None, chance: Random
) -> None:
    lane = Lane(replace(rules, idle_after_ms=idle_ms))

    play(lane, events, chance)
    lane.end()

    assert lane.missed == []
    assert lane.results() == offline(rules, events)
    assert all(one.revision == 1 for one in lane.told)
    assert lane.kept.keys() <= {("end", place) for _, place in lane.kept}


def play(lane: Lane, events: list[Given], chance: Random) -> None:
    """Add events; commit, crash and look at the clock in between, by chance."""
    done = at = 0
    while done < len(events):
        event = events[at] if at < len(events) else None
        kind = chance.random()
        if event is None or kind < 0.2:
            lane.commit()
            done = at
        elif kind < 0.3:
            lane.crash()
            at = done
        elif kind < 0.4:
            lane.windows.pass_time(BEGIN + event.at)
        else:
            lane.add(event)
            at += 1


@st.composite
def events_in_any_order(draw: st.DrawFn) -> list[Given]:
    times = draw(st.lists(st.integers(0, 80), max_size=25))
    keys = draw(st.lists(st.sampled_from("ab"), min_size=len(times), max_size=len(times)))
    return [
        Given(number, key, time, 1_000 + number)
        for number, (key, time) in enumerate(zip(keys, times, strict=True))
    ]


@settings(max_examples=400, deadline=None)
@given(rules=forms, events=events_in_any_order(), chance=chances)
def test_in_any_order_updates_come_in_the_end_to_what_all_at_once_give(
    rules: WindowRules, events: list[Given], chance: Random
) -> None:
    lane = Lane(replace(rules, lateness_ms=1_000))

    play(lane, events, chance)
    lane.end()

    assert lane.missed == []
    assert lane.results() == offline(rules, events)


@settings(max_examples=400, deadline=None)
@given(
    rules=forms,
    lateness_ms=st.sampled_from([0, 12, 30]),
    idle_ms=st.sampled_from([None, 7]),
    events=events_in_any_order(),
    chance=chances,
)
def test_crashes_change_nothing_and_each_event_is_in_a_result_or_missed(
    rules: WindowRules, lateness_ms: int, idle_ms: int | None, events: list[Given], chance: Random
) -> None:
    rules = replace(rules, lateness_ms=lateness_ms, idle_after_ms=idle_ms)
    straight, crashed = Lane(rules), Lane(rules)

    for event in events:
        straight.add(event)
    straight.end()
    play(crashed, events, chance)
    crashed.end()

    assert crashed.told == straight.told
    assert dict(crashed.missed) == dict(straight.missed)
    counted = set[int]().union(*straight.results().values())
    assert counted | {number for number, _ in straight.missed} == {event.number for event in events}
    if rules.size_ms == rules.every_ms or not rules.every_ms:
        assert not counted & {number for number, _ in straight.missed}
    if not rules.every_ms:
        places = sorted(straight.results())
        assert all(one[0] != two[0] or one[2] <= two[1] for one, two in pairwise(places))


@settings(max_examples=100, deadline=None)
@given(
    rules=forms,
    lateness_ms=st.sampled_from([0, 12]),
    events=events_in_any_order(),
    looks=st.lists(st.integers(900, 1_200), max_size=8),
)
def test_a_look_at_which_nothing_is_due_changes_nothing(
    rules: WindowRules, lateness_ms: int, events: list[Given], looks: list[int]
) -> None:
    lane = Lane(replace(rules, lateness_ms=lateness_ms, idle_after_ms=7))
    for event in events:
        lane.add(event)
    lane.commit()

    for now in looks:
        before = (lane.windows.time, lane.windows.next_ms())
        is_due = lane.windows.pass_time(BEGIN + now)
        rows, gone = lane.windows.take_changed()

        assert is_due == bool(rows or gone)
        if not is_due:
            assert (lane.windows.time, lane.windows.next_ms()) == before


def make(rules: WindowRules, *times: int, at: int = 0) -> Lane:
    """A lane that got events of key `a`, numbered from 0, all appended at once."""
    lane = Lane(rules)
    for number, time in enumerate(times):
        lane.add(Given(number, "a", time, at))
    lane.commit()
    return lane


def test_a_window_closes_when_the_watermark_reaches_its_end() -> None:
    lane = make(TUMBLING, 3, 14)
    before = dict(lane.results())

    lane.add(Given(2, "b", 15, 0))
    lane.commit()

    assert (before, lane.results()) == ({}, {("a", 0, 10): {0}})


def test_a_late_event_goes_aside_with_the_bounds_of_its_window_and_how_far_time_was() -> None:
    lane = make(TUMBLING, 3, 15, 9)

    assert lane.missed == [(2, Missed("late", ((BEGIN, BEGIN + 10),), BEGIN + 10))]
    assert lane.results() == {("a", 0, 10): {0}}
    assert lane.time.late == 1


def test_an_event_is_late_for_those_of_its_sliding_windows_that_are_closed() -> None:
    lane = make(SLIDING, 3, 15, 9)
    lane.end()

    assert [(number, missed.windows) for number, missed in lane.missed] == [(2, ((BEGIN - 10, BEGIN + 10),))]
    assert lane.results() == {("a", -10, 10): {0}, ("a", 0, 20): {0, 1, 2}, ("a", 10, 30): {1}}


def test_a_late_event_changes_its_window_within_the_lateness_and_goes_aside_after_it() -> None:
    lane = make(replace(TUMBLING, lateness_ms=10), 3, 15, 9, 25, 8)

    assert [(one.revision, one.replaces, numbers(one.state)) for one in lane.told[:2]] == [
        (1, (), {0}), (2, ((BEGIN, 1),), {0, 2}),
    ]  # fmt: skip
    assert [number for number, _ in lane.missed] == [4]


def test_an_event_between_two_sessions_makes_them_one() -> None:
    lane = make(replace(SESSIONS, out_of_order_ms=15), 0, 15, 8)
    lane.end()

    assert lane.results() == {("a", 0, 25): {0, 1, 2}}


def test_an_event_a_whole_gap_later_begins_another_session() -> None:
    lane = make(SESSIONS, 0, 10)
    lane.end()

    assert lane.results() == {("a", 0, 10): {0}, ("a", 10, 20): {1}}


def test_a_late_event_that_joins_two_sessions_that_were_told_supersedes_both() -> None:
    lane = make(replace(SESSIONS, lateness_ms=100), 0, 15, 40, 8)

    assert [(one.start_ms - BEGIN, one.revision, one.replaces) for one in lane.told] == [
        (0, 1, ()), (15, 1, ()), (0, 2, ((BEGIN, 1), (BEGIN + 15, 1))),
    ]  # fmt: skip
    assert lane.results() == {("a", 0, 25): {0, 1, 3}}


def test_an_event_that_falls_into_a_session_that_was_told_is_late_and_sessions_do_not_overlap() -> None:
    lane = make(SESSIONS, 0, 15, 9)
    lane.end()

    assert [missed.windows for _, missed in lane.missed] == [((BEGIN, BEGIN + 10),)]
    assert lane.results() == {("a", 0, 10): {0}, ("a", 15, 25): {1}}


def test_a_late_event_does_not_let_an_open_session_begin_earlier() -> None:
    lane = make(SESSIONS, 0, 11, 25, 2)
    lane.end()

    assert [missed.windows for _, missed in lane.missed] == [((BEGIN + 2, BEGIN + 12),)]
    assert lane.results() == {("a", 0, 10): {0}, ("a", 11, 21): {1}, ("a", 25, 35): {2}}


def test_where_no_later_event_comes_time_goes_on_with_the_clock() -> None:
    lane = make(replace(TUMBLING, idle_after_ms=20), 3, at=100)

    assert lane.windows.next_ms() == BEGIN + 120
    lane.windows.pass_time(BEGIN + 119)
    lane.commit()
    before = list(lane.told)
    lane.windows.pass_time(BEGIN + 120)
    lane.commit()

    assert (before, len(lane.told)) == ([], 1)
    assert lane.windows.next_ms() is None


def test_the_clock_takes_time_as_far_as_itself_went_and_no_further() -> None:
    lane = make(replace(TUMBLING, idle_after_ms=1), 3, at=100)

    assert lane.windows.next_ms() == BEGIN + 112
    lane.windows.pass_time(BEGIN + 111)
    lane.commit()

    assert lane.told == []


def test_the_watermark_never_goes_back() -> None:
    lane = make(replace(TUMBLING, idle_after_ms=20), 3, at=100)
    lane.windows.pass_time(BEGIN + 120)

    lane.add(Given(1, "a", 14, 120))
    lane.add(Given(2, "a", 5, 120))
    lane.commit()

    assert lane.time.watermark_ms == BEGIN + 18
    assert [number for number, _ in lane.missed] == [2]


def test_events_that_are_not_later_do_not_hold_time_up() -> None:
    lane = make(replace(TUMBLING, idle_after_ms=20), 3, at=100)

    for at in (110, 115, 120):
        lane.add(Given(at, "b", 2, at))
    lane.commit()

    assert [one.key for one in lane.told] == ["a", "b"]
    assert [number for number, _ in lane.missed] == [120]


def test_silence_between_two_appends_counts_though_nobody_looked() -> None:
    lane = make(replace(TUMBLING, idle_after_ms=20), 3, at=100)

    lane.add(Given(1, "a", 4, 200))
    lane.commit()

    assert lane.results() == {("a", 0, 10): {0}}
    assert [missed.reason for _, missed in lane.missed] == ["late"]


@pytest.mark.parametrize(
    ("key", "time_ms", "reason"),
    [
        ("a", None, "missing"),
        ("a", 0, "unset"),
        ("a", -18_000_000, "unset"),
        ("a", BEGIN // 1_000, "unset"),
        ("a", BEGIN + 1_001, "future"),
        ("a", 10_413_792_000_000, "future"),
        ("", BEGIN, "keyless"),
    ],
)
def test_a_time_that_cannot_be_goes_aside_and_moves_nothing(
    key: str, time_ms: int | None, reason: str
) -> None:
    lane = make(TUMBLING, 3)
    before = lane.time

    missed = lane.windows.add(key, time_ms, BEGIN, lambda state: pytest.fail("it is in no window"))

    assert missed == Missed(reason)
    assert lane.windows.time == before._replace(misdated=1)


def test_what_a_function_raises_changes_no_window() -> None:
    def fail(state: bytes | None) -> bytes:
        raise ValueError(state)

    for rules in (TUMBLING, SLIDING, SESSIONS):
        lane = make(rules, 3)
        time, kept = lane.time, dict(lane.kept)

        for key in ("a", "b"):
            with pytest.raises(ValueError, match=r"None|0"):
                lane.windows.add(key, BEGIN + 4, BEGIN, fail)

        lane.commit()
        assert (lane.time, lane.kept) == (time, kept)


def test_a_session_that_takes_no_more_events_is_kept_for_a_gap_without_its_state() -> None:
    lane = make(SESSIONS, 0, 16)

    assert [(start - BEGIN, row.state) for (_, start), row in lane.kept.items()] == [(0, None), (16, b"1")]


def test_a_window_that_takes_no_more_events_is_not_kept() -> None:
    kept = {
        name: {start - BEGIN for _, start in make(rules, 0, 100).kept}
        for name, rules in {
            "tumbling": TUMBLING,
            "sessions": SESSIONS,
            "updated": replace(TUMBLING, lateness_ms=200),
        }.items()
    }

    assert kept == {"tumbling": {100}, "sessions": {100}, "updated": {0, 100}}
