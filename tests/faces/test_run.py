"""`perdure run`: one run, its result or error, and what an interruption leaves."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests.faces.conftest import Perdure, Spawn, next_line


def test_the_result_is_json_on_stdout_and_nothing_else(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", "4", "--id", "one")

    assert (answer.code, answer.out) == (0, "5\n")


def test_the_id_of_a_run_that_was_given_none_is_told_on_stderr(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", "4")

    assert answer.err.startswith("run ")
    assert perdure("show", answer.err.split()[1]).code == 0


def test_with_json_the_result_comes_with_id_and_status(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", "4", "--id", "one", "--json")

    assert answer.json == {"id": "one", "status": "completed", "result": 5}


def test_the_input_may_come_from_a_file_or_from_stdin(perdure: Perdure, project: Path) -> None:
    (project / "input.json").write_text("7")

    from_file = perdure("run", "shop:plus", "--input", "@input.json")
    from_stdin = perdure("run", "shop:plus", "--input", "-", stdin="8")

    assert (from_file.out, from_stdin.out) == ("8\n", "9\n")


def test_a_workflow_is_found_by_the_path_of_its_file(perdure: Perdure, project: Path) -> None:
    (project / "inner").mkdir()
    (project / "shop.py").rename(project / "inner" / "shop2.py")

    answer = perdure("run", "inner/shop2.py:plus", "--input", "1")

    assert answer.out == "2\n"


def test_a_run_that_fails_is_told_with_a_hint_and_code_1(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", "-1", "--id", "one")

    assert answer.code == 1
    assert answer.out == ""
    message, gap, hint = answer.err.splitlines()
    assert (message, gap) == ("Run 'one' failed: Refused: less than nothing.", "")
    assert hint.startswith("hint: `perdure show one`")


def test_debug_shows_the_traceback_of_an_error(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", "-1", "--debug")

    assert 'raise Refused("less than nothing")' in answer.err


def test_a_run_that_parks_is_told_with_code_6_and_resumed_by_hand(perdure: Perdure, project: Path) -> None:
    parked = perdure("run", "shop:parking", "--id", "one")
    (project / "pears").touch()
    resumed = perdure("resume", "one")
    again = perdure("run", "shop:parking", "--id", "one")

    assert parked.code == 6
    assert "no more pears" in parked.err
    assert (resumed.code, again.code, again.out) == (0, 0, '"pears"\n')


def test_input_that_does_not_fit_names_the_place_and_starts_nothing(perdure: Perdure) -> None:
    answer = perdure("run", "shop:plus", "--input", '"four"')

    assert answer.code == 2
    assert "plus(n)" in answer.err
    assert perdure("list").code == 5


def test_an_id_that_belongs_to_another_input_is_refused(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "4", "--id", "one")

    answer = perdure("run", "shop:plus", "--input", "5", "--id", "one")

    assert answer.code == 4
    assert "other input" in answer.err


def test_an_id_may_be_used_again_when_that_is_asked_for(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "4", "--id", "one")

    answer = perdure("run", "shop:plus", "--input", "5", "--id", "one", "--reuse", "always")

    assert answer.out == "6\n"
    assert perdure("show", "one", "--json").json["run"]["generation"] == 2
    assert perdure("show", "one", "--generation", "1", "--json").json["result"] == 5


def test_ctrl_c_leaves_the_run_on_disk_and_says_the_command_that_goes_on(
    perdure: Perdure, spawn: Spawn, project: Path
) -> None:
    with spawn("run", "shop:hanging", "--input", "3", "--id", "one") as process:
        next_line(process, "hangs")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    (project / "go").touch()
    again = perdure("run", "shop:hanging", "--input", "3", "--id", "one")

    assert process.returncode == 130
    assert "Interrupted. 1 run is on disk and waits." in err
    assert "hint: Go on with: perdure run shop:hanging --input 3 --id one\n" in err
    assert "Traceback" not in err
    assert again.out.splitlines()[-1] == "3"


def test_after_ctrl_c_the_command_that_goes_on_names_the_id_that_was_made_up(spawn: Spawn) -> None:
    with spawn("run", "shop:hanging", "--input", "3") as process:
        run_id = next_line(process, "run ", of="stderr").split()[1]
        next_line(process, "hangs")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()

    assert process.returncode == 130
    assert f"--id {run_id}\n" in err


def test_ctrl_c_does_not_wait_for_a_step_on_a_thread(spawn: Spawn) -> None:
    with spawn("run", "shop:blocking", "--input", "3") as process:
        next_line(process, "hangs")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)

    assert process.returncode == 130


def test_after_kill_9_the_same_command_goes_on(perdure: Perdure, spawn: Spawn, project: Path) -> None:
    with spawn("run", "shop:hanging", "--input", "3", "--id", "one") as process:
        next_line(process, "hangs")
        process.kill()
        process.wait()
    (project / "go").touch()

    again = perdure("run", "shop:hanging", "--input", "3", "--id", "one")

    assert again.out.splitlines()[-1] == "3"
    assert "Goes on with 1 run that had not ended." in again.err
    steps = [entry["name"] for entry in perdure("show", "one", "--json").json["entries"]]
    assert steps == ["add_one", "hang"]


def test_beside_a_worker_the_command_runs_its_run_itself(
    perdure: Perdure, spawn: Spawn, project: Path
) -> None:
    (project / "go").touch()
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up", of="stderr")

        answer = perdure("run", "shop:hanging", "--input", "4", "--id", "one")

    assert answer.code == 0
    assert answer.out == "hangs 4\n4\n"
    assert answer.err == ""


def test_a_file_with_all_its_workers_is_given_the_run(
    perdure: Perdure, spawn: Spawn, hold: Callable[[int], None]
) -> None:
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up", of="stderr")
        hold(3)

        answer = perdure("run", "shop:plus", "--input", "4", "--json")

    assert answer.code == 0
    assert json.loads(answer.out)["result"] == 5
    assert f":{worker.pid}, idle, idle, idle), so it is started there" in answer.err
