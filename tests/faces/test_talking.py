"""`send`, `update`, `cancel`, `terminate`, `resume`, `state`: what is said to runs, and what they say."""

from __future__ import annotations

import pytest

from tests.faces.conftest import Perdure, Spawn, next_line


@pytest.fixture
def asking(perdure: Perdure) -> str:
    """A run that waits for a signal, on a store that no worker serves."""
    perdure("start", "shop:asking", "--input", "1", "--id", "one")
    return "one"


def test_a_signal_is_received_and_the_state_read(perdure: Perdure, asking: str) -> None:
    sent = perdure("send", asking, "approval", '"ann"', "--json")

    result = perdure("run", "shop:asking", "--input", "1", "--id", asking)
    one, all = perdure("state", asking, "status"), perdure("state", asking)

    assert sent.json == {"id": asking, "workers": []}
    assert result.out == '"ann"\n'
    assert (one.json, all.json) == ("approved by ann", {"status": "approved by ann"})


def test_a_state_that_was_not_published_is_told_with_those_that_were(perdure: Perdure, asking: str) -> None:
    answer = perdure("state", asking, "stage")

    assert answer.code == 2
    assert "has not published 'stage'" in answer.err


def test_a_value_that_is_no_json_is_refused_with_a_hint(perdure: Perdure, asking: str) -> None:
    answer = perdure("send", asking, "approval", "ann")

    assert answer.code == 2
    assert "hint: Text needs its own quotes" in answer.err


def test_an_update_is_answered_by_the_worker(perdure: Perdure, spawn: Spawn) -> None:
    perdure("start", "shop:answering", "--id", "one")
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up 1 run", of="stderr")

        answer = perdure("update", "one", "double", "21")
        refused = perdure("update", "one", "treble", "21")

    assert answer.out == "42\n"
    assert refused.code == 4


def test_a_cancelled_run_ends_with_its_reason_and_cannot_be_cancelled_again(
    perdure: Perdure, asking: str
) -> None:
    perdure("cancel", asking, "--reason", "not wanted")

    ended = perdure("run", "shop:asking", "--input", "1", "--id", asking)
    again = perdure("cancel", asking)

    assert ended.code == 1
    assert "was cancelled" in ended.err
    assert "not wanted" in perdure("show", asking).out
    assert (again.code, "has ended (cancelled)" in again.err) == (4, True)


def test_a_terminated_run_ends_at_once(perdure: Perdure, asking: str) -> None:
    perdure("terminate", asking)

    ended = perdure("run", "shop:asking", "--input", "1", "--id", asking, "--json")

    assert (ended.code, ended.json["status"]) == (1, "terminated")


def test_all_parked_runs_are_resumed_by_one_command(perdure: Perdure) -> None:
    for run_id in ("one", "two"):
        perdure("run", "shop:parking", "--id", run_id)

    answer = perdure("resume", "--all", "--json")

    assert answer.json == {"resumed": 2, "workers": []}
    assert "2 resumes on disk." in answer.err


def test_a_run_that_is_not_parked_is_not_resumed(perdure: Perdure, asking: str) -> None:
    answer = perdure("resume", asking)

    assert answer.code == 4
    assert "it is running" in answer.err


@pytest.mark.parametrize(
    "command",
    [("show",), ("state",), ("cancel",), ("terminate",), ("resume",), ("send", "approval")],
    ids=" ".join,
)
def test_an_unknown_run_is_told_with_code_3(perdure: Perdure, asking: str, command: tuple[str, ...]) -> None:
    verb, *rest = command

    answer = perdure(verb, "two", *rest)

    assert answer.code == 3
    assert "No run 'two' in sqlite:///perdure.db." in answer.err
