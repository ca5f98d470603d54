"""`perdure worker`: it takes up what was left, and stops when it is asked."""

from __future__ import annotations

import signal

import pytest

from tests.faces.conftest import Perdure, Spawn, next_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_worker_takes_up_what_was_started_and_stops_when_asked(
    perdure: Perdure, spawn: Spawn, number: signal.Signals, code: int
) -> None:
    perdure("start", "shop:hanging", "--input", "3", "--id", "one")

    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up 1 run", of="stderr")
        next_line(worker, "hangs")
        worker.send_signal(number)
        _, err = worker.communicate()

    assert worker.returncode == code
    assert "Stopped. 1 run not ended: the next worker goes on.\n" in err


def test_a_second_worker_on_a_store_is_refused_with_code_5(perdure: Perdure, spawn: Spawn) -> None:
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up", of="stderr")

        answer = perdure("worker", "shop")

    assert answer.code == 5
    assert f"process {worker.pid}" in answer.err
    assert "hint: " in answer.err


def test_a_worker_says_which_runs_it_cannot_serve(perdure: Perdure, spawn: Spawn) -> None:
    perdure("start", "shop:plus", "--input", "3", "--id", "one")

    with spawn("worker", "json") as worker:
        said = next_line(worker, "Runs of workflows that none", of="stderr")

    assert said.endswith("wait: plus.\n")


def test_a_command_knows_whether_a_worker_is_alive_even_after_kill_9(perdure: Perdure, spawn: Spawn) -> None:
    perdure("start", "shop:asking", "--input", "3", "--id", "one")
    with spawn("worker", "shop") as worker:
        next_line(worker, "Took up", of="stderr")
        while_alive = perdure("send", "one", "other", "1")
        worker.kill()
        worker.wait()

    after = perdure("send", "one", "other", "2")

    assert while_alive.err == "Signal other is on disk.\n"
    assert after.err == (
        "Signal other is on disk. No worker is running on this store; it takes effect when one starts.\n"
    )
