"""The flights example as a person runs it: real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from examples.flights.driver import ROOT, draw_moments
from examples.flights.ledger import read_entries
from examples.flights.source import find_source
from perdure import Engine

PATIENCE_SECONDS = 120


def command(out: Path, source: Path, *, days: int, kills: int) -> list[str]:
    return [
        *(sys.executable, "-m", "examples.flights", "--days", str(days), "--kills", str(kills)),
        *("--out", str(out), "--source", str(source)),
    ]


def run_demo(out: Path, source: Path, *, days: int, kills: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, source, days=days, kills=kills),
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def plain_environment() -> dict[str, str]:
    """Without what would make the output coloured or cut."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


def test_the_moments_of_the_kills_lie_one_in_each_part_of_the_work() -> None:
    moments = draw_moments(effects=100, kills=4, random=Random(1))

    assert [moment // 25 for moment in moments] == [0, 1, 2, 3]
    assert draw_moments(effects=2, kills=9, random=Random(1)) == [0, 1]
    assert draw_moments(effects=0, kills=3, random=Random(1)) == []


@pytest.mark.slow
def test_three_days_are_reported_once_though_the_worker_is_killed(small_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = run_demo(out, small_source, days=3, kills=1)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The worker was killed 1 time." in done.stdout
    assert done.stdout.count("  holds  ") == 6
    assert len({entry.pid for entry in read_entries(out / "ledger.db")}) == 2
    storm = json.loads((out / "reports" / "2013-01-02.json").read_text())["storms"][0]
    assert (storm["origin"], storm["first_hour"], storm["last_hour"]) == ("JFK", 10, 11)
    assert (storm["hit"], storm["cause"]) == (14, "snow or ice")
    assert not list((out / "work").iterdir())


@pytest.mark.slow
def test_the_same_command_again_has_nothing_left_to_do(small_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_demo(out, small_source, days=3, kills=0)
    before = read_entries(out / "ledger.db")

    again = run_demo(out, small_source, days=3, kills=2)

    assert again.returncode == 0, again.stdout + again.stderr
    assert read_entries(out / "ledger.db") == before


@pytest.mark.slow
def test_more_days_later_leave_the_first_as_they_are(small_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_demo(out, small_source, days=2, kills=0)
    before = read_entries(out / "ledger.db")

    more = run_demo(out, small_source, days=3, kills=0)

    assert more.returncode == 0, more.stdout + more.stderr
    after = read_entries(out / "ledger.db")
    assert after[: len(before)] == before
    assert {entry.run for entry in after[len(before) :]} == {
        "flights-2013-01-03",
        "flights-2013-first-3-days",
    }


@pytest.mark.slow
def test_once_the_fault_is_put_right_the_same_command_goes_on(small_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flights = small_source / "flights.csv.zip"
    content = flights.read_bytes()
    flights.unlink()
    failed = run_demo(out, small_source, days=3, kills=0)
    flights.write_bytes(content)

    done = run_demo(out, small_source, days=3, kills=0)

    assert failed.returncode == 1
    assert f"{flights} is not there" in failed.stderr
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(small_source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command(out, small_source, days=3, kills=0),
        cwd=ROOT,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        first_line = demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()

    done = run_demo(out, small_source, days=3, kills=0)

    assert first_line.startswith("worker ")
    assert demo.returncode == 130, rest
    assert "to go on, give the same command" in rest
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_store_tells_what_each_day_came_to(small_source: Path, tmp_path: Path) -> None:
    from examples.flights.worker import work
    from examples.flights.workflow import Place, report_day, stage

    out = tmp_path / "out"
    place = Place(source=str(small_source), out=str(out))
    out.mkdir()
    await work(tmp_path / "perdure.db", place, days=3)

    async with Engine(f"sqlite:///{tmp_path / 'perdure.db'}") as engine:
        run = await engine.start(report_day("2013-01-02", place), id="flights-2013-01-02")
        summary = await run.result()
        said = await run.state(stage)

    assert (summary.flights, summary.late, summary.storms) == (20, 11, 1)
    assert said == f"done: 20 flights, {summary.late} late, 1 storms"


@pytest.mark.slow
def test_three_real_days_are_reported_once_though_the_worker_is_killed(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "out", find_source(), days=3, kills=2)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,699 flights" in done.stdout
    assert done.stdout.count("  holds  ") == 6
