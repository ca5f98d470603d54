"""Windows over event time in an engine: exactly one result for each, whatever comes late, or crashes."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest

from perdure import Aggregation, DefinitionError, Event, EventTime, Late, Stream, Window
from perdure.core.standing import KeepRule
from perdure.stores.streams import LANES
from perdure.testing import Harness

names = (f"trips-{number}" for number in count(1))
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Trip:
    city: str
    minutes: int
    began: datetime | None = None


@dataclass(frozen=True)
class Sums:
    trips: int = 0
    minutes: int = 0


def add(sums: Sums, event: Event[Trip]) -> Sums:
    """One trip more."""
    return Sums(sums.trips + 1, sums.minutes + event.data.minutes)


Trips = Stream[Trip]
Hourly = Aggregation[Stream[Window[Sums]], Stream[Late]]


@pytest.fixture
def trips() -> Trips:
    return Stream(next(names), Trip, key=lambda trip: trip.city)


def now(harness: Harness) -> datetime:
    return datetime.fromtimestamp(harness.clock.now_ms() / 1000, UTC)


def told(harness: Harness, hourly: Hourly) -> list[Window[Sums]]:
    page = harness.store.store.streams.events(hourly.results.name, after=0, limit=100_000)
    return [hourly.results.decode(event) for event in page.events]


def aside(harness: Harness, hourly: Hourly) -> list[Late]:
    page = harness.store.store.streams.events(hourly.late.name, after=0, limit=100_000)
    return [hourly.late.decode(event) for event in page.events]


async def test_each_window_is_told_once_with_all_of_its_events(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)
    begin = now(harness)

    await harness.open_once()
    for minutes in range(12):
        await harness.append(trips, Trip("Rome", minutes))
        await harness.append(trips, Trip("Oslo", 1))
        await harness.advance(minutes=10)
    await harness.advance(hours=2)

    found = told(harness, hourly)
    assert begin == now(harness) - timedelta(hours=4)
    assert [(one.start, one.end, one.value, one.events) for one in found if one.key == "Rome"] == [
        (begin, begin + HOUR, Sums(6, 15), 6),
        (begin + HOUR, begin + 2 * HOUR, Sums(6, 51), 6),
    ]
    assert [one.value for one in found if one.key == "Oslo"] == [Sums(6, 6), Sums(6, 6)]
    assert {one.revision for one in found} == {1}


async def test_results_are_events_that_handlers_get_and_that_fall_into_greater_windows(
    harness: Harness, trips: Trips
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)
    seen = list[Event[Window[Sums]]]()

    @hourly.results.window(tumbling=timedelta(hours=2), initial=0)
    def busiest(most: int, event: Event[Window[Sums]]) -> int:
        return max(most, event.data.value.trips)

    @hourly.results.on()
    async def note(event: Event[Window[Sums]]) -> None:
        seen.append(event)

    begin = now(harness)
    for trips_in_hour in (1, 3, 2, 1):
        await harness.append_batch(trips, [Trip("Rome", 1)] * trips_in_hour)
        await harness.advance(hours=1)
    await harness.advance(hours=6)

    assert [event.data.value.trips for event in seen] == [1, 3, 2, 1]
    assert {(event.key, event.source) for event in seen} == {("Rome", f"{trips.name}/add")}
    assert seen[0].time == begin + HOUR - timedelta(milliseconds=1)
    assert [one.value for one in told(harness, busiest)] == [3, 2]
    assert note.name == "note"


async def test_a_result_is_handled_without_waiting_for_time(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)
    seen = list[int]()

    @hourly.results.on()
    async def note(event: Event[Window[Sums]]) -> None:
        seen.append(event.data.value.trips)

    await harness.restart()
    for hours in (5, 3, 1):
        await harness.append(trips, Trip("Rome", 1), time=now(harness) - hours * HOUR)
    await harness.settle()

    assert seen == [1, 1]
    assert note.name == "note"


async def test_after_a_crash_windows_go_on_and_what_was_told_is_not_told_again(
    harness: Harness, trips: Trips
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)

    for _ in range(2):
        await harness.append(trips, Trip("Rome", 1))
        await harness.crash()
    await harness.advance(hours=1, minutes=5)
    await harness.crash()
    await harness.append(trips, Trip("Rome", 1))
    await harness.crash()
    await harness.advance(hours=2)

    assert [one.value.trips for one in told(harness, hourly)] == [2, 1]


async def test_a_late_event_goes_to_a_stream_of_its_own_by_how_much_it_was_late(
    harness: Harness, trips: Trips
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums(), out_of_order=600)(add)
    begin = now(harness)

    await harness.append(trips, Trip("Rome", 1), time=begin)
    await harness.advance(hours=2)
    await harness.append(trips, Trip("Rome", 2))
    late = await harness.append(trips, Trip("Rome", 3), time=begin + HOUR / 2, id="x", source="phone")
    await harness.settle()

    (one,) = aside(harness, hourly)
    assert (one.reason, one.key, one.id, one.source) == ("late", "Rome", "x", "phone")
    assert (one.position, one.type, one.time) == (late.position, "Trip", begin + HOUR / 2)
    assert one.data == {"city": "Rome", "minutes": 3, "began": None}
    assert one.late_by == 2 * HOUR - timedelta(minutes=10) - HOUR / 2
    assert one.windows == ((begin, begin + HOUR),)
    assert [window.value for window in told(harness, hourly)] == [Sums(1, 1)]


async def test_late_events_change_a_window_that_was_told_and_say_what_they_supersede(
    harness: Harness, trips: Trips
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums(), late="update", lateness=HOUR)(add)
    begin = now(harness)

    await harness.append(trips, Trip("Rome", 1), time=begin)
    await harness.advance(hours=1, minutes=30)
    await harness.append(trips, Trip("Rome", 2), time=begin)
    await harness.append(trips, Trip("Oslo", 4), time=begin)
    await harness.advance(hours=1, minutes=30)
    await harness.append(trips, Trip("Rome", 8), time=begin)
    await harness.settle()

    page = harness.store.store.streams.events(hourly.results.name, after=0, limit=10)
    ids = [event.id for event in page.events]
    assert [(one.key, one.value.minutes, one.revision, one.supersedes) for one in told(harness, hourly)] == [
        ("Rome", 1, 1, ()), ("Rome", 3, 2, (ids[0],)), ("Oslo", 4, 1, ()),
    ]  # fmt: skip
    assert [late.data["minutes"] for late in aside(harness, hourly)] == [8]


async def test_late_events_that_are_dropped_are_counted(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums(), late="drop")(add)

    await harness.append(trips, Trip("Rome", 1))
    await harness.append(trips, Trip("Rome", 1), time=now(harness) - 2 * HOUR)
    await harness.settle()

    event_time = await harness.subscription(hourly).event_time()
    assert aside(harness, hourly) == []
    assert (event_time.late, event_time.misdated, event_time.open_windows) == (1, 0, 1)


async def test_a_session_lasts_until_its_key_is_silent(harness: Harness, trips: Trips) -> None:
    def both(one: Sums, other: Sums) -> Sums:
        return Sums(one.trips + other.trips, one.minutes + other.minutes)

    hourly = trips.window(Trip, session=600, merge=both, initial=Sums(), out_of_order=HOUR)(add)
    begin = now(harness) - HOUR

    for minute in (0, 5, 30, 18, 12, 50):
        await harness.append(trips, Trip("Rome", minute), time=begin + timedelta(minutes=minute))
        await harness.advance(minutes=1)
    await harness.advance(hours=4)

    found = [((one.start - begin).seconds // 60, (one.end - begin).seconds // 60, one.value.minutes)
             for one in told(harness, hourly)]  # fmt: skip
    assert found == [(0, 28, 35), (30, 40, 30), (50, 60, 50)]


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), "unset"),
        (datetime(1970, 1, 21, tzinfo=UTC), "unset"),
        (datetime(2300, 1, 1, tzinfo=UTC), "future"),
        (None, "missing"),
    ],
)
async def test_a_time_that_cannot_be_goes_aside_and_closes_no_window(
    harness: Harness, trips: Trips, time: datetime | None, reason: str
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums(), time=lambda trip: trip.began)(add)

    await harness.append(trips, Trip("Rome", 1, now(harness)))
    await harness.append(trips, Trip("Rome", 2, time))
    await harness.append(trips, Trip("Rome", 4, now(harness)))
    await harness.advance(hours=2)

    assert [(late.reason, late.time, late.late_by) for late in aside(harness, hourly)] == [
        (reason, time, None)
    ]
    assert [one.value for one in told(harness, hourly)] == [Sums(2, 5)]
    assert (await harness.subscription(hourly).event_time()).misdated == 1


async def test_an_event_without_a_key_goes_aside(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(tumbling=HOUR, initial=Sums())(add)

    await harness.append(trips, Trip("", 1))
    await harness.settle()

    assert [late.reason for late in aside(harness, hourly)] == ["keyless"]


async def test_an_event_at_which_the_function_raises_is_parked_and_its_key_goes_on(
    harness: Harness, trips: Trips
) -> None:
    @trips.window(tumbling=HOUR, initial=[0])
    def shares(found: list[int], event: Event[Trip]) -> list[int]:
        found.append(60 // event.data.minutes)
        return found

    await harness.append_batch(trips, [Trip("Rome", 30), Trip("Rome", 0), Trip("Rome", 20)])
    await harness.advance(hours=2)

    assert [one.value for one in told(harness, shares)] == [[0, 2, 3]]
    (parked,) = await harness.subscription(shares).parked()
    assert (parked.reason, parked.attempts) == ("failed", 1)
    assert "ZeroDivisionError" in parked.error


async def test_an_idle_lane_closes_its_own_windows_and_no_others(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(tumbling=HOUR, initial=Sums(), idle_after=300)(add)
    begin = now(harness)

    await harness.append(trips, Trip("Rome", 1))
    for minutes in (10, 20, 30):
        await harness.advance(minutes=30)
        await harness.append(trips, Trip("Oslo", 1), time=begin + timedelta(minutes=minutes))
    await harness.advance(minutes=1)

    assert [one.key for one in told(harness, hourly)] == ["Rome"]


async def test_without_idle_after_silence_closes_nothing(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(tumbling=HOUR, initial=Sums(), idle_after=None)(add)

    await harness.append(trips, Trip("Rome", 1))
    await harness.advance(days=30)

    assert told(harness, hourly) == []


async def test_a_worker_that_was_away_comes_to_the_same_windows(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(tumbling=HOUR, initial=Sums(), out_of_order=1800)(add)
    await harness.append(trips, Trip("Rome", 1))
    await harness.stop()
    harness.clock.jump(86_400)
    await harness.open()

    await harness.append(trips, Trip("Rome", 1), time=now(harness) - HOUR / 4)
    await harness.append(trips, Trip("Rome", 1))
    await harness.advance(hours=3)

    assert [one.value.trips for one in told(harness, hourly)] == [1, 1, 1]
    assert aside(harness, hourly) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_windows_are_those_of_a_plain_computation_through_crashes_at_any_commit(
    harness: Harness, trips: Trips, seed: int
) -> None:
    chance = Random(seed)
    hourly = trips.window(tumbling=HOUR, initial=Sums(), out_of_order=1800, idle_after=HOUR)(add)
    begin, expected = now(harness), defaultdict[tuple[str, datetime], Counter[str]](Counter)
    feed = [
        (at + chance.uniform(0, 1790), at, chance.choice("abcdefgh"))
        for at in (chance.uniform(0, 6 * 3600) for _ in range(150))
    ]
    for number, (_, at, city) in enumerate(sorted(feed)):
        start = begin + int(at // 3600) * HOUR
        expected[city, start].update({"trips": 1, "minutes": number})

    await harness.open_once()
    at_s = 0.0
    for number, (arrives, at, city) in enumerate(sorted(feed)):
        await harness.advance(arrives - at_s)
        at_s = arrives
        await harness.append(trips, Trip(city, number), time=begin + timedelta(seconds=at))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.05:
            await harness.crash()
    await harness.advance(hours=3)

    found = told(harness, hourly)
    assert {(one.key, one.start): one.value for one in found} == {
        place: Sums(sums["trips"], sums["minutes"]) for place, sums in expected.items()
    }
    assert len(found) == len(expected)
    assert aside(harness, hourly) == []


async def test_where_time_is_can_be_read(harness: Harness, trips: Trips) -> None:
    hourly = trips.window(tumbling=HOUR, initial=Sums(), out_of_order=60)(add)

    await harness.restart()
    nothing: EventTime = await harness.subscription(hourly).event_time()
    await harness.append(trips, Trip("Rome", 1))
    await harness.settle()
    something = await harness.subscription(hourly).event_time()

    assert (nothing.watermark, nothing.open_windows) == (None, 0)
    assert something.watermark == now(harness) - timedelta(seconds=60)
    assert something.latest == now(harness)
    assert something.open_windows == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda trips: trips.window(initial=0), "one form"),
        (lambda trips: trips.window(initial=0, tumbling=1, session=1), "one form"),
        (lambda trips: trips.window(initial=0, sliding=60), "every="),
        (lambda trips: trips.window(initial=0, sliding=60, every=61), "leave gaps"),
        (lambda trips: trips.window(initial=0, tumbling=60, every=30), "every="),
        (lambda trips: trips.window(initial=0, session=60), "merge="),
        (lambda trips: trips.window(initial=0, tumbling=60, merge=max), "merge="),
        (lambda trips: trips.window(initial=0, tumbling=60, late="update"), "lateness"),
        (lambda trips: trips.window(initial=0, tumbling=60, lateness=5), "lateness"),
        (lambda trips: trips.window(initial=0, tumbling=60, late="loudly"), "loudly"),
        (lambda trips: trips.window(initial=0, tumbling=-1), "above zero"),
        (lambda trips: trips.window(initial=0, tumbling=60, begin="last"), "last"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    trips: Trips, make: Callable[[Trips], Callable[[Any], object]], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        make(trips)(add)


def test_a_stream_without_a_key_has_no_windows() -> None:
    with pytest.raises(DefinitionError, match="no key"):
        Stream(next(names), Trip).window(tumbling=60, initial=Sums())(add)


def test_the_function_can_be_called_as_it_is(trips: Trips) -> None:
    hourly = trips.window(tumbling=60, initial=Sums())(add)

    assert hourly.results.name == f"{trips.name}.add"
    assert hourly.late.name == f"{trips.name}.add.late"
    assert hourly.__doc__ == add.__doc__


@pytest.mark.parametrize("nonsense", ["three", None])
async def test_an_event_for_which_the_function_returns_no_state_is_parked_as_failed(
    harness: Harness, trips: Trips, nonsense: Any
) -> None:
    @trips.window(tumbling=HOUR, initial=0)
    def total(minutes: int, event: Event[Trip]) -> int:
        return nonsense

    await harness.open_once()
    await harness.append(trips, Trip("Rome", 1))
    await harness.settle()

    (parked,) = await harness.engine.subscription(total).parked()
    assert parked.reason == "failed"
    assert "what it returned" in parked.error
    assert "Return the new state" in parked.error


async def test_windows_that_are_sent_back_are_made_anew_of_the_same_events(
    harness: Harness, trips: Trips
) -> None:
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)

    await harness.open_once()
    for minutes in range(6):
        await harness.append(trips, Trip("Rome", minutes))
    await harness.settle()
    done = await harness.subscription(hourly.name, trips.name).seek("earliest")
    await harness.append(trips, Trip("Rome", 6))
    await harness.advance(hours=3)

    assert (done.again, [one.value for one in told(harness, hourly)]) == (6, [Sums(7, 21)])


async def test_windows_below_what_is_kept_stand_loudly(harness: Harness, trips: Trips) -> None:
    await harness.open_once()
    streams = harness.store.store.streams
    streams.subscribe(trips.name, "add", lanes=LANES, from_start=True)
    await harness.append_batch(trips, [Trip("Rome", 1)] * 2)
    streams.let_go(KeepRule(trips.name, 0, None, waits=False), now_ms=1 << 50, limit=1)
    hourly = trips.window(Trip, tumbling=HOUR, initial=Sums())(add)
    await harness.advance(hours=3)
    before, lag = told(harness, hourly), await harness.subscription(hourly.name, trips.name).lag()
    await harness.subscription(hourly.name, trips.name).seek("earliest")
    await harness.advance(hours=3)

    assert (before, "let go" in lag.problem) == ([], True)
    assert [one.value for one in told(harness, hourly)] == [Sums(1, 1)]
