"""A folder with a small program, and two ways to run `perdure` in it: here, and in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perdure.faces.cli.main import app
from perdure.stores.sqlite import SqliteStore

SHOP = """
import asyncio
import os
from pathlib import Path

from perdure import NonRetryable, Retry, Signal, State, Update, step, step_info, workflow

approval = Signal[str]("approval")
status = State[str]("status")
double = Update[int, int]("double")


class Refused(NonRetryable):
    pass


class OutOfStock(Exception):
    pass


@step
async def add_one(n: int) -> int:
    return n + 1


@step(retry=Retry(attempts=3, delay=0.001))
async def stumble(n: int) -> int:
    if step_info().attempt < 3:
        raise ConnectionError("the bank does not answer")
    return n


@step(retry=Retry(attempts=2, delay=0.001))
async def reserve() -> str:
    if not Path("pears").exists():
        raise OutOfStock("no more pears")
    return "pears"


@step
async def hang(n: int) -> int:
    print(f"hangs {n}", flush=True)
    if not Path("go").exists():
        await asyncio.Event().wait()
    return n


@step
def hang_on_a_thread(n: int) -> int:
    import threading

    print("hangs", flush=True)
    threading.Event().wait()
    return n


@workflow
async def plus(n: int) -> int:
    if n < 0:
        raise Refused("less than nothing")
    return await add_one(n)


@workflow
async def stumbling(n: int) -> int:
    return await stumble(n)


@workflow
async def parking() -> str:
    return await reserve()


@step(worker="gpu")
async def render(n: int) -> int:
    print(f"renders {n}", flush=True)
    await asyncio.sleep(3600)
    return n


@workflow
async def filming(n: int) -> int:
    return await render(n)


@workflow
async def hanging(n: int) -> int:
    await add_one(n)
    return await hang(n)


@workflow
async def blocking(n: int) -> int:
    return await hang_on_a_thread(n)


@workflow
async def asking(n: int) -> str:
    status.set("asks")
    who = await approval.receive()
    status.set(f"approved by {who}")
    await plus(n)
    return who


@workflow
async def answering() -> str:
    async def answer(n: int) -> int:
        return 2 * n

    double.handle(answer)
    return await approval.receive()
"""


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Perdure = Callable[..., Answer]
Spawn = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the program, which is the working directory."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_STORE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    level = logging.getLogger("perdure").level
    known = set(sys.modules)
    yield tmp_path
    logging.getLogger("perdure").setLevel(level)
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def perdure(project: Path) -> Perdure:
    """Runs a command in this process."""

    def run(*arguments: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(app, arguments, input=stdin, prog_name="perdure")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def spawn(project: Path) -> Spawn:
    """Starts a command in a process of its own, which is killed if it still lives at the end."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def start(*arguments: str) -> Generator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "perdure", *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


@pytest.fixture
def hold(project: Path) -> Iterator[Callable[[int], None]]:
    """Gives leases on the store to so many more workers, who do nothing with them."""
    stores: list[SqliteStore] = []

    def acquire(count: int) -> None:
        for _ in range(count):
            stores.append(SqliteStore(project / "perdure.db"))
            stores[-1].acquire("idle", now_ms=0, ttl_ms=1 << 42)

    yield acquire
    for store in stores:
        store.close()


def next_line(process: subprocess.Popen[str], beginning: str, *, of: str = "stdout") -> str:
    """Read on to the line that begins so."""
    stream = process.stdout if of == "stdout" else process.stderr
    assert stream is not None
    for line in stream:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"the process ended with {process.wait()} before it wrote {beginning!r}")
