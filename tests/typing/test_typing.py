"""The types that users see: the checker must refuse what is marked, and accept all else.

Every other file in this folder is a case, read by the type checker and never run. A
line that must be refused names the rule at its end:

    await engine.start(checkout("17"))  # error: reportArgumentType

Several rules are set apart by commas. The checker is strict.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
MARK = re.compile(r"# error: (?P<rules>\w+(?:, *\w+)*)\s*$")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None,
    reason="the type checker is not installed; scripts/check installs it",
)


def expected(path: Path) -> set[tuple[str, int, str]]:
    """(file, line, rule) of each mark."""
    return {
        (path.name, number, rule.strip())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (mark := MARK.search(line))
        for rule in mark["rules"].split(",")
    }


def complaints_about(paths: list[Path]) -> list[str]:
    """Where the checker and the marks differ, a sentence each."""
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("--project", str(CHECKOUT / "pyproject.toml"), "--pythonpath", sys.executable),
            *map(str, paths),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(answer.stdout)
    assert report["summary"]["filesAnalyzed"] >= len(paths), answer.stdout
    found = {
        (Path(item["file"]).name, item["range"]["start"]["line"] + 1, item.get("rule", "syntax")): item[
            "message"
        ]
        for item in report["generalDiagnostics"]
        if item["severity"] != "information"
    }
    wanted = {mark for path in paths for mark in expected(path)}
    missed = [f"{file}:{line}: was not refused ({rule})" for file, line, rule in wanted - found.keys()]
    surprising = [
        f"{file}:{line}: was refused ({rule}): {message}"
        for (file, line, rule), message in found.items()
        if (file, line, rule) not in wanted
    ]
    return sorted(missed + surprising)


def test_the_checker_refuses_what_is_marked_and_accepts_all_else() -> None:
    cases = sorted(path for path in HERE.glob("*.py") if path != Path(__file__).resolve())
    assert cases

    complaints = complaints_about(cases)

    assert not complaints, "\n  ".join(["", *complaints])


def test_a_wrong_mark_and_an_unmarked_error_are_both_told(tmp_path: Path) -> None:
    case = tmp_path / "case.py"
    case.write_text(
        "refused: int = ''  # error: reportAssignmentType\n"
        "fine: int = 1  # error: reportAssignmentType\n"
        "unmarked: str = 1\n",
        encoding="utf-8",
    )

    complaints = complaints_about([case])

    assert [complaint.partition(": ")[0] for complaint in complaints] == ["case.py:2", "case.py:3"]
    assert "was not refused" in complaints[0]
    assert "was refused" in complaints[1]
