"""Reports for people, in Markdown. Pure: from values to text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .domain import LATE_MIN, AirlineTally, DayReport, RouteDelay, Storm, Tally, YearReport


def render_day(day: DayReport) -> str:
    left_out = day.cleaning.unreadable + day.cleaning.duplicate + day.cleaning.impossible
    return _join(
        f"# Flights from New York, {day.day}",
        _render_tally(day.tally),
        f"Left out while cleaning: {left_out} rows.",
        "## Storms",
        _render_storms(day.storms) if day.storms else "None: no airport had an hour with most flights hit.",
        "## Slowest routes",
        _render_routes(day.routes),
        "## Airlines",
        _render_airlines(day.airlines),
    )


def render_year(year: YearReport) -> str:
    months = [
        (month, f"{tally.flights:,}", f"{tally.cancelled:,}", _percent(tally.late_share), _hours(tally))
        for month, tally in year.months.items()
    ]
    return _join(
        f"# Flights from New York, {year.first_day} to {year.last_day} ({year.days} days)",
        _render_tally(year.tally),
        "## Months",
        _table(("month", "flights", "cancelled", "late", "seat hours lost"), months),
        "## Worst days",
        "\n".join(f"- [{day}]({day}.md)" for day in year.worst_days),
        "## Largest storms",
        _render_storms(year.storms),
        "## Airlines, the most punctual first",
        _render_airlines(year.airlines),
    )


def _render_tally(tally: Tally) -> str:
    return (
        f"{tally.flights:,} flights: {tally.cancelled:,} cancelled, {tally.diverted:,} diverted, "
        f"{tally.late:,} late by {LATE_MIN} minutes or more "
        f"({_percent(tally.late_share)} of those that left). "
        f"People waited {_hours(tally)} seat hours, as far as the planes are known."
    )


def _render_storms(storms: Sequence[Storm]) -> str:
    rows = [
        (
            storm.day,
            storm.origin,
            f"{storm.first_hour:02}-{storm.last_hour + 1:02} h",
            f"{storm.hit} of {storm.flights}",
            str(storm.cancelled),
            f"{storm.mean_delay_min:.0f} min",
            storm.cause,
        )
        for storm in storms
    ]
    return _table(
        ("day", "from", "hours", "hit", "cancelled", "mean delay", "cause, by the weather there"), rows
    )


def _render_routes(routes: Sequence[RouteDelay]) -> str:
    rows = [
        (
            f"{route.origin} → {route.destination}",
            route.name,
            str(route.arrived),
            f"{route.mean_delay_min:.0f} min",
            f"{route.worst_delay_min} min",
        )
        for route in routes
    ]
    return _table(("route", "to", "arrived", "mean delay on arrival", "worst"), rows)


def _render_airlines(airlines: Sequence[AirlineTally]) -> str:
    rows = [
        (
            airline.name,
            f"{airline.tally.flights:,}",
            f"{airline.tally.cancelled:,}",
            _percent(airline.tally.late_share),
            _hours(airline.tally),
        )
        for airline in airlines
    ]
    return _table(("airline", "flights", "cancelled", "late", "seat hours lost"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _hours(tally: Tally) -> str:
    return f"{tally.seat_hours_lost:,.0f}"


def _join(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"
