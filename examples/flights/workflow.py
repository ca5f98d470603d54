"""The durable part: the steps that touch files, and the workflows that say in which order.

Steps hand each other the names of files in the output folder, and only small
values pass through the journal. Every step does its work, then counts it in the
ledger under its idempotency key. Files are replaced whole, so a step that was
interrupted anywhere may run again.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from perdure import Retry, State, step, step_info, workflow

from . import domain, report
from .domain import AirlineTally, Cleaning, DayReport, Flight, JoinedFlight, RouteDelay, Storm, Tally
from .files import read_json, write_file, write_json, write_pretty_json
from .ledger import Entry, Ledger
from .source import SourceMissing, open_flights, read_rows, read_tables, split_by_day

DAY_STEPS = ("load", "clean", "join", "storms", "routes", "airlines", "report", "sweep")
"""What each day's run counts in the ledger, once each."""

stage = State[str]("stage")
"""What a day's run is at: `perdure show flights-2013-02-08`."""

watchers: list[Callable[[Entry], None]] = []
"""Called with each entry once it is in the ledger; the worker tells its driver by it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the data is and where the reports go: absolute paths, for a run may go on in another process."""

    source: str
    out: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A day's flights as they were read."""

    flights: int
    unreadable: int
    path: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A day's flights without the rows that cannot be true."""

    cleaning: Cleaning
    path: str


@dataclass(frozen=True, slots=True)
class DaySummary:
    """What a day's run returns."""

    day: str
    flights: int
    late: int
    storms: int
    path: str


def ledger_path(out: str) -> Path:
    return Path(out) / "ledger.db"


def report_path(out: str, name: str) -> Path:
    """The JSON report of a day, or of `year`; the one for people stands beside it as `.md`."""
    return Path(out) / "reports" / f"{name}.json"


def work_path(out: str, day: str, name: str) -> Path:
    return Path(out) / "work" / day / name


@lru_cache(maxsize=4)
def open_ledger(out: str) -> Ledger:
    return Ledger(ledger_path(out))


def count(place: Place, name: str, flights: int) -> None:
    """Count the effect of the step that is running."""
    info = step_info()
    entry = open_ledger(place.out).count(
        key=info.idempotency_key, run=info.run_id, step=name, attempt=info.attempt, flights=flights
    )
    for watcher in watchers:
        watcher(entry)


# A source that is not there or not sorted will not be better the next time.
@step(timeout=300, retry=Retry(give_up_on=(SourceMissing, ValueError)))
def split_source(place: Place) -> list[str]:
    """Write each day's part of the table to a file of its own; returns the days in order."""
    days: list[str] = []
    flights = 0
    with open_flights(Path(place.source)) as lines:
        for day, text in split_by_day(lines):
            write_file(work_path(place.out, day, "source.csv"), text.encode())
            days.append(day)
            flights += text.count("\n") - 1
    count(place, "split", flights)
    return sorted(days)


@step(timeout=60)
def load_day(day: str, place: Place) -> Loaded:
    flights, unreadable = domain.parse_flights(
        read_rows(work_path(place.out, day, "source.csv").read_text("utf-8"))
    )
    path = work_path(place.out, day, "loaded.json")
    write_json(path, flights)
    count(place, "load", len(flights))
    return Loaded(len(flights), unreadable, str(path))


@step(timeout=60)
def clean_day(day: str, loaded: Loaded, place: Place) -> Cleaned:
    flights = read_json(Path(loaded.path), list[Flight])
    kept, cleaning = domain.clean_flights(flights, unreadable=loaded.unreadable)
    path = work_path(place.out, day, "clean.json")
    write_json(path, kept)
    count(place, "clean", len(kept))
    return Cleaned(cleaning, str(path))


@step(timeout=60)
def join_day(day: str, cleaned: Cleaned, place: Place) -> str:
    flights = read_json(Path(cleaned.path), list[Flight])
    joined = domain.join_flights(flights, read_tables(Path(place.source)))
    path = work_path(place.out, day, "joined.json")
    write_json(path, joined)
    count(place, "join", len(joined))
    return str(path)


@step(timeout=60)
def find_storms(joined: str, place: Place) -> list[Storm]:
    flights = read_json(Path(joined), list[JoinedFlight])
    storms = domain.find_storms(flights)
    count(place, "storms", len(flights))
    return storms


@step(timeout=60)
def rank_routes(joined: str, place: Place) -> list[RouteDelay]:
    flights = read_json(Path(joined), list[JoinedFlight])
    routes = domain.rank_routes(flights)
    count(place, "routes", len(flights))
    return routes


@step(timeout=60)
def rate_airlines(joined: str, place: Place) -> list[AirlineTally]:
    flights = read_json(Path(joined), list[JoinedFlight])
    airlines = domain.rate_airlines(flights)
    count(place, "airlines", len(flights))
    return airlines


@step(timeout=60)
def write_day(day: DayReport, place: Place) -> str:
    path = report_path(place.out, day.day)
    write_file(path.with_suffix(".md"), report.render_day(day).encode())
    write_pretty_json(path, day)
    count(place, "report", day.tally.flights)
    return str(path)


@step(timeout=60)
def sweep_day(day: str, flights: int, place: Place) -> None:
    """Remove the day's working files. Its report is recorded, so nothing reads them again."""
    shutil.rmtree(work_path(place.out, day, "source.csv").parent, ignore_errors=True)
    count(place, "sweep", flights)


@step(timeout=300)
def write_year(days: list[str], place: Place) -> Tally:
    reports = [read_json(report_path(place.out, day), DayReport) for day in days]
    year = domain.merge_days(reports)
    path = report_path(place.out, "year")
    write_file(path.with_suffix(".md"), report.render_year(year).encode())
    write_pretty_json(path, year)
    count(place, "year", year.tally.flights)
    return year.tally


@workflow
async def prepare(place: Place) -> list[str]:
    """Split the source; returns its days."""
    return await split_source(place)


@workflow
async def report_day(day: str, place: Place) -> DaySummary:
    """Make the report of one day."""
    stage.set("loading")
    loaded = await load_day(day, place)
    stage.set(f"cleaning {loaded.flights} flights")
    cleaned = await clean_day(day, loaded, place)
    stage.set("joining weather, planes, airlines and airports")
    joined = await join_day(day, cleaned, place)
    stage.set("looking for storms, slow routes and late airlines")
    storms, routes, airlines = await asyncio.gather(
        find_storms(joined, place), rank_routes(joined, place), rate_airlines(joined, place)
    )
    tally = domain.sum_tallies(airline.tally for airline in airlines)
    stage.set("writing the report")
    path = await write_day(DayReport(day, tally, cleaned.cleaning, storms, routes, airlines), place)
    await sweep_day(day, tally.flights, place)
    stage.set(f"done: {tally.flights} flights, {tally.late} late, {len(storms)} storms")
    return DaySummary(day, tally.flights, tally.late, len(storms), path)


@workflow
async def report_year(days: list[str], place: Place) -> Tally:
    """Put the reports of all `days` together; they must be written."""
    return await write_year(days, place)
