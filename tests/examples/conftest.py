"""A source of flights that is small enough to check by eye, in the form of the real one."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest

FLIGHT_COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
DAYS = 3


def flight_row(*, day: int, number: int, hour: int, delay: int | None) -> list[object]:
    """One line of the table; a delay of None is a cancelled flight."""
    planned = hour * 100
    left = "NA" if delay is None else planned + delay // 60 * 100 + delay % 60
    late = "NA" if delay is None else delay
    return [
        *(2013, 1, day, left, planned, late, "NA", planned + 200, late),
        *("UA" if number % 2 else "B6", number, f"N{number % 3}", "JFK", "BOS" if number % 2 else "MIA"),
        *(100, 187, hour, 0, f"2013-01-{day:02}T{hour + 5:02}:00:00Z"),
    ]


def small_flights() -> list[list[object]]:
    """Three days of 20 flights; on the second, the hours 10 and 11 are a snowstorm."""
    rows: list[list[object]] = []
    for day in range(1, DAYS + 1):
        for number in range(20):
            hour = 10 if number < 10 else 11
            stormy = day == 2 and number % 10 < 7
            delay = (None if number % 2 else 90) if stormy else number % 20
            rows.append(flight_row(day=day, number=number, hour=hour, delay=delay))
    return rows


def table(header: str, rows: Sequence[Sequence[object]]) -> str:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header.split(","), *rows])
    return text.getvalue()


@pytest.fixture
def small_source(tmp_path: Path) -> Path:
    """A folder like the package's."""
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", table(FLIGHT_COLUMNS, small_flights()))
    (source / "airlines.csv").write_text(
        table("carrier,name", [("UA", "United Air Lines Inc."), ("B6", "JetBlue Airways")])
    )
    (source / "airports.csv").write_text(
        table("faa,name,lat,lon", [("BOS", "General Edward Lawrence Logan Intl", 42.4, -71.0)])
    )
    (source / "planes.csv").write_text(
        table("tailnum,year,manufacturer,model,seats", [("N0", 1999, "AIRBUS", "A320", 180)])
    )
    (source / "weather.csv").write_text(
        table(
            "origin,temp,wind_speed,wind_gust,precip,visib,time_hour",
            [("JFK", 30.2, 12, "NA", 0.1, 0.5, f"2013-01-02T{hour}:00:00Z") for hour in (15, 16)],
        )
    )
    return source
