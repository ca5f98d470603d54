"""`list`, `show`, `doctor`: what people and programs see of runs."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.faces.conftest import Perdure, Spawn, next_line


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("show", "x"),
        ("state", "x"),
        ("doctor",),
        ("cancel", "x"),
        ("resume", "--all"),
        ("send", "x", "s"),
    ],
    ids=" ".join,
)
def test_a_command_that_starts_nothing_makes_no_store(
    perdure: Perdure, project: Path, command: tuple[str, ...]
) -> None:
    answer = perdure(*command)

    assert answer.code == 5
    assert "There is no store at 'sqlite:///perdure.db'" in answer.err
    assert "hint: " in answer.err
    assert [path.name for path in project.iterdir()] == ["shop.py"]


def test_a_store_that_may_not_even_be_looked_for_is_trouble_with_the_store(perdure: Perdure) -> None:
    answer = perdure("list", "--store", "long" * 100)

    assert answer.code == 5
    assert "cannot be opened" in answer.err
    assert "hint: Check that its directory exists and that this user may read and write there." in answer.err


def test_the_store_may_be_a_path_or_come_from_the_environment(
    perdure: Perdure, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one", "--store", "other.db")
    monkeypatch.setenv("PERDURE_STORE", "sqlite:///other.db")

    answer = perdure("show", "one")

    assert answer.code == 0
    assert not (project / "perdure.db").exists()


def test_runs_are_listed_newest_first_with_status_word_and_error(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "well")
    perdure("run", "shop:plus", "--input", "-1", "--id", "ill")

    head, first, second = perdure("list").out.splitlines()

    assert head.split() == ["ID", "WORKFLOW", "STATUS", "AGE", "TOOK", "ERROR"]
    assert first.split()[:3] == ["ill", "plus", "failed"]
    assert first.rstrip().endswith("Refused: less than nothing")
    assert second.split()[:3] == ["well", "plus", "completed"]


def test_filters_narrow_the_list(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "a-1", "--tag", "team=red")
    perdure("run", "shop:plus", "--input", "-1", "--id", "a-2")
    perdure("run", "shop:stumbling", "--input", "1", "--id", "b-1")

    def ids(*filters: str) -> list[str]:
        return [row["id"] for row in perdure("list", "--json", *filters).lines]

    assert ids() == ["b-1", "a-2", "a-1"]
    assert ids("--workflow", "plus") == ["a-2", "a-1"]
    assert ids("--status", "failed") == ["a-2"]
    assert ids("--tag", "team=red") == ["a-1"]
    assert ids("--prefix", "a-") == ["a-2", "a-1"]
    assert ids("--since", "1h") == ["b-1", "a-2", "a-1"]
    assert ids("--before", "2001-01-01") == []


def test_a_long_list_is_read_page_by_page(perdure: Perdure) -> None:
    for number in range(3):
        perdure("run", "shop:plus", "--input", "1", "--id", f"run-{number}")

    first = perdure("list", "--json", "--limit", "2")
    second = perdure("list", "--json", "--limit", "2", *first.err.split()[-2:])

    assert [row["id"] for row in first.lines + second.lines] == ["run-2", "run-1", "run-0"]
    assert second.err == ""


@pytest.mark.parametrize(
    "wrong", [("--status", "asleep"), ("--since", "soon"), ("--tag", "red")], ids=" ".join
)
def test_a_filter_that_means_nothing_is_wrong_input(perdure: Perdure, wrong: tuple[str, str]) -> None:
    perdure("run", "shop:plus", "--input", "1")

    answer = perdure("list", *wrong)

    assert answer.code == 2
    assert "hint: " in answer.err


def test_a_timeline_tells_signals_children_and_state_in_order(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    perdure("start", "shop:asking", "--input", "1", "--id", "one", "--tag", "team=red")
    perdure("send", "one", "approval", '"ann"')
    perdure("run", "shop:asking", "--input", "1", "--id", "one")

    text = perdure("show", "one").out

    in_order = [
        "one  asking  completed", "created", "ended", "tags", "team=red", "input", '{"n":1}', "result",
        "start", 'signal     approval  "ann"', "child", "plus → 2  (one/0/0/plus)", "end", "completed",
        "children  one/0/0/plus  plus  completed", 'state     status = "approved by ann"',
    ]  # fmt: skip
    position = 0
    for words in in_order:
        assert words in text[position:], f"{words!r} is not where it should be in:\n{text}"
        position = text.index(words, position) + len(words)


def test_failed_attempts_stand_before_the_step_with_its_number_of_attempts(perdure: Perdure) -> None:
    perdure("run", "shop:stumbling", "--input", "1", "--id", "one")

    text = " ".join(perdure("show", "one").out.split())  # a narrow terminal breaks lines
    entries = perdure("show", "one", "--json").json["entries"]

    assert "stumble, attempt 1 failed: ConnectionError: the bank does not answer" in text
    assert "stumble → 1 (attempt 3, " in text
    assert [(entry["kind"], entry["attempt"]) for entry in entries] == [
        ("attempt failed", 1),
        ("attempt failed", 2),
        ("step", 3),
    ]
    assert entries[2]["value"] == 1


def test_a_parked_run_shows_why_where_and_how_it_goes_on(perdure: Perdure) -> None:
    perdure("run", "shop:parking", "--id", "one")

    text = perdure("show", "one").out

    assert "one  parking  parked" in text
    assert "waits for  a person" in text
    assert 'raise OutOfStock("no more pears")' in text
    assert text.endswith("perdure resume one\n")


def test_a_run_that_waits_says_for_what(perdure: Perdure) -> None:
    perdure("start", "shop:asking", "--input", "1", "--id", "one")
    perdure("send", "one", "approval", '"ann"')

    text = perdure("show", "one").out

    assert "waits for  a worker: it has work to do" in text
    assert "its worker, to take a message: signal approval" in text
    assert "(no worker is running on this store)" in text


def test_a_step_that_waits_for_a_worker_with_a_tag_is_named_by_show_and_doctor(
    perdure: Perdure, spawn: Spawn
) -> None:
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up", of="stderr")
        perdure("start", "shop:filming", "--input", "7", "--id", "one")
        while not (doctor := perdure("doctor", "--json").json)["health"]["unserved"]:
            pass
        page, report = perdure("show", "one").out, perdure("doctor").out
        with spawn("worker", "shop", "--tag", "gpu", "--tag", "big") as tagged:
            said = next_line(tagged, "It also runs", of="stderr")
            next_line(tagged, "renders 7")
            at_work, workers = perdure("show", "one").out, perdure("doctor").out

    assert doctor["health"]["unserved"] == {"gpu": 1}
    waiting, running = " ".join(page.split()), " ".join(at_work.split())  # the terminal may be narrow
    assert (
        "waits for step render, attempt 1, which waits for a worker with tag gpu (there is none)" in waiting
    )
    assert "Steps that wait for a worker with a tag that none has:\n  gpu: 1 step\n" in report
    assert said == "It also runs the steps of any run that ask for a worker with: gpu, big.\n"
    assert "waits for step render, attempt 1, at worker " in running
    assert ", tags big, gpu\n" in workers


def test_only_the_last_entries_of_a_long_journal_are_shown(perdure: Perdure) -> None:
    perdure("run", "shop:stumbling", "--input", "1", "--id", "one")

    text = perdure("show", "one", "--last", "1").out

    assert "Earlier entries left out: 2. --all shows them." in text
    assert "attempt 1 failed" not in text
    assert "stumble → 1" in text


def test_a_page_is_never_wider_than_the_terminal(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    perdure("run", "shop:parking", "--id", "a-rather-long-id-" * 3)
    perdure("run", "shop:stumbling", "--input", "1", "--id", "one")
    from perdure.faces.cli.output import console

    monkeypatch.setattr(console(), "width", 80)

    pages = [perdure("show", "one"), perdure("show", "a-rather-long-id-" * 3), perdure("list")]

    assert [line for page in pages for line in page.out.splitlines() if len(line) > 80] == []


def test_doctor_tells_versions_counts_and_what_is_parked_and_why(perdure: Perdure) -> None:
    perdure("run", "shop:parking", "--id", "one")
    perdure("run", "shop:plus", "--input", "1")

    answer = perdure("doctor")
    report = perdure("doctor", "--json").json

    assert answer.code == 0
    assert "one (parking): OutOfStock: no more pears\n    perdure resume one\n" in answer.out
    assert "integrity     all is well" in answer.out
    assert "worker        none is running" in answer.out
    assert report["health"]["counts"] == {"parked": 1, "completed": 1}
    assert report["health"]["versions"]["sqlite"] == apsw.sqlite_lib_version()


def test_doctor_finds_open_runs_whose_workflow_a_module_does_not_define(
    perdure: Perdure, project: Path
) -> None:
    (project / "empty.py").touch()
    perdure("start", "shop:asking", "--input", "1")

    with_it, without = perdure("doctor", "--module", "shop"), perdure("doctor", "--module", "empty")

    assert "The modules define the workflows of all open runs." in with_it.out
    assert "  asking: 1 run\n" in without.out


def test_doctor_ends_with_code_5_when_the_store_is_not_well(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one")
    connection = apsw.Connection("perdure.db")
    connection.execute("UPDATE record SET seq = seq + 5")
    connection.close()

    answer = perdure("doctor")

    assert answer.code == 5
    assert "integrity     2 things wrong\n  Run 1 has 1 records" in answer.out


def test_a_file_that_is_no_store_is_told_and_left_as_it_was(perdure: Perdure, project: Path) -> None:
    (project / "perdure.db").write_text("dear diary" * 1000)

    answer = perdure("list")

    assert answer.code == 5
    assert (project / "perdure.db").read_text() == "dear diary" * 1000
    assert {path.name for path in project.iterdir()} == {"shop.py", "perdure.db"}
