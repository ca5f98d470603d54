"""The flights example, crashed wherever it can be: each effect is counted once, and the report is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.flights.ledger import read_entries, read_totals
from examples.flights.source import open_flights, split_by_day
from examples.flights.workflow import (
    DAY_STEPS,
    DaySummary,
    Place,
    ledger_path,
    open_ledger,
    prepare,
    report_day,
    report_path,
    work_path,
)
from perdure import WorkflowCall

DAY = "2013-01-02"
DAYS = ["2013-01-01", DAY, "2013-01-03"]


@contextmanager
def empty_place(source: Path, folder: Path) -> Generator[Place]:
    """Where nothing has been written yet."""
    yield Place(str(source), str(folder))
    open_ledger(str(folder)).close()
    open_ledger.cache_clear()
    shutil.rmtree(folder)


@pytest.mark.crash_everywhere
def test_a_day_is_reported_once(
    small_source: Path, tmp_path: Path
) -> Generator[WorkflowCall[DaySummary], Any, None]:
    with empty_place(small_source, tmp_path / "out") as place:
        with open_flights(small_source) as lines:
            for day, text in split_by_day(lines):
                path = work_path(place.out, day, "source.csv")
                path.parent.mkdir(parents=True)
                path.write_text(text)

        summary = yield report_day(DAY, place)

        assert (summary.flights, summary.storms) == (20, 1)
        assert json.loads(report_path(place.out, DAY).read_text())["day"] == DAY
        counted = [entry.step for entry in read_entries(ledger_path(place.out)) if entry.counted]
        assert sorted(counted) == sorted(DAY_STEPS)
        assert {total.effects for total in read_totals(ledger_path(place.out)).values()} == {1}
        assert not work_path(place.out, DAY, "source.csv").parent.exists()


@pytest.mark.crash_everywhere
def test_the_source_is_split_once(
    small_source: Path, tmp_path: Path
) -> Generator[WorkflowCall[list[str]], Any, None]:
    with empty_place(small_source, tmp_path / "out") as place:
        days = yield prepare(place)

        assert days == DAYS
        assert [entry.step for entry in read_entries(ledger_path(place.out)) if entry.counted] == ["split"]
        assert all(work_path(place.out, day, "source.csv").exists() for day in days)
