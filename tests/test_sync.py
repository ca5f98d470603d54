"""The blocking engine: from threads, web apps and scripts, and where it refuses to block."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from perdure import (
    BoundaryError,
    PerdureError,
    Retry,
    RunCancelled,
    RunClosed,
    RunFailed,
    RunNotFound,
    RunParked,
    RunStatus,
    RunTerminated,
    Signal,
    State,
    StoreError,
    StoreInUse,
    Update,
    UpdateRefused,
    step,
    sync,
    workflow,
)

PATIENCE_S = 20

approval = Signal[str]("approval")
progress = State[int]("progress")
rename = Update[str, str]("rename")


@step
def double(number: int) -> int:
    return number * 2


@workflow
async def doubles(number: int) -> int:
    return await double(number)


@workflow
async def waits_for_approval(number: int) -> str:
    progress.set(1)
    who = await approval.receive()
    progress.set(2)
    return f"{await double(number)} approved by {who}"


def refuse_empty(name: str) -> None:
    if not name:
        raise ValueError("a name has letters")


@workflow
async def can_be_renamed() -> str:
    names = list[str]()

    async def take(name: str) -> str:
        names.append(name)
        return name.upper()

    rename.handle(take, validate=refuse_empty)
    await approval.receive()
    return " ".join(names)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def engine(url: str) -> Iterator[sync.Engine]:
    with sync.Engine(url) as engine:
        yield engine


def test_a_run_is_started_signalled_and_awaited_without_asyncio(engine: sync.Engine) -> None:
    run = engine.start(waits_for_approval(4), id="run-1")
    run.send(approval, "ann")

    assert run.result(PATIENCE_S) == "8 approved by ann"
    assert run.state(progress) == 2
    assert run.status() is RunStatus.COMPLETED


def test_run_starts_and_waits(engine: sync.Engine) -> None:
    assert engine.run(doubles(21)) == 42


def test_runs_are_found_and_listed(engine: sync.Engine) -> None:
    engine.run(doubles(1), id="a-1", tags={"shop": "north"})
    engine.run(doubles(2), id="b-2")

    page = engine.list(tags={"shop": "north"})

    assert [run.id for run in page.runs] == ["a-1"]
    assert engine.get("b-2", doubles).result() == 4
    assert engine.info("a-1").workflow == "doubles"
    with pytest.raises(RunNotFound):
        engine.get("c-3")


def test_an_update_is_answered_or_refused(engine: sync.Engine) -> None:
    run = engine.start(can_be_renamed(), id="run-1")

    answers = [run.update(rename, "ann"), engine.update("run-1", rename, "bob")]
    with pytest.raises(UpdateRefused):
        run.update(rename, "")
    engine.send("run-1", approval, "done")

    assert answers == ["ANN", "BOB"]
    assert run.result(PATIENCE_S) == "ann bob"


def test_watch_gives_values_until_the_run_ends(engine: sync.Engine) -> None:
    run = engine.start(waits_for_approval(1))
    values = run.watch(progress)

    first = next(values)
    run.send(approval, "ann")
    rest = list(values)

    assert (first, rest) == (1, [2])


def test_cancel_terminate_and_resume_reach_the_run(engine: sync.Engine) -> None:
    cancelled = engine.start(waits_for_approval(1), id="cancelled")
    terminated = engine.start(waits_for_approval(2), id="terminated")

    cancelled.cancel("no longer needed")
    engine.terminate("terminated", "no longer needed")

    with pytest.raises(RunCancelled):
        cancelled.result(PATIENCE_S)
    with pytest.raises(RunTerminated):
        terminated.result(PATIENCE_S)
    with pytest.raises(RunClosed):
        terminated.resume()


def test_a_parked_run_is_resumed(engine: sync.Engine) -> None:
    is_mended = threading.Event()

    @step(retry=Retry(attempts=1))
    def breaks_at_first() -> str:
        if not is_mended.is_set():
            raise ValueError("broken")
        return "mended"

    @workflow
    async def parks_at_first() -> str:
        return await breaks_at_first()

    run = engine.start(parks_at_first())
    with pytest.raises(RunParked):
        run.result(PATIENCE_S)
    is_mended.set()
    run.resume()

    assert run.result(PATIENCE_S) == "mended"


def test_a_result_that_does_not_come_in_time_leaves_the_run_alone(engine: sync.Engine) -> None:
    run = engine.start(waits_for_approval(4), id="run-1")

    with pytest.raises(TimeoutError, match="'run-1'"):
        run.result(timeout=0.01)
    run.send(approval, "ann")

    assert run.result(PATIENCE_S) == "8 approved by ann"


def test_many_threads_use_one_engine(engine: sync.Engine) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda number: engine.run(doubles(number)), range(200)))

    assert results == [number * 2 for number in range(200)]


def test_a_web_app_uses_one_engine_for_all_its_requests(engine: sync.Engine) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        action, number = environ["PATH_INFO"].strip("/").split("/")
        if action == "start":
            answer: Any = engine.start(waits_for_approval(int(number)), id=number).id
        elif action == "approve":
            answer = engine.send(number, approval, "the web")
        else:
            answer = engine.get(number, waits_for_approval).result(PATIENCE_S)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{path}") as answer:
                return json.load(answer)

        try:
            answers = [[ask(f"{action}/{n}") for action in ("start", "approve", "result")] for n in range(3)]
        finally:
            server.shutdown()
            serving.join()

    assert answers == [[str(n), None, f"{n * 2} approved by the web"] for n in range(3)]


def test_a_client_in_another_thread_reaches_the_engines_runs(engine: sync.Engine, url: str) -> None:
    with sync.Client(url) as client:
        run = client.start(waits_for_approval(3))
        run.send(approval, "ann")

        assert run.result(PATIENCE_S) == "6 approved by ann"


def test_a_step_may_use_the_engine_that_runs_it(engine: sync.Engine) -> None:
    @step
    def starts_another(number: int) -> int:
        return engine.run(doubles(number))

    @workflow
    async def starts_another_by_a_step() -> int:
        return await starts_another(8)

    assert engine.run(starts_another_by_a_step()) == 16


# -- open and closed -----------------------------------------------------------------------------


def test_an_engine_is_opened_and_closed_by_hand_and_again(url: str) -> None:
    engine = sync.Engine(url)
    engine.open()
    engine.run(doubles(1), id="run-1")
    engine.close()
    engine.close()
    engine.open()

    found = engine.get("run-1", doubles).result(PATIENCE_S)
    engine.close()

    assert found == 2


def test_an_engine_that_is_not_open_says_so(url: str) -> None:
    engine = sync.Engine(url)

    with pytest.raises(PerdureError, match=r"start\(\): this Engine is not open"):
        engine.start(doubles(1))


def test_an_engine_is_not_opened_twice(engine: sync.Engine) -> None:
    with pytest.raises(PerdureError, match="open already"):
        engine.open()


def test_what_opening_raises_is_raised_and_it_may_be_tried_again(url: str) -> None:
    fifth = sync.Engine(url)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(sync.Engine(url))
        with pytest.raises(StoreInUse):
            fifth.open()

    with fifth:
        assert fifth.run(doubles(2)) == 4


def test_closing_wakes_who_waits_in_other_threads(url: str) -> None:
    engine = sync.Engine(url).open()
    run = engine.start(waits_for_approval(1))
    watching = run.watch(progress)
    assert next(watching) == 1

    with ThreadPoolExecutor(2) as threads:
        waits = threads.submit(run.result)
        watches = threads.submit(next, watching)
        with pytest.raises(TimeoutError):
            waits.result(0.05)
        engine.close()

        with pytest.raises(StoreError, match="closed"):
            waits.result(PATIENCE_S)
        with pytest.raises(PerdureError):
            watches.result(PATIENCE_S)


# -- where it may not block ----------------------------------------------------------------------


def test_it_refuses_to_block_a_running_event_loop(engine: sync.Engine) -> None:
    async def blocks_its_loop() -> None:
        engine.run(doubles(1))

    with pytest.raises(PerdureError, match="would block the event loop") as caught:
        asyncio.run(blocks_its_loop())
    assert "asyncio.to_thread" in caught.value.hint


def test_it_refuses_to_block_workflow_code(engine: sync.Engine) -> None:
    @workflow
    async def blocks() -> None:
        engine.run(doubles(1))

    with pytest.raises(RunFailed, match="may not block") as caught:
        engine.run(blocks())
    assert isinstance(caught.value.__cause__, BoundaryError)


# -- programs ------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from perdure import Signal, step, sync, workflow

never = Signal[str]("never")

@workflow
async def waits_for_ever() -> str:
    return await never.receive()

@workflow
async def answers() -> int:
    return 42
"""


def program(text: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + text],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_ends_the_wait_and_closes_the_engine(tmp_path: Path) -> None:
    text = """
try:
    with sync.Engine("sqlite:///runs.db") as engine:
        run = engine.start(waits_for_ever(), id="run-1")
        print("waiting", flush=True)
        run.result()
except KeyboardInterrupt:
    with sync.Engine("sqlite:///runs.db") as engine:
        print(engine.info("run-1").status.value, flush=True)
"""
    with program(text, tmp_path) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()

        waiting.send_signal(signal.SIGINT)
        output, errors = waiting.communicate(timeout=PATIENCE_S)

    assert (output, errors, waiting.returncode) == ("running\n", "", 0)


def test_an_engine_that_is_never_closed_is_closed_when_the_program_ends(tmp_path: Path) -> None:
    text = """
engine = sync.Engine("sqlite:///runs.db").open()
engine.start(waits_for_ever(), id="run-1")
close = engine.close
engine.close = lambda: (close(), print("closed"))
"""
    with program(text, tmp_path) as ending:
        output, errors = ending.communicate(timeout=PATIENCE_S)

    assert (output, errors, ending.returncode) == ("closed\n", "", 0)


def test_a_fork_may_not_use_the_engine_and_does_not_close_it(tmp_path: Path) -> None:
    text = """
import warnings
warnings.simplefilter("ignore")  # of Python itself, since 3.12: a fork of a program with threads
with sync.Engine("sqlite:///runs.db") as engine:
    child = os.fork()
    if child == 0:
        try:
            engine.run(answers())
        except Exception as error:
            print(error, flush=True)
    else:
        os.waitpid(child, 0)
        print(engine.run(answers()), flush=True)
"""
    with program(text, tmp_path) as forking:
        output, errors = forking.communicate(timeout=PATIENCE_S)

    said, result = output.splitlines()
    assert "a fork does not copy its threads" in said
    assert "Open it after the fork" in said
    assert (result, errors, forking.returncode) == ("42", "", 0)


def test_importing_perdure_does_not_load_it() -> None:
    text = "import sys, perdure; print('perdure.sync' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    assert answer.stdout == "False\n"


def test_a_client_and_an_engine_show_their_url_without_its_password() -> None:
    url = "postgresql://shop:secret@db.example/shop"

    assert sync.Client(url).url == sync.Engine(url).url == "postgresql://shop@db.example/shop"
