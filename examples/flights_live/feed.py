"""The feed: what airports report of flights, in the order in which the reports *arrive*.

Most reports come some minutes after the departure, some after hours, a few a day later; one in
twenty comes twice. All of that is drawn by a seed, so that the feed is the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random

from ..flights.source import open_flights, read_rows, split_by_day
from .hours import Departed

LONG_AFTER = timedelta(days=7)
END = "the end of the feed"


@dataclass(frozen=True, slots=True)
class Report:
    """A departure, or a flight that was cancelled, as it is reported."""

    arrives: datetime
    id: str
    """The same for a report that comes twice."""
    happened: datetime
    """The departure; of a cancelled flight, when it should have left."""
    departed: Departed


def make_feed(source: Path, *, days: int, seed: int) -> list[Report]:
    """All reports of the first days, in the order of their arrival.

    At the end each airport reports one flight of a week later: else its last hours would stay open.
    """
    chance = Random(seed)
    reports: list[Report] = []
    with open_flights(source) as lines:
        for day, text in islice(split_by_day(lines), days):
            for number, row in enumerate(read_rows(text)):
                cancelled = row["dep_time"] in ("", "NA")
                late_min = 0 if cancelled else int(float(row["dep_delay"]))
                flight = f"{row['carrier']}{row['flight']}"
                planned = datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"]))
                happened = planned + timedelta(minutes=late_min)
                departed = Departed(row["origin"], flight, late_min, cancelled)
                name = f"{day}/{number}"
                reports += [Report(at, name, happened, departed) for at in _arrivals(happened, chance)]
    reports.sort(key=lambda report: (report.arrives, report.id))
    last = max(report.arrives for report in reports) + LONG_AFTER
    airports = sorted({report.departed.airport for report in reports})
    ends = [Report(last, f"end/{airport}", last, Departed(airport, END, 0, False)) for airport in airports]
    return reports + ends


def _arrivals(happened: datetime, chance: Random) -> Iterator[datetime]:
    drawn = chance.random()
    if drawn < 0.88:
        delay_s = min(chance.expovariate(1 / 300), 1_700)
    elif drawn < 0.98:
        delay_s = chance.uniform(1_800, 6 * 3_600)
    else:
        delay_s = chance.uniform(10 * 3_600, 30 * 3_600)
    arrives = happened + timedelta(seconds=delay_s)
    yield arrives
    if chance.random() < 0.05:
        yield arrives + timedelta(seconds=chance.uniform(0, 3_600))
