"""`check`: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.faces.conftest import Perdure

FAULTY = """
import time

from perdure import step, workflow


@step
async def note(text: str) -> None: ...


def stamp() -> str:
    return str(time.time())


@workflow
async def notes() -> None:
    await note(stamp())
"""


@pytest.fixture
def faulty(project: Path) -> Path:
    folder = project / "notes"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('this must not be imported')\n")
    (folder / "work.py").write_text(FAULTY)
    return folder


def test_clean_code_ends_with_0_and_no_output(perdure: Perdure, project: Path) -> None:
    answer = perdure("check", "shop.py")

    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "0 findings in 8 workflows and 6 steps of 1 file.\n"


def test_a_finding_is_told_with_its_place_its_fix_and_its_way(perdure: Perdure, faulty: Path) -> None:
    answer = perdure("check", "notes")

    assert answer.code == 1
    assert answer.out.splitlines() == [
        "notes/work.py:12:16: clock: time.time() reads the machine's clock.",
        "    why: A replay reads another time, and may then take another branch.",
        "    fix: Use perdure.now(), or asyncio.get_running_loop().time(): the run's own time.",
        "    way: notes (notes/work.py:17) → stamp (notes/work.py:12)",
    ]
    assert answer.err == "1 finding in 1 workflow and 1 step of 2 files.\n"


@pytest.mark.parametrize("place", ["notes.work", "notes", "notes/work.py", "."])
def test_a_module_a_package_a_file_and_a_folder_are_read_and_not_imported(
    perdure: Perdure, faulty: Path, place: str
) -> None:
    answer = perdure("check", place, "--json")

    assert answer.code == 1
    (finding,) = answer.json["findings"]
    assert (finding["path"], finding["line"], finding["rule"]) == ("notes/work.py", 12, "clock")
    assert "notes" not in sys.modules


def test_several_places_are_checked_together(perdure: Perdure, faulty: Path) -> None:
    answer = perdure("check", "shop.py", "notes", "--json")

    assert answer.json["workflows"] == 9
    assert len(answer.json["findings"]) == 1


def test_sarif_goes_to_stdout(perdure: Perdure, faulty: Path) -> None:
    answer = perdure("check", "notes", "--sarif")

    assert answer.code == 1
    (run,) = json.loads(answer.out)["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["clock"]


def test_a_file_that_is_no_python_ends_with_2_and_the_others_are_told(perdure: Perdure, faulty: Path) -> None:
    (faulty / "broken.py").write_text("async def f(:\n")

    answer = perdure("check", "notes")

    assert answer.code == 2
    assert "notes/work.py:12" in answer.out
    assert "notes/broken.py cannot be read: line 1" in answer.err


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere.py", "There is no file or folder 'nowhere.py'"),
        ("nowhere/", "There is no file or folder 'nowhere/'"),
        ("nowhere.at_all", "There is no module 'nowhere.at_all'"),
        ("math", "Module 'math' has no source that can be read"),
    ],
)
def test_a_place_that_is_not_there_ends_with_2(
    perdure: Perdure, project: Path, place: str, message: str
) -> None:
    answer = perdure("check", place)

    assert answer.code == 2
    assert message in answer.err
    assert "hint: " in answer.err


def test_a_place_without_a_workflow_is_told(perdure: Perdure, project: Path) -> None:
    (project / "empty.py").write_text("")

    answer = perdure("check", "empty.py")

    assert answer.code == 0
    assert "There is no workflow here" in answer.err


def test_it_makes_no_store(perdure: Perdure, project: Path) -> None:
    perdure("check", ".")

    assert [path.name for path in project.iterdir()] == ["shop.py"]
