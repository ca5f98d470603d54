"""`perdure worker`: it takes up what was left, and stops when it is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.faces.conftest import Perdure, Spawn, next_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_worker_takes_up_what_was_started_and_stops_when_asked(
    perdure: Perdure, spawn: Spawn, number: signal.Signals, code: int
) -> None:
    perdure("start", "shop:hanging", "--input", "3", "--id", "one")

    with spawn("worker", "shop", "--grace", "0.1") as worker:
        next_line(worker, "Took up 1 run", of="stderr")
        next_line(worker, "hangs")
        worker.send_signal(number)
        _, err = worker.communicate()

    assert worker.returncode == code
    assert "Stopped. 1 run not ended: other workers, or the next, go on.\n" in err


def test_a_second_worker_joins_and_goes_on_with_the_runs_of_one_that_is_killed(
    perdure: Perdure, spawn: Spawn
) -> None:
    with spawn("worker", "shop") as first:
        next_line(first, "Took up", of="stderr")
        for number in range(4):
            perdure("start", "shop:hanging", "--input", str(number), "--id", str(number))
        begun = {next_line(first, "hangs") for _ in range(4)}
        with spawn("worker", "shop") as second:
            next_line(second, "Took up 0 runs", of="stderr")
            first.kill()

            resumed = {next_line(second, "hangs") for _ in range(4)}

    assert begun == resumed == {f"hangs {number}\n" for number in range(4)}


def test_a_fifth_worker_on_a_file_is_refused_with_code_5(
    perdure: Perdure, hold: Callable[[int], None]
) -> None:
    hold(4)

    answer = perdure("worker", "shop")

    assert answer.code == 5
    assert "has 4 workers already" in answer.err
    assert f"process {os.getpid()}" in answer.err
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


def test_a_worker_that_cannot_begin_ends_the_command_that_keeps_it(perdure: Perdure, spawn: Spawn) -> None:
    with spawn("worker", "not_there", "--processes", "2") as command:
        _, err = command.communicate(timeout=30)

    assert command.returncode not in (0, 130)
    assert "not_there" in err
    assert "takes its place" not in err


SLOW = """
import pathlib
from perdure import step, workflow

@step
def waits_for_a_file() -> None:
    print("waits", flush=True)
    pathlib.Path("go").read_bytes()

@workflow
async def slow() -> None:
    await waits_for_a_file()
"""


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_does_not_wait_for_ever_for_a_store_that_takes_nothing(
    perdure: Perdure, spawn: Spawn, project: Path
) -> None:
    (project / "slow.py").write_text(SLOW, encoding="utf-8")
    go = project / "go"
    os.mkfifo(go)  # who reads it waits for who writes
    perdure("start", "slow:slow", "--id", "one")

    with spawn("worker", "slow", "--grace", "0.1") as worker:
        next_line(worker, "waits")
        other = apsw.Connection(str(project / "perdure.db"))
        other.execute("BEGIN IMMEDIATE")
        go.write_bytes(b"")
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=60)
        other.close()

    assert worker.returncode == 5
    assert "The store did not take the last of it within 5.1 s." in err
    go.unlink()
    go.touch()
    assert perdure("run", "slow:slow", "--id", "one").code == 0


DELIVERIES = """
from dataclasses import dataclass
from perdure import Event, Stream

@dataclass
class Delivered:
    parcel: str

deliveries = Stream("deliveries", Delivered, key=lambda one: one.parcel)

@deliveries.on()
async def note(event: Event[Delivered]) -> None:
    print("noted", event.data.parcel, flush=True)
"""

DELIVER = """
import asyncio
from deliveries import Delivered, deliveries
from perdure import Client

async def main():
    async with Client() as client:
        await client.append(deliveries, Delivered("17"))

asyncio.run(main())
"""


def test_a_worker_handles_the_events_that_another_process_appends(spawn: Spawn, project: Path) -> None:
    (project / "deliveries.py").write_text(DELIVERIES, encoding="utf-8")
    (project / "deliver.py").write_text(DELIVER, encoding="utf-8")

    with spawn("worker", "deliveries") as worker:
        said = next_line(worker, "It handles", of="stderr")
        subprocess.run([sys.executable, "deliver.py"], cwd=project, check=True)

        noted = next_line(worker, "noted")

    assert said == "It handles the events of 1 subscription: deliveries/note.\n"
    assert noted == "noted 17\n"
