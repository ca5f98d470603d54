"""The frame of the battery: what counts as held, what is said of a failure, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from battery.page import Result, as_json, draw, fill_page, merge, result_of
from battery.row import Control, Counted, Failure, Row, Trials, Work
from battery.running import row_modules, run_here

BITES = Control("no lock", True, "noticed in 9 of 10 trials")
MISSES = replace(BITES, caught=False)


def row_of(counted: Counted) -> Row:
    return Row(
        99,
        "a fault",
        "It breaks.",
        "It is broken.",
        ["all is well"],
        Trials(10, 20, 30),
        lambda work: counted,
    )


def judge(counted: Counted, *, whole: bool = True) -> Result:
    return result_of(row_of(counted), "push", counted, seed=0, seconds=1.0, whole=whole)


def test_a_row_without_violations_whose_controls_were_caught_has_held() -> None:
    result = judge(Counted(100, controls=[BITES]))

    assert result["held"]
    assert result["bound"] == 0.03


@pytest.mark.parametrize(
    "counted",
    [
        Counted(100, controls=[BITES, MISSES]),
        Counted(100),
        Counted(0, controls=[BITES]),
        Counted(100, [Failure(3, "lost a record")], [BITES]),
    ],
    ids=["a control was not caught", "there is no control", "nothing was tried", "a trial failed"],
)
def test_a_row_that_has_shown_nothing_has_not_held(counted: Counted) -> None:
    assert not judge(counted)["held"]


def test_a_repeat_of_one_trial_needs_no_control() -> None:
    assert judge(Counted(1), whole=False)["held"]


def test_a_failure_says_the_one_command_that_repeats_it() -> None:
    result = judge(Counted(100, [Failure(3, "lost a record")], [BITES]))

    assert "again: scripts/battery 99 --seed 3 --trials 1" in draw(result)


def test_a_row_tries_each_seed_and_gives_those_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def trial(seed: int, folder: Path) -> None:
        (folder / "left behind").touch()
        assert seed != 7, "seven is not well"

    work = Work(row_of(Counted(0)), "push", seed=0, trials=None, folder=tmp_path)

    counted = work.counted(trial, controls=lambda work: [BITES])

    assert (counted.trials, [failure.seed for failure in counted.failures]) == (10, [7])
    assert "seven is not well" in counted.failures[0].what
    assert "scripts/battery 99 --seed 7 --trials 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_breaks_has_not_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = row_of(Counted(0))
    module = type(sys)("battery.broken")
    module.ROW = replace(broken, run=lambda work: 1 / 0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "battery.broken", module)

    counted = run_here("battery.broken", "push", tmp_path, seed=0, trials=1)

    assert counted.trials == 0
    assert "ZeroDivisionError" in counted.failures[0].what


def test_the_number_of_a_row_is_that_of_its_file(checkout: Path) -> None:
    from importlib import import_module

    numbers = {number: import_module(module).ROW.number for number, module in row_modules().items()}

    assert numbers
    assert all(number == found for number, found in numbers.items()), numbers


def test_a_newer_result_of_a_row_takes_the_place_of_the_older() -> None:
    older, newer = judge(Counted(10, controls=[BITES])), judge(Counted(20, controls=[BITES]))
    other = {**newer, "row": 3}

    merged: Sequence[Result] = merge([older], [newer, other])  # type: ignore[list-item]

    assert [(result["row"], result["trials"]) for result in merged] == [(3, 20), (99, 20)]


def test_the_page_is_what_the_results_make_it(checkout: Path) -> None:
    page = (checkout / "docs" / "reliability.md").read_text(encoding="utf-8")
    data = (checkout / "docs" / "reliability.json").read_text(encoding="utf-8")
    results: list[Result] = json.loads(data)["rows"]

    assert as_json(results) == data
    assert fill_page(page, results) == page
    assert all(result["held"] for result in results)


def test_an_unknown_row_is_refused_with_those_there_are(checkout: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "battery", "98"], cwd=checkout, capture_output=True, text=True, check=False
    )

    assert answer.returncode == 2
    assert "there is no row 98" in answer.stderr
