"""Workflow code that reaches for the world through Python's own modules is refused; all else is let be."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import weakref
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from perdure import BoundaryError, RunParked, Update, UpdateRefused, step, workflow
from perdure.runtime import guard
from perdure.testing import Harness

REFUSED: dict[str, Callable[[Path], object]] = {
    "open": lambda folder: open(folder / "new", "w"),  # noqa: SIM115
    "os.open": lambda folder: os.open(folder / "new", os.O_CREAT),
    "write_text": lambda folder: (folder / "new").write_text("x"),
    "iterdir": lambda folder: list(folder.iterdir()),
    "mkdir": lambda folder: (folder / "new").mkdir(),
    "remove": lambda folder: (folder / "old").unlink(),
    "rename": lambda folder: (folder / "old").rename(folder / "new"),
    "copy": lambda folder: shutil.copy(folder / "old", folder / "new"),
    "rmtree": shutil.rmtree,
    "mkdtemp": lambda folder: tempfile.mkdtemp(dir=folder),
    "socket": lambda folder: socket.socket(),
    "create_connection": lambda folder: socket.create_connection(("127.0.0.1", 1)),
    "urlopen": lambda folder: urlopen("http://127.0.0.1:1/"),
    "subprocess": lambda folder: subprocess.run(["touch", folder / "new"], check=True),
    "system": lambda folder: os.system(f"touch {folder / 'new'}"),
    "posix_spawn": lambda folder: os.posix_spawn("/bin/true", ["true"], {}),
    "fork": lambda folder: os.fork() or os._exit(0),
    "sqlite3": lambda folder: sqlite3.connect(folder / "new"),
}
if sys.version_info >= (3, 12):  # before, Python tells no audit hook of a thread
    REFUSED["thread"] = lambda folder: threading.Thread(target=print).start()

Act = Callable[[], object]
acts: dict[str, Act] = {}
"""What the workflow does next; a workflow's arguments are plain data."""


@workflow
async def reaches_out() -> str:
    acts["now"]()
    return "done"


@step
async def in_a_step(path: str) -> str:
    with open(path, "w", encoding="utf-8") as file:  # noqa: ASYNC230 (on the loop, as runs are)
        file.write("written")
    return path


@workflow
async def asks_a_step(path: str) -> str:
    return await in_a_step(path)


rename = Update[str, str]("rename")


async def take(name: str) -> str:
    return name


@workflow
async def takes_updates() -> None:
    acts["now"]()
    try:
        await asyncio.Event().wait()
    finally:
        acts["last"]()


@pytest.fixture(autouse=True)
def forget() -> None:
    acts.update(now=lambda: None, last=lambda: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file."""
    folder = tmp_path / "world"
    folder.mkdir()
    (folder / "old").touch()
    return folder


@pytest.mark.parametrize("name", REFUSED)
async def test_what_touches_the_world_is_refused_and_the_run_parks(
    harness: Harness, folder: Path, name: str
) -> None:
    acts["now"] = lambda: REFUSED[name](folder)

    with pytest.raises(RunParked) as parked:
        await harness.engine.run(reaches_out(), id="one")

    assert isinstance(parked.value.__cause__, BoundaryError)
    assert "Workflow code of run 'one' was about to" in str(parked.value.__cause__)
    assert "@step" in str(parked.value.__cause__)
    assert os.listdir(folder) == ["old"]


async def test_the_refusal_names_the_users_line_and_not_the_librarys(harness: Harness, folder: Path) -> None:
    def write_it_down() -> None:
        (folder / "new").write_text("x")

    acts["now"] = write_it_down

    with pytest.raises(RunParked) as parked:
        await harness.engine.run(reaches_out())

    line = write_it_down.__code__.co_firstlineno + 1
    assert f"open '{folder / 'new'}', at {__file__}:{line}, in write_it_down" in str(parked.value.__cause__)


async def test_a_command_line_is_not_shown_since_it_may_hold_a_secret(harness: Harness) -> None:
    acts["now"] = lambda: os.system("login --password hunter2")

    with pytest.raises(RunParked) as parked:
        await harness.engine.run(reaches_out())

    assert "hunter2" not in str(parked.value.__cause__)


async def test_code_that_catches_the_refusal_goes_on(harness: Harness, folder: Path) -> None:
    def try_it() -> None:
        with pytest.raises(BoundaryError):
            REFUSED["open"](folder)

    acts["now"] = try_it

    result = await harness.engine.run(reaches_out())

    assert result == "done"


async def test_an_updates_validator_is_refused_too(harness: Harness, folder: Path) -> None:
    def validate(name: str) -> None:
        (folder / name).read_text()

    acts["now"] = lambda: rename.handle(take, validate=validate)
    run = await harness.engine.start(takes_updates(), id="one")

    with pytest.raises(UpdateRefused, match="about to open a file"):
        await run.update(rename, "old")


async def test_a_dropped_runs_finally_block_is_refused(harness: Harness, folder: Path) -> None:
    acts["last"] = (folder / "new").touch
    await harness.engine.start(takes_updates(), id="one")
    await harness.settle()

    await harness.restart()

    assert os.listdir(folder) == ["old"]


def _import_anew() -> None:
    sys.modules.pop("colorsys", None)
    importlib.import_module("colorsys")


def _log_to_a_new_file(folder: Path) -> None:
    handler = logging.FileHandler(folder / "log", delay=True)
    log = logging.getLogger("tests.guard")
    log.addHandler(handler)
    try:
        raise ValueError("for its traceback")
    except ValueError:
        log.exception("it went wrong")
    finally:
        log.removeHandler(handler)
        handler.close()


def _collect_what_removes_a_file(folder: Path) -> None:
    class Circle:
        def __init__(self) -> None:
            self.me = self

    weakref.finalize(Circle(), (folder / "old").unlink)
    gc.collect()
    assert not (folder / "old").exists()


LET_BE: dict[str, Callable[[Path], object]] = {
    "an import": lambda folder: _import_anew(),
    "a time zone": lambda folder: zoneinfo.ZoneInfo.no_cache("Europe/Berlin"),
    "logging to a new file, with a traceback": _log_to_a_new_file,
    "a finaliser that the collector runs": _collect_what_removes_a_file,
    "print": lambda folder: sys.stdout.write("hello\n"),
    "a look at the path": lambda folder: (folder / "old").exists(),
}


@pytest.mark.parametrize("name", LET_BE)
async def test_what_decides_nothing_is_let_be(harness: Harness, folder: Path, name: str) -> None:
    acts["now"] = lambda: LET_BE[name](folder)

    result = await harness.engine.run(reaches_out())

    assert result == "done"


async def test_steps_and_other_code_of_the_process_are_let_be(harness: Harness, tmp_path: Path) -> None:
    path = await harness.engine.run(asks_a_step(str(tmp_path / "new")))

    assert path == str(tmp_path / "new")
    assert "new" in os.listdir(tmp_path)


def test_of_an_event_that_is_no_runs_it_is_asked_whether_one_is_on_this_thread_and_nothing_else() -> None:
    called: list[str] = []

    sys.setprofile(lambda frame, event, what: called.append(getattr(what, "__name__", frame.f_code.co_name)))
    guard._refuse("open", ("path", "r", 0))  # a hook is not traced
    guard._refuse("import", ("json",))
    sys.setprofile(None)

    within = [name for name in called if name not in ("_refuse", "setprofile")]
    assert within == ["get", "get"], "the first event asks for the run: a call, and its return"
