"""`perdure debug`: a replay under pdb, in a process of its own, as a person has it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faces.conftest import Perdure
from tests.journals.conftest import Version, begin

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
STORY = """
async def twice(order: str) -> str:
    first = await ship(order)
    return first.upper()

@workflow
async def story(order: str) -> str:
    total = 0
    got = await twice(order)
    total += len(got)
    both = await asyncio.gather(charge(order), twice(order))
    total += len(both)
    return await paid.receive()

@workflow
async def sad(order: str) -> str:
    got = await twice(order)
    raise ValueError(got)
"""


def debug(project: Path, commands: list[str], *arguments: str) -> str:
    """What pdb says to these commands, prompts taken out."""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    answer = subprocess.run(
        [sys.executable, "-m", "perdure", "debug", *arguments, "-m", "app"],
        input="\n".join(commands) + "\n",
        cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.replace("(perdure) ", "")


@pytest.fixture
def story(version: Version, project: Path) -> Path:
    begin(version(STORY), "a", "b")
    return project


def test_it_stops_at_the_first_line_of_the_workflow(story: Path) -> None:
    said = debug(story, ["p order", "q"], "story-a")

    assert said.splitlines()[0].endswith("story()")
    assert said.splitlines()[1:] == ["-> total = 0", "'a'"]


def test_next_goes_over_an_await_and_gives_what_was_recorded(story: Path) -> None:
    said = debug(story, ["n", "n", "p got", "n", "n", "p both, total", "q"], "story-a")

    lines = said.splitlines()
    assert '── record 0 of 3, +0 s: step 0/0/ship → "a shipped"' in lines
    assert "'A SHIPPED'" in lines
    assert "([Receipt(order='a', cents=100), 'A SHIPPED'], 9)" in lines
    places = [line for line in lines if line.startswith("-> ")]
    assert places == [
        "-> total = 0",
        "-> got = await twice(order)",
        "-> total += len(got)",
        "-> both = await asyncio.gather(charge(order), twice(order))",
        "-> total += len(both)",
    ]


def test_step_goes_into_the_users_code_and_out_again_and_never_into_the_library(story: Path) -> None:
    said = debug(story, ["s"] * 9 + ["q"], "story-a")

    places = [line for line in said.splitlines() if line.startswith("> ")]
    assert len(places) > 7
    assert all(f"{story / 'app.py'}(" in place for place in places)
    assert "<Future" not in said
    assert {place.rpartition(")")[0].rpartition(")")[2] for place in places} >= {"story(", "twice("}


@pytest.mark.parametrize("command", ["n", "r"])
def test_next_and_return_go_from_a_coroutine_to_the_one_that_awaits_it(story: Path, command: str) -> None:
    said = debug(story, [command, "p got", "q"], "story-a", "--at", "ship")

    places = [line for line in said.splitlines() if line.startswith("-> ")]
    assert places == ["-> return first.upper()", "-> total += len(got)"]
    assert "Internal StopIteration" not in said
    assert "'A SHIPPED'" in said


def test_it_stops_when_a_record_has_been_delivered(story: Path) -> None:
    by_name = debug(story, ["p first", "u", "p total", "q"], "story-a", "--at", "ship")
    by_seq = debug(story, ["q"], "story-a", "--at", "1")
    by_key = debug(story, ["q"], "story-a", "--at", "0.2/0/ship")

    assert "-> return first.upper()" in by_name
    assert "'a shipped'\n" in by_name
    assert by_name.splitlines()[-1] == "0"
    assert "── record 0" not in by_seq
    assert "── record 1 of 3" in by_seq
    assert "── record 1 of 3" not in by_key
    assert "-> return first.upper()" in by_key


def test_it_stands_at_the_end_where_the_run_waits(story: Path) -> None:
    said = debug(story, ["c", "p both[1], total", "tasks", "task 7", "q"], "story-a")

    end = said.partition("The journal ends here; the run waits:")[2]
    assert "-> return await paid.receive()" in end
    assert "('A SHIPPED', 11)" in end
    assert "task 0\n" in end
    assert "*** No task '7' waits. There are: 0." in end


def test_it_stands_where_each_branch_waits(version: Version, project: Path) -> None:
    code = """
    async def wait(name: str, signal: Signal[str]) -> str:
        return name + await signal.receive()

    @workflow
    async def branches(order: str) -> list[str]:
        return await asyncio.gather(wait("left", paid), wait("right", Signal[str]("other")))
    """
    begin(version(code), "a")

    said = debug(project, ["c", "w", "task 0.2", "p name", "q"], "a")

    assert all(f"  task {path}\n" in said for path in ("0", "0.1", "0.2"))
    assert "'right'" in said


def test_a_run_that_failed_is_looked_at_where_it_was_raised(story: Path) -> None:
    said = debug(story, ["c", "p got", "q"], "sad-a")

    assert "The run ends as failed: ValueError('A SHIPPED')" in said
    assert "-> raise ValueError(got)" in said
    assert said.endswith("'A SHIPPED'\n")


def test_a_run_that_completed_says_so(perdure: Perdure, version: Version, project: Path) -> None:
    begin(version("@workflow\nasync def ships(order: str) -> str:\n    return await ship(order)\n"), "a")

    said = debug(project, ["c"], "a")

    assert 'The run ends as completed: "a shipped"' in said


def test_code_that_has_changed_shows_where_it_parts_from_the_journal(story: Path, version: Version) -> None:
    version(
        STORY.replace("    got = await twice(order)", "    await notify(order)\n    got = await twice(order)")
    )

    said = debug(story, ["c", "p total", "q"], "story-a")

    assert "JournalMismatch: Run 'story-a' recorded step 'ship' at '0/0/ship'" in said
    assert "-> await notify(order)" in said
    assert said.endswith("0\n")


def test_no_step_runs_and_nothing_is_written(story: Path, version: Version) -> None:
    head = "async def ship(order: str) -> str:\n"
    code = STORY.replace("return await paid.receive()", "return await ship('never')")
    version(code, before=head, after=f"{head}    open('touched', 'w').close()\n")
    before = (story / "perdure.db").read_bytes()

    said = debug(story, ["c", "q"], "story-a")

    assert "no answer yet: 0/1/ship" in said
    assert not (story / "touched").exists()
    assert (story / "perdure.db").read_bytes() == before


def test_an_exported_file_is_debugged_without_a_store(perdure: Perdure, story: Path) -> None:
    perdure("export", "story-a", "--redact-all", "-o", "there.json")
    for path in story.glob("perdure.db*"):
        path.unlink()

    said = debug(story, ["c", "p both", "q"], "there.json")

    assert "[Receipt(order='REDACTED', cents=0), 'REDACTED']" in said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nobody",), 3, "There is no run 'nobody'"),
        (("story-a", "--at", "refund"), 2, "Run 'story-a' has no record 'refund': it has 3 records."),
        (("nowhere.json",), 2, "nowhere.json: there is no such file"),
    ],
    ids=["no run", "no record", "no file"],
)
def test_what_cannot_be_debugged_is_said(
    perdure: Perdure, story: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    answer = perdure("debug", *arguments, "-m", "app")

    assert answer.code == code
    assert says in answer.err


def test_a_module_without_the_workflow_is_said(perdure: Perdure, story: Path) -> None:
    answer = perdure("debug", "story-a", "-m", "shop")

    assert answer.code == 2
    assert "Run 'story-a' is of workflow 'story', and shop defines answering, asking" in answer.err


def test_it_talks_to_a_terminal(story: Path) -> None:
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "perdure", "debug", "story-a", "-m", "app"]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(command, cwd=story, env=environment, stdin=its, stdout=its, stderr=its) as process:
        try:
            said = read_to(ours, "(perdure) ")
            os.write(ours, b"n\n")
            said += read_to(ours, "(perdure) ")
            process.send_signal(signal.SIGINT)
            while not select.select([ours], [], [], 1)[0]:
                # readline has shown its prompt and did not wait yet: it hears of the first with the second.
                process.send_signal(signal.SIGINT)
            said += read_to(ours, "(perdure) ")
            os.write(ours, b"q\n")

            code = process.wait(10)
        finally:
            process.kill()  # else a failure would wait for it for ever

    os.close(its)
    os.close(ours)
    assert "-> total = 0" in said
    assert "-> got = await twice(order)" in said
    assert said.count("--KeyboardInterrupt--") == 1
    assert code == 0


def read_to(terminal: int, ending: str, *, seconds: float = 10) -> str:
    """What a terminal shows, up to and with the ending."""
    said, give_up_at = "", time.monotonic() + seconds
    while not said.endswith(ending):
        assert select.select([terminal], [], [], give_up_at - time.monotonic())[0], said
        said += os.read(terminal, 1024).decode()
    return said
