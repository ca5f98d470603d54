"""What is known about flights: values, and pure functions from values to values.

Nothing here reads a file, a clock or a network, or knows of Perdure. All times
of day are New York's; `time_hour` is UTC, as the source gives it, and is what
weather is joined by: in November a local hour comes twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LATE_MIN = 15
"""A flight that leaves this many minutes after its time, or more, is late: the authorities' own mark."""
STORM_DELAY_MIN = 30
"""In a storm, a flight is hit when it is cancelled or leaves this late."""
STORM_SHARE = 0.6
"""An hour at an airport is stormy when this share of its flights is hit …"""
STORM_FLIGHTS = 8
"""… and it has at least this many flights."""
ROUTE_FLIGHTS = 3
"""A route is ranked when at least this many of its flights arrived."""
EARLIEST_MIN = -120
"""No flight leaves two hours before its time: such a row is a mistake."""

Fate = Literal["flown", "diverted", "cancelled"]


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight as it was planned, and what became of it."""

    day: str
    time_hour: str
    hour: int
    scheduled: int
    """Hours and minutes as one number: 1745 is a quarter to six."""
    carrier: str
    number: int
    tail: str | None
    origin: str
    destination: str
    distance: int
    departed: int | None
    departure_delay_min: int | None
    arrival_delay_min: int | None

    @property
    def fate(self) -> Fate:
        if self.departed is None:
            return "cancelled"
        return "flown" if self.arrival_delay_min is not None else "diverted"

    @property
    def is_late(self) -> bool:
        return self.departure_delay_min is not None and self.departure_delay_min >= LATE_MIN

    @property
    def is_hit(self) -> bool:
        """Whether it counts towards a storm."""
        delay_min = self.departure_delay_min
        return delay_min is None or delay_min >= STORM_DELAY_MIN


@dataclass(frozen=True, slots=True)
class Plane:
    tail: str
    maker: str
    model: str
    built: int | None
    seats: int


@dataclass(frozen=True, slots=True)
class Weather:
    """One hour at one airport: °F, miles an hour, inches, miles."""

    temperature: float | None
    wind: float | None
    gust: float | None
    rain: float
    visibility: float


@dataclass(frozen=True, slots=True)
class Tables:
    """What flights are joined with."""

    airlines: Mapping[str, str]
    airports: Mapping[str, str]
    planes: Mapping[str, Plane]
    weather: Mapping[tuple[str, str], Weather]
    """By airport and `time_hour`."""


@dataclass(frozen=True, slots=True)
class JoinedFlight:
    """A flight with all that is known around it."""

    flight: Flight
    airline: str
    destination: str
    plane: Plane | None
    weather: Weather | None


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What was left out, and why."""

    kept: int
    unreadable: int
    duplicate: int
    impossible: int


@dataclass(frozen=True, slots=True)
class Storm:
    """Hours in a row at one airport in which most flights were hit."""

    day: str
    origin: str
    first_hour: int
    last_hour: int
    flights: int
    hit: int
    cancelled: int
    mean_delay_min: float
    cause: str


@dataclass(frozen=True, slots=True)
class RouteDelay:
    origin: str
    destination: str
    name: str
    arrived: int
    mean_delay_min: float
    worst_delay_min: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over some flights. Tallies add up: a day's is the sum of its airlines'."""

    flights: int = 0
    cancelled: int = 0
    diverted: int = 0
    late: int = 0
    minutes_lost: int = 0
    """Of those that left after their time."""
    seat_hours_lost: float = 0.0
    """The same, times the seats, where the plane is known."""
    with_plane: int = 0
    with_weather: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            flights=self.flights + other.flights,
            cancelled=self.cancelled + other.cancelled,
            diverted=self.diverted + other.diverted,
            late=self.late + other.late,
            minutes_lost=self.minutes_lost + other.minutes_lost,
            seat_hours_lost=round(self.seat_hours_lost + other.seat_hours_lost, 1),
            with_plane=self.with_plane + other.with_plane,
            with_weather=self.with_weather + other.with_weather,
        )

    @property
    def late_share(self) -> float:
        """Late flights among those that left."""
        left = self.flights - self.cancelled
        return self.late / left if left else 0.0


@dataclass(frozen=True, slots=True)
class AirlineTally:
    carrier: str
    name: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class DayReport:
    day: str
    tally: Tally
    cleaning: Cleaning
    storms: list[Storm]
    routes: list[RouteDelay]
    airlines: list[AirlineTally]


@dataclass(frozen=True, slots=True)
class YearReport:
    """Many days as one: `days` may be fewer than a year has."""

    first_day: str
    last_day: str
    days: int
    tally: Tally
    months: dict[str, Tally]
    worst_days: list[str]
    """By the share of late flights, worst first."""
    storms: list[Storm]
    """The largest."""
    airlines: list[AirlineTally]


def parse_flights(rows: Iterable[Mapping[str, str]]) -> tuple[list[Flight], int]:
    """The flights that could be read, and how many rows could not."""
    flights: list[Flight] = []
    unreadable = 0
    for row in rows:
        try:
            flights.append(_parse_flight(row))
        except (KeyError, TypeError, ValueError):
            unreadable += 1
    return flights, unreadable


def _parse_flight(row: Mapping[str, str]) -> Flight:
    return Flight(
        day=f"{int(row['year']):04}-{int(row['month']):02}-{int(row['day']):02}",
        time_hour=row["time_hour"],
        hour=int(row["hour"]),
        scheduled=int(row["sched_dep_time"]),
        carrier=row["carrier"],
        number=int(row["flight"]),
        tail=_text(row["tailnum"]),
        origin=row["origin"],
        destination=row["dest"],
        distance=int(row["distance"]),
        departed=_whole(row["dep_time"]),
        departure_delay_min=_whole(row["dep_delay"]),
        arrival_delay_min=_whole(row["arr_delay"]),
    )


def parse_plane(row: Mapping[str, str]) -> Plane:
    return Plane(row["tailnum"], row["manufacturer"], row["model"], _whole(row["year"]), int(row["seats"]))


def parse_weather(row: Mapping[str, str]) -> Weather:
    return Weather(
        temperature=_number(row["temp"]),
        wind=_number(row["wind_speed"]),
        gust=_number(row["wind_gust"]),
        rain=float(row["precip"]),
        visibility=float(row["visib"]),
    )


def _text(cell: str) -> str | None:
    return None if cell in ("", "NA") else cell


def _whole(cell: str) -> int | None:
    number = _number(cell)
    return None if number is None else int(number)


def _number(cell: str) -> float | None:
    return None if cell in ("", "NA") else float(cell)


def clean_flights(flights: Iterable[Flight], *, unreadable: int) -> tuple[list[Flight], Cleaning]:
    """Leave out rows that came twice and rows that cannot be true; in the order of the timetable."""
    kept: dict[tuple[str, int, str, str, int], Flight] = {}
    duplicate = impossible = 0
    for flight in flights:
        key = (flight.carrier, flight.number, flight.origin, flight.destination, flight.scheduled)
        if key in kept:
            duplicate += 1
        elif _is_impossible(flight):
            impossible += 1
        else:
            kept[key] = flight
    ordered = sorted(kept.values(), key=lambda flight: (flight.scheduled, flight.carrier, flight.number))
    return ordered, Cleaning(len(ordered), unreadable, duplicate, impossible)


def _is_impossible(flight: Flight) -> bool:
    if flight.origin == flight.destination or not 0 <= flight.scheduled <= 2400:
        return True
    if (flight.departed is None) != (flight.departure_delay_min is None):
        return True
    return flight.departure_delay_min is not None and flight.departure_delay_min < EARLIEST_MIN


def join_flights(flights: Iterable[Flight], tables: Tables) -> list[JoinedFlight]:
    """Add airline, destination, plane and the weather at the origin; what is unknown stays empty."""
    return [
        JoinedFlight(
            flight=flight,
            airline=tables.airlines.get(flight.carrier, flight.carrier),
            destination=tables.airports.get(flight.destination, flight.destination),
            plane=tables.planes.get(flight.tail) if flight.tail else None,
            weather=tables.weather.get((flight.origin, flight.time_hour)),
        )
        for flight in flights
    ]


def find_storms(joined: Iterable[JoinedFlight]) -> list[Storm]:
    """Stormy hours that follow each other at one airport are one storm; the largest first."""
    by_hour: dict[tuple[str, int], list[JoinedFlight]] = defaultdict(list)
    for item in joined:
        by_hour[item.flight.origin, item.flight.hour].append(item)
    storms: list[Storm] = []
    current: list[JoinedFlight] = []
    previous: tuple[str, int] | None = None
    for place_and_hour in sorted(by_hour):
        if not _is_stormy(by_hour[place_and_hour]):
            continue
        origin, hour = place_and_hour
        if current and previous != (origin, hour - 1):
            storms.append(_describe_storm(current))
            current = []
        current = current + by_hour[place_and_hour]
        previous = place_and_hour
    if current:
        storms.append(_describe_storm(current))
    return sorted(storms, key=lambda storm: (-storm.hit, storm.origin, storm.first_hour))


def _is_stormy(hour: Sequence[JoinedFlight]) -> bool:
    hit = sum(item.flight.is_hit for item in hour)
    return len(hour) >= STORM_FLIGHTS and hit / len(hour) >= STORM_SHARE


def _describe_storm(joined: Sequence[JoinedFlight]) -> Storm:
    flights = [item.flight for item in joined]
    delays = [flight.departure_delay_min for flight in flights if flight.departure_delay_min is not None]
    return Storm(
        day=flights[0].day,
        origin=flights[0].origin,
        first_hour=min(flight.hour for flight in flights),
        last_hour=max(flight.hour for flight in flights),
        flights=len(flights),
        hit=sum(flight.is_hit for flight in flights),
        cancelled=sum(flight.fate == "cancelled" for flight in flights),
        mean_delay_min=_mean(delays),
        cause=name_cause([item.weather for item in joined if item.weather]),
    )


def name_cause(hours: Sequence[Weather]) -> str:
    """The weather at the airport that most likely stopped it."""
    if not hours:
        return "weather not known"
    wet = [hour for hour in hours if hour.rain > 0]
    if any(hour.temperature is not None and hour.temperature <= 34 for hour in wet):
        return "snow or ice"
    if wet:
        return "rain"
    if any((hour.gust or hour.wind or 0) >= 30 for hour in hours):
        return "wind"
    if any(hour.visibility < 3 for hour in hours):
        return "fog"
    return "fair here: weather elsewhere, or no weather at all"


def rank_routes(joined: Iterable[JoinedFlight], *, top: int = 5) -> list[RouteDelay]:
    """The routes that arrived latest on average, worst first."""
    delays: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for item in joined:
        flight = item.flight
        if flight.arrival_delay_min is not None:
            delays[flight.origin, flight.destination, item.destination].append(flight.arrival_delay_min)
    routes = [
        RouteDelay(origin, destination, name, len(route), _mean(route), max(route))
        for (origin, destination, name), route in delays.items()
        if len(route) >= ROUTE_FLIGHTS
    ]
    return sorted(routes, key=lambda route: (-route.mean_delay_min, route.origin, route.destination))[:top]


def rate_airlines(joined: Iterable[JoinedFlight]) -> list[AirlineTally]:
    """A tally per airline, by code."""
    by_airline: dict[tuple[str, str], list[JoinedFlight]] = defaultdict(list)
    for item in joined:
        by_airline[item.flight.carrier, item.airline].append(item)
    return [
        AirlineTally(carrier, name, tally_flights(items))
        for (carrier, name), items in sorted(by_airline.items())
    ]


def tally_flights(joined: Sequence[JoinedFlight]) -> Tally:
    lost = [(max(item.flight.departure_delay_min or 0, 0), item.plane) for item in joined]
    return Tally(
        flights=len(joined),
        cancelled=sum(item.flight.fate == "cancelled" for item in joined),
        diverted=sum(item.flight.fate == "diverted" for item in joined),
        late=sum(item.flight.is_late for item in joined),
        minutes_lost=sum(minutes for minutes, _ in lost),
        seat_hours_lost=round(sum(minutes * plane.seats for minutes, plane in lost if plane) / 60, 1),
        with_plane=sum(item.plane is not None for item in joined),
        with_weather=sum(item.weather is not None for item in joined),
    )


def merge_airlines(days: Iterable[Sequence[AirlineTally]]) -> list[AirlineTally]:
    """One tally per airline over many days, the most punctual first."""
    merged: dict[str, AirlineTally] = {}
    for day in days:
        for airline in day:
            known = merged.get(airline.carrier)
            tally = known.tally + airline.tally if known else airline.tally
            merged[airline.carrier] = AirlineTally(airline.carrier, airline.name, tally)
    return sorted(merged.values(), key=lambda airline: (airline.tally.late_share, airline.carrier))


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    return sum(tallies, start=Tally())


def merge_days(days: Sequence[DayReport], *, top: int = 10) -> YearReport:
    """Many days as one. `days` must not be empty."""
    ordered = sorted(days, key=lambda day: day.day)
    months: dict[str, Tally] = {}
    for day in ordered:
        month = day.day[:7]
        months[month] = months.get(month, Tally()) + day.tally
    worst = sorted(ordered, key=lambda day: (-day.tally.late_share, day.day))
    storms = sorted((storm for day in ordered for storm in day.storms), key=lambda storm: -storm.hit)
    return YearReport(
        first_day=ordered[0].day,
        last_day=ordered[-1].day,
        days=len(ordered),
        tally=sum_tallies(day.tally for day in ordered),
        months=months,
        worst_days=[day.day for day in worst[:top]],
        storms=storms[:top],
        airlines=merge_airlines(day.airlines for day in ordered),
    )


def _mean(numbers: Sequence[int]) -> float:
    return round(sum(numbers) / len(numbers), 1) if numbers else 0.0
