"""Draws the table: one row for each variant of each peer, its settings below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_HEAD = (
    "system", "version", "steps/s", "÷ raw", "ms/step", "× raw", "p50 ms", "p99 ms", "raw/s",
)  # fmt: skip

_UNSTEADY = 1.5
"""How far apart the raw limits before and after may lie before the row shows both."""


@dataclass(slots=True)
class Row:
    """One variant of a peer, with what was measured of it."""

    peer: str
    variant: str = ""
    version: str = ""
    settings: str = ""
    figures: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    error: str = ""


def draw(rows: Sequence[Row]) -> str:
    """Answer with a Markdown table, and notes below it."""
    cells = [list(_HEAD), *(_cells(row) for row in rows if row.figures)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_line(line, widths) for line in cells]
    # The first two columns are words, the others numbers.
    rule = [":" + "-" * (width - 1) if column < 2 else "-" * (width - 1) + ":"
            for column, width in enumerate(widths)]  # fmt: skip
    lines.insert(1, "| " + " | ".join(rule) + " |")
    missing = [f"- {_name(row)}: not available: {row.error}" for row in rows if row.error]
    notes = [f"- {_name(row)}: {row.settings}" for row in rows if row.settings]
    legend = (
        "steps/s: many 10-step runs at once. ms/step: one long run. p50, p99: start to result of a one-step "
        "run on an idle system. raw/s: one-row commits, WAL FULL, just before and after (both where they are "
        "far apart: do not trust that row). ÷ raw and × raw: beside their mean."
    )
    return "\n".join([*lines, "", legend, "", *notes, *missing])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words = [cell.ljust(width) if column < 2 else cell.rjust(width)
             for column, (cell, width) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
    return "| " + " | ".join(words) + " |"


def _name(row: Row) -> str:
    return f"{row.peer}, {row.variant}" if row.variant else row.peer


def _cells(row: Row) -> list[str]:
    throughput = row.figures.get("throughput", {}).get("value")
    sequential = row.figures.get("sequential", {}).get("value")
    latency = row.figures.get("latency", {})
    raw = row.figures.get("raw", {}).get("value")
    return [
        _name(row),
        row.version,
        _number(throughput, 0),
        _number(throughput / raw if throughput and raw else None, 2),
        _number(sequential, 2),
        _number(sequential * raw / 1_000 if sequential and raw else None, 1),
        _number(latency.get("value"), 1),
        _number(latency.get("p99"), 1),
        _raw(row),
    ]


def _raw(row: Row) -> str:
    low, high = row.figures.get("raw", {}).get("range", (None, None))
    if low is None or high / low < _UNSTEADY:
        return _number(row.figures.get("raw", {}).get("value"), 0)
    return f"{_number(low, 0)}–{_number(high, 0)}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
