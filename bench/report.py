"""Draws the figures: as a table for the terminal, as Markdown, as JSON; and writes them into the docs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from .measure import Figure

_HEAD = ("figure", "value", "best", "limit in the same run", "limit", "ratio", "target", "reached")
_WORDS = {0, 3, 6, 7}
"""Columns that are words; the others are numbers."""


def describe_machine(folder: Path) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "cores": str(os.cpu_count()),
        "CPU": _processor(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "file system": _file_system(folder),
        "Python": platform.python_version(),
        "SQLite": apsw.sqlite_lib_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    best, kind = "", "?"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, word, *_ = line.split()
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, word
    return kind


def draw(figures: Sequence[Figure], *, markdown: bool) -> str:
    """A table with a line for each figure."""
    lines = [list(_HEAD), *(_cells(figure) for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    if not markdown:
        return "\n".join("  ".join(_pad(line, widths)).rstrip() for line in lines)
    rule = ["-" * width if n in _WORDS else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_pad(line, widths))} |" for line in (lines[0], rule, *lines[1:]))


def _pad(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.ljust(width) if n in _WORDS else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _cells(figure: Figure) -> list[str]:
    reached = figure.is_reached
    return [
        figure.name,
        f"{number(figure.value)} {figure.unit}",
        number(figure.best),
        figure.limit,
        number(figure.limit_value),
        f"{number(figure.ratio)} ×",
        _target(figure),
        "" if reached is None else "yes" if reached else "no",
    ]


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "≤" if figure.better == "less" else "≥"
    unit = f" {figure.unit}" if figure.target_of == "value" else " × the limit"
    stretch = f" ({number(figure.stretch)})" if figure.stretch is not None else ""
    return f"{sign} {number(figure.target)}{stretch}{unit}"


def number(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(figure: Figure) -> dict[str, Any]:
    """All that is known of a figure."""
    return {
        "figure": figure.name, "unit": figure.unit, "value": figure.value, "best": figure.best,
        "values": list(figure.values), "limit": figure.limit, "limit_value": figure.limit_value,
        "ratio": figure.ratio, "target": figure.target, "stretch": figure.stretch,
        "target_of": figure.target_of, "better": figure.better, "reached": figure.is_reached,
    }  # fmt: skip


def fill(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of that name. Raises ValueError when they are not there."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no place for {name!r}: put {begin} and {end} around it")
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return between.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", page)
