"""The live flights as a person runs them: reports out of order, late and twice; a worker that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from examples.flights.driver import ROOT
from examples.flights.proof import Claim
from examples.flights_live.feed import END, Report, make_feed
from examples.flights_live.hours import Delays
from examples.flights_live.proof import Told, delays_by_hour, distinct, prove, storms_of
from perdure import Window

PATIENCE_SECONDS = 120
STORM = "storm-JFK-2013-01-02"


@pytest.fixture
def feed(small_source: Path) -> list[Report]:
    return make_feed(small_source, days=3, seed=3)


def told_of(feed: list[Report]) -> Told:
    """What should be told, where nothing is late."""
    hours = delays_by_hour(distinct(feed).values())
    windows = [Window(airport, at, at, value, value.flights) for (airport, at), value in hours.items()]
    return Told(windows, [], list(storms_of(windows)))


def failing(claims: list[Claim]) -> list[int]:
    return [number for number, claim in enumerate(claims) if not claim.holds]


def test_the_feed_is_out_of_order_and_has_reports_that_come_twice_and_hours_later(feed: list[Report]) -> None:
    reports = [report for report in feed if report.departed.flight != END]

    assert [report.arrives for report in reports] == sorted(report.arrives for report in reports)
    assert any(one.happened > two.happened for one, two in pairwise(reports))
    assert len(distinct(feed)) == 60 < len(reports)
    assert max((report.arrives - report.happened).seconds for report in reports) > 3_600


def test_the_proof_holds_of_what_should_be_told(feed: list[Report]) -> None:
    assert failing(prove(feed, told_of(feed))) == []


def test_the_proof_finds_what_is_wrong(feed: list[Report]) -> None:
    told = told_of(feed)
    first, *rest = told.windows
    more = replace(first, value=replace(first.value, minutes=first.value.minutes + 1))

    assert failing(prove(feed, replace(told, windows=[more, *rest]))) == [0]
    assert failing(prove(feed, replace(told, windows=rest))) == [0, 1]
    assert failing(prove(feed, replace(told, windows=[first, *told.windows]))) == [2]
    assert failing(prove(feed, replace(told, alerts=[]))) == [3]
    assert failing(prove(feed, replace(told, alerts=[STORM, STORM]))) == [3]
    assert first.value != Delays()


def test_windows_and_alerts_are_right_though_the_worker_is_killed(small_source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "examples.flights_live", "--days", "3", "--kills", "2"),
            *("--source", str(small_source), "--store", str(tmp_path / "flights.db")),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  holds  ") == 4
    assert done.stdout.count("killed (SIGKILL)") == 2
    assert "1 alerts of" in done.stdout
