"""What all commands share of writing: data to stdout, the rest to stderr, times and values for people."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ...views import RunStatus

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where nobody looks, a table is as wide as it needs to be, so that no id is cut.
_WIDTH_IN_PIPES = 10_000
_WIDEST = 40
_NARROWEST = 8

COLOURS: dict[RunStatus, str] = {
    RunStatus.RUNNING: "cyan",
    RunStatus.PARKED: "bold yellow",
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "magenta",
    RunStatus.TERMINATED: "magenta",
    RunStatus.TIMED_OUT: "red",
    RunStatus.CONTINUED: "dim",
}


def say(text: str) -> None:
    """Tell the person something: on stderr, since it is no data."""
    print(text, file=sys.stderr)


@cache
def console() -> Console:
    """Stdout for tables and colours."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_IN_PIPES
    return Console(width=width, highlight=False, emoji=False, markup=False)


def add_firm_column(table: Table, title: str, cells: Iterable[str], *, right: bool = False) -> int:
    """Add a column that does not give way when there is no room: an id that is cut cannot be typed.

    Gives the room that it takes.
    """
    width = min(_WIDEST, max(map(len, [title, *cells])))
    table.add_column(title, overflow="fold", min_width=width, justify="right" if right else "left")
    return width + 2


def add_error_column(table: Table, taken: int) -> None:
    """Add the last column, which has the room that the others leave, and is cut there."""
    width = max(_NARROWEST, console().width - taken)
    table.add_column("ERROR", overflow="ellipsis", no_wrap=True, max_width=width)


def print_json(value: object) -> None:
    """Write a value as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(plain(value)).decode() + "\n")
    sys.stdout.flush()


def plain(value: object) -> Any:
    """Views as what JSON knows. Bytes in a view are JSON already, and go in as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return msgspec.Raw(value)
    return value


def shorten(data: bytes, width: int) -> str:
    """A JSON value in at most `width` characters."""
    # A character has at most four bytes: a large value is not decoded whole.
    text = data[: 4 * width + 4].decode(errors="ignore")
    return text if len(text) <= width else f"{text[: max(1, width - 1)]}…"


def duration(ms: int) -> str:
    """`12 ms`, `1.25 s`, `3 min 20 s`, `2 h 5 min`, `12 d 3 h`."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    seconds = ms // 1000
    for size, unit, small, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {small_unit}"
    return f"{seconds // 60} min {seconds % 60} s"


def age(ms: int) -> str:
    """How long ago, in one unit: `5 s`, `3 min`, `2 h`, `12 d`."""
    seconds = max(0, ms) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def clock_time(when: datetime) -> str:
    """A time for people, in UTC."""
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def between_ms(start: datetime, end: datetime) -> int:
    """How long from one to the other."""
    return round((end - start).total_seconds() * 1000)


def to_ms(when: datetime) -> int:
    """A time as Unix milliseconds."""
    return round(when.timestamp() * 1000)


def many(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
