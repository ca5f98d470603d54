"""The flights example's pure functions: from rows to reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from examples.flights import domain, report
from examples.flights.domain import (
    AirlineTally,
    Cleaning,
    DayReport,
    Flight,
    JoinedFlight,
    Plane,
    Storm,
    Tables,
    Tally,
    Weather,
)

ROW = {
    "year": "2013", "month": "2", "day": "8", "dep_time": "2400", "sched_dep_time": "2250",
    "dep_delay": "70.0", "arr_delay": "NA", "carrier": "UA", "flight": "17", "tailnum": "NA",
    "origin": "EWR", "dest": "IAH", "distance": "1400", "hour": "22", "time_hour": "2013-02-09T03:00:00Z",
}  # fmt: skip
FLIGHT = Flight(
    day="2013-02-08",
    time_hour="2013-02-08T15:00:00Z",
    hour=10,
    scheduled=1000,
    carrier="UA",
    number=1,
    tail="N1",
    origin="JFK",
    destination="BOS",
    distance=187,
    departed=1000,
    departure_delay_min=0,
    arrival_delay_min=0,
)
SNOW = Weather(temperature=30.0, wind=10.0, gust=None, rain=0.2, visibility=1.0)


def joined(
    *,
    delay: int | None = 0,
    hour: int = 10,
    origin: str = "JFK",
    carrier: str = "UA",
    destination: str = "BOS",
    plane: Plane | None = None,
    weather: Weather | None = None,
) -> JoinedFlight:
    flight = replace(
        FLIGHT,
        hour=hour,
        origin=origin,
        carrier=carrier,
        destination=destination,
        departed=None if delay is None else 1000,
        departure_delay_min=delay,
        arrival_delay_min=delay,
    )
    return JoinedFlight(flight, f"{carrier} Inc.", f"{destination} Intl", plane, weather)


def test_a_row_is_read_with_its_gaps_as_none() -> None:
    flights, unreadable = domain.parse_flights([ROW])

    assert unreadable == 0
    assert flights[0].day == "2013-02-08"
    assert (flights[0].departure_delay_min, flights[0].arrival_delay_min) == (70, None)
    assert flights[0].tail is None


@pytest.mark.parametrize("broken", [{**ROW, "dep_delay": "soon"}, {**ROW, "flight": ""}, {"year": "2013"}])
def test_a_row_that_cannot_be_read_is_counted_and_left_out(broken: dict[str, str]) -> None:
    flights, unreadable = domain.parse_flights([broken, ROW])

    assert (len(flights), unreadable) == (1, 1)


@pytest.mark.parametrize(
    ("departed", "arrival_delay_min", "fate"),
    [(None, None, "cancelled"), (1000, None, "diverted"), (1000, 5, "flown")],
)
def test_the_fate_of_a_flight_is_read_from_its_gaps(
    departed: int | None, arrival_delay_min: int | None, fate: str
) -> None:
    flight = replace(FLIGHT, departed=departed, arrival_delay_min=arrival_delay_min)

    assert flight.fate == fate


@pytest.mark.parametrize(("delay", "late"), [(14, False), (15, True), (None, False), (-5, False)])
def test_a_flight_is_late_from_fifteen_minutes_on(delay: int | None, late: bool) -> None:
    assert replace(FLIGHT, departure_delay_min=delay).is_late is late


def test_cleaning_leaves_out_what_came_twice_or_cannot_be_true_and_says_so() -> None:
    circle = replace(FLIGHT, number=2, destination="JFK")
    early = replace(FLIGHT, number=3, departure_delay_min=-121)
    torn = replace(FLIGHT, number=4, departed=None)

    kept, cleaning = domain.clean_flights([FLIGHT, FLIGHT, circle, early, torn], unreadable=7)

    assert kept == [FLIGHT]
    assert cleaning == Cleaning(kept=1, unreadable=7, duplicate=1, impossible=3)


def test_cleaning_puts_flights_in_the_order_of_the_timetable() -> None:
    later = replace(FLIGHT, scheduled=1100)

    kept, _ = domain.clean_flights([later, FLIGHT], unreadable=0)

    assert kept == [FLIGHT, later]


def test_a_flight_is_joined_with_the_weather_of_its_airport_and_hour_only() -> None:
    tables = Tables(
        airlines={"UA": "United"},
        airports={"BOS": "Logan"},
        planes={"N1": Plane("N1", "BOEING", "737", 2001, 150)},
        weather={("LGA", FLIGHT.time_hour): SNOW, ("JFK", "2013-02-08T16:00:00Z"): SNOW},
    )

    (item,) = domain.join_flights([FLIGHT], tables)

    assert (item.airline, item.destination, item.plane) == ("United", "Logan", tables.planes["N1"])
    assert item.weather is None


def test_what_the_tables_do_not_know_stays_as_its_code() -> None:
    (item,) = domain.join_flights([FLIGHT], Tables({}, {}, {}, {}))

    assert (item.airline, item.destination, item.plane, item.weather) == ("UA", "BOS", None, None)


def test_stormy_hours_in_a_row_are_one_storm_and_a_calm_hour_parts_them() -> None:
    stormy = {10, 11, 13}
    flights = [
        joined(hour=hour, delay=40 if hour in stormy else 0) for hour in (10, 11, 12, 13) for _ in range(8)
    ]

    storms = domain.find_storms(flights)

    assert [(storm.first_hour, storm.last_hour, storm.hit) for storm in storms] == [(10, 11, 16), (13, 13, 8)]


def test_storms_at_two_airports_are_two_even_in_hours_that_follow_each_other() -> None:
    flights = [joined(hour=10, origin="EWR", delay=None)] * 8 + [
        joined(hour=11, origin="JFK", delay=None)
    ] * 9

    storms = domain.find_storms(flights)

    assert [(storm.origin, storm.cancelled) for storm in storms] == [("JFK", 9), ("EWR", 8)]


@pytest.mark.parametrize(("hit", "calm", "storms"), [(6, 4, 1), (5, 5, 0), (7, 0, 0)])
def test_a_storm_needs_most_of_an_hours_flights_and_enough_of_them(hit: int, calm: int, storms: int) -> None:
    flights = [joined(delay=30)] * hit + [joined(delay=29)] * calm

    assert len(domain.find_storms(flights)) == storms


def test_a_storms_delay_is_the_mean_of_the_flights_that_left() -> None:
    flights = [joined(delay=30)] * 4 + [joined(delay=60)] * 4 + [joined(delay=None, weather=SNOW)] * 2

    (storm,) = domain.find_storms(flights)

    assert storm == Storm("2013-02-08", "JFK", 10, 10, 10, 10, 2, 45.0, "snow or ice")


@pytest.mark.parametrize(
    ("hours", "cause"),
    [
        ([], "weather not known"),
        ([SNOW], "snow or ice"),
        ([replace(SNOW, temperature=60.0)], "rain"),
        ([replace(SNOW, rain=0.0, gust=35.0)], "wind"),
        ([replace(SNOW, rain=0.0)], "fog"),
        ([replace(SNOW, rain=0.0, visibility=10.0)], "fair here: weather elsewhere, or no weather at all"),
    ],
)
def test_the_cause_of_a_storm_is_named_by_the_weather(hours: list[Weather], cause: str) -> None:
    assert domain.name_cause(hours) == cause


def test_routes_are_ranked_by_mean_delay_and_rare_ones_left_out() -> None:
    flights = [
        *(joined(destination="BOS", delay=delay) for delay in (10, 20, 60)),
        *(joined(destination="MIA", delay=delay) for delay in (40, 40, 40)),
        *(joined(destination="ORD", delay=500) for _ in range(2)),
        *(joined(destination="ATL", delay=None) for _ in range(9)),
    ]

    routes = domain.rank_routes(flights)

    assert [(route.destination, route.mean_delay_min) for route in routes] == [("MIA", 40.0), ("BOS", 30.0)]
    assert routes[1].worst_delay_min == 60


def test_an_airlines_tally_counts_early_flights_as_no_time_lost() -> None:
    plane = Plane("N1", "BOEING", "737", 2001, 150)
    flights = [
        joined(delay=-10, plane=plane),
        joined(delay=20, plane=plane, weather=SNOW),
        joined(delay=40),
        joined(delay=None),
        joined(carrier="B6"),
    ]

    airlines = domain.rate_airlines(flights)

    assert [airline.carrier for airline in airlines] == ["B6", "UA"]
    assert airlines[1].tally == Tally(
        flights=4, cancelled=1, late=2, minutes_lost=60, seat_hours_lost=50.0, with_plane=2, with_weather=1
    )
    assert airlines[1].tally.late_share == pytest.approx(2 / 3)


def test_many_days_become_one_report_with_the_sums_of_all() -> None:
    def day(date: str, late: int) -> DayReport:
        tally = Tally(flights=10, late=late, seat_hours_lost=0.1)
        storm = Storm(date, "JFK", 1, 2, 9, late, 0, 50.0, "rain")
        return DayReport(
            date, tally, Cleaning(10, 0, 0, 0), [storm], [], [AirlineTally("UA", "United", tally)]
        )

    year = domain.merge_days([day("2013-02-01", 3), day("2013-01-31", 1), day("2013-01-30", 2)], top=2)

    assert (year.first_day, year.last_day, year.days) == ("2013-01-30", "2013-02-01", 3)
    assert year.tally == year.airlines[0].tally == Tally(flights=30, late=6, seat_hours_lost=0.3)
    assert {month: tally.flights for month, tally in year.months.items()} == {"2013-01": 20, "2013-02": 10}
    assert year.worst_days == ["2013-02-01", "2013-01-30"]
    assert [storm.hit for storm in year.storms] == [3, 2]


def test_a_days_report_reads_as_tables() -> None:
    flights = [joined(delay=90, weather=SNOW)] * 9
    airlines = domain.rate_airlines(flights)
    day = DayReport(
        "2013-02-08",
        airlines[0].tally,
        Cleaning(9, 1, 0, 0),
        domain.find_storms(flights),
        domain.rank_routes(flights),
        airlines,
    )

    text = report.render_day(day)

    assert "9 flights: 0 cancelled, 0 diverted, 9 late by 15 minutes or more (100.0%" in text
    assert "Left out while cleaning: 1 rows." in text
    assert "| 2013-02-08 | JFK | 10-11 h | 9 of 9 | 0 | 90 min | snow or ice |" in text
    assert "| JFK → BOS | BOS Intl | 9 | 90 min | 90 min |" in text
    assert "| UA Inc. | 9 | 0 | 100.0% | 0 |" in text
