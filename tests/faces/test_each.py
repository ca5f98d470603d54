"""`perdure run --each`: a run for each line, which the same command takes up again."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faces.conftest import Perdure, Spawn, next_line


def test_each_line_is_a_run_whose_id_is_the_file_and_the_line(perdure: Perdure, project: Path) -> None:
    (project / "rows.jsonl").write_text("1\n\n3\n")

    answer = perdure("run", "shop:plus", "--each", "rows.jsonl", "--json")

    assert answer.code == 0
    assert sorted(answer.lines, key=lambda row: row["line"]) == [
        {"line": 1, "id": "rows-1", "status": "completed", "result": 2},
        {"line": 3, "id": "rows-3", "status": "completed", "result": 4},
    ]
    assert answer.err == "2 completed.\n"


def test_the_id_may_be_a_field_of_the_line(perdure: Perdure, project: Path) -> None:
    (project / "rows.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"m": 3}\n')

    answer = perdure("run", "shop:plus", "--each", "rows.jsonl", "--id-field", "n", "--json")

    assert "line 3: it has no field 'n'" in answer.err
    assert {row["id"] for row in answer.lines} == {"1", "2", None}


def test_a_bad_line_and_a_failed_run_are_told_and_the_others_go_on(perdure: Perdure, project: Path) -> None:
    (project / "rows.jsonl").write_text('1\n"two"\n-3\n4\n')

    answer = perdure("run", "shop:plus", "--each", "rows.jsonl")

    assert answer.code == 1
    assert "line 2: plus(n): Expected `int`, got `str`." in answer.err
    assert "line 3: Run 'rows-3' failed: Refused: less than nothing." in answer.err
    assert answer.err.endswith("2 completed, 1 failed, 1 bad line.\n")


def test_lines_that_park_end_with_code_6(perdure: Perdure, project: Path) -> None:
    (project / "rows.jsonl").write_text("{}\n")

    answer = perdure("run", "shop:parking", "--each", "rows.jsonl")

    assert answer.code == 6
    assert "`perdure resume --all`" in answer.err


def test_lines_may_come_from_stdin(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--each", "-", "--json", stdin="1\n")

    assert answer.json == {"line": 1, "id": "stdin-1", "status": "completed", "result": 2}


def test_a_file_that_is_missing_is_wrong_input(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--each", "rows.jsonl")

    assert answer.code == 2
    assert "There is no file 'rows.jsonl'." in answer.err


def test_ctrl_c_leaves_all_on_disk_and_the_same_command_goes_on(
    perdure: Perdure, spawn: Spawn, project: Path
) -> None:
    (project / "rows.jsonl").write_text("1\n2\n3\n")
    arguments = ("run", "shop:hanging", "--each", "rows.jsonl", "--concurrency", "2")

    with spawn(*arguments) as process:
        next_line(process, "hangs")
        next_line(process, "hangs")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    (project / "go").touch()
    again = perdure(*arguments)

    assert process.returncode == 130
    assert "Interrupted. 2 runs are on disk and wait; 0 completed." in err
    assert "hint: Go on with: perdure run shop:hanging --each rows.jsonl --concurrency 2\n" in err
    assert again.code == 0
    assert again.err.endswith("3 completed.\n")
    entries = perdure("show", "rows-1", "--json").json["entries"]
    assert [entry["name"] for entry in entries] == ["add_one", "hang"]
