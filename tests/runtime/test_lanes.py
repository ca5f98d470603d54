"""A lane keeps what is done, in whatever order it ends, and however often it changes hands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure.core.events import LaneMark, LaneRow, LaneWatch, count_crash
from perdure.runtime.lanes import Lane


def mark_of(lane: Lane) -> LaneMark:
    """Without its past."""
    return lane.mark(now_ms=0, end=0)._replace(history=())


def lane(*, cursor: int = 0, done: tuple[int, ...] = (), watch: LaneWatch | None = None) -> Lane:
    return Lane(LaneRow(1, 2, cursor, done, (), watch))


def read(of: Lane, *positions: int, to: int) -> list[int]:
    """Read along, as a worker does; gives what is to be delivered."""
    delivered = [position for position in positions if position > of.read_to and of.enter(position)]
    of.pass_to(to)
    return delivered


def test_what_is_done_above_one_that_is_not_is_kept_as_stretches() -> None:
    one = lane()
    read(one, *range(1, 11), to=12)

    for position in (2, 3, 5, 6, 7, 10):
        one.finish(position)

    assert mark_of(one) == LaneMark(0, (2, 3, 5, 7, 10, 10), 1, 2)


def test_one_that_stands_still_costs_the_same_however_many_go_by() -> None:
    one = lane()
    read(one, *range(1, 100_001), to=100_001)

    for position in range(2, 100_001):
        one.finish(position)

    assert mark_of(one) == LaneMark(0, (2, 100_000), 1, 2)


def test_the_cursor_goes_to_the_end_of_what_was_read_when_all_is_done() -> None:
    one = lane()
    read(one, 3, 5, to=9)

    one.finish(5)
    one.finish(3)

    assert mark_of(one) == LaneMark(9, (), 1, 2)


def test_a_mark_before_all_was_read_again_forgets_nothing() -> None:
    one = lane(cursor=1, done=(3, 4, 7, 9))

    delivered = read(one, 2, 3, to=3)
    one.finish(2)
    half_way = mark_of(one)
    rest = read(one, 4, 5, 6, 7, 8, 9, 10, to=10)

    assert (delivered, half_way) == ([2], LaneMark(3, (4, 4, 7, 9), 1, 2))
    assert rest == [5, 6, 10]


@given(st.data())
def test_whoever_takes_it_up_delivers_what_is_not_done_and_nothing_else(data: st.DataObject) -> None:
    positions = sorted(data.draw(st.sets(st.integers(1, 60), min_size=1)))
    done: set[int] = set()
    row = LaneRow(1, 2, 0, (), ())
    for _ in range(data.draw(st.integers(1, 4))):
        one = Lane(row)
        to = data.draw(st.integers(row.cursor, 61))
        delivered = [position for position in positions if position <= to and one.enter(position)]
        one.pass_to(to)
        assert delivered == [position for position in positions if position <= to and position not in done]
        for position in data.draw(st.permutations(delivered)):
            if data.draw(st.booleans()):
                one.finish(position)
                done.add(position)
                if data.draw(st.booleans()):
                    mark_of(one)
        mark = mark_of(one)
        row = LaneRow(1, 2, mark.cursor, mark.done, ())


def test_the_first_death_is_nobodys_and_counts_for_those_that_die_next() -> None:
    first = count_crash(None, 1, 2, until=50)
    second = count_crash(first._replace(begun=(7, 9)), 1, 2, until=60)
    third = count_crash(second._replace(begun=(9,)), 1, 2, until=60)

    assert first == LaneWatch(1, 2, 1, 50)
    assert second == LaneWatch(1, 2, 2, 60, (), ((7, 2), (9, 2)))
    assert third == LaneWatch(1, 2, 3, 60, (), ((7, 2), (9, 3)))


def test_a_lane_is_watched_until_all_that_may_have_been_in_hand_is_done() -> None:
    one = lane(watch=LaneWatch(1, 2, 2, 5, (), ((4, 2),)))
    read(one, 4, 6, to=6)
    one.begin(4)
    in_hand = one.watch()
    one.finish(4)
    one.let_go(4)
    one.see_whether_over()

    assert in_hand == LaneWatch(1, 2, 2, 5, (4,), ((4, 2),))
    assert (one.is_watched, one.deaths(4), one.watch().crashes) == (False, 0, 0)


def test_a_lane_is_watched_while_an_event_before_the_death_is_not_done() -> None:
    one = lane(watch=LaneWatch(1, 2, 1, 5))
    read(one, 4, to=6)

    one.see_whether_over()

    assert one.is_watched
