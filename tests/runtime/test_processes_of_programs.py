"""Whole programs that use process steps: how they are started, interrupted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .processes import has_ended

PARTS = """
    import asyncio, os, subprocess, sys
    from perdure import Engine, Retry, step, workflow

    class Tired(Exception):
        pass

    @step(on="process", retry=Retry(attempts=1))
    def double(number: int) -> int:
        if number < 0:
            raise Tired("not below zero")
        return number * 2

    @step(on="process")
    def hang() -> None:
        sleeper = subprocess.Popen(["sleep", "600"])
        print(os.getpid(), sleeper.pid, flush=True)
        while True:
            pass

    @workflow
    async def doubles(number: int) -> str:
        try:
            return str(await double(number))
        except Tired as error:
            return f"tired: {error}"

    @workflow
    async def hangs() -> None:
        await hang()

    async def main() -> None:
        async with Engine("sqlite:///runs.db") as engine:
            for argument in sys.argv[1:]:
                print(await engine.run(hangs() if argument == "hang" else doubles(int(argument))), flush=True)
"""
GUARD = """
    if __name__ == "__main__":
        asyncio.run(main())
"""


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = "".join(texts).splitlines()
    path.write_text("\n".join(line.removeprefix("    ") for line in lines), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_script_with_a_guard_runs_its_own_steps(tmp_path: Path) -> None:
    write(tmp_path / "script.py", PARTS, GUARD)

    answer = run(["script.py", "21", "-1"], tmp_path)

    assert (answer.stdout, answer.stderr) == ("42\ntired: not below zero\n", "")


def test_a_module_started_by_name_runs_its_own_steps(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "work.py", PARTS, GUARD)

    answer = run(["-m", "shop.work", "21", "-1"], tmp_path)

    assert (answer.stdout, answer.stderr) == ("42\ntired: not below zero\n", "")


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    write(tmp_path / "script.py", PARTS, "\n    asyncio.run(main())\n")

    answer = run(["script.py", "21"], tmp_path)

    assert answer.returncode == 1
    assert 'under `if __name__ == "__main__":`' in answer.stderr
    assert "opened an engine there" in answer.stderr


def test_a_script_needs_no_guard_when_its_steps_are_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "parts.py", PARTS)
    write(tmp_path / "script.py", "    import asyncio, parts\n    asyncio.run(parts.main())\n")

    answer = run(["script.py", "21"], tmp_path)

    assert (answer.stdout, answer.stderr) == ("42\n", "")


def test_a_step_that_cannot_be_found_is_named(tmp_path: Path) -> None:
    # Of a package's __main__.py nothing can be imported without running it.
    write(tmp_path / "shop" / "__main__.py", PARTS, GUARD)

    answer = run(["-m", "shop", "21"], tmp_path)

    assert answer.returncode == 1
    assert "finds no function 'double' in module '__main__'" in answer.stderr


def test_nothing_is_started_or_imported_before_the_first_process_step(tmp_path: Path) -> None:
    look = """
    @step
    async def look() -> str:
        children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read()
        return f"{'multiprocessing' in sys.modules} {children.split()}"

    @workflow
    async def looks() -> str:
        return await look()

    if __name__ == "__main__":
        print(looks.name)
        asyncio.run(main())
    """
    write(tmp_path / "script.py", PARTS.replace("doubles(int(argument))", "looks()"), look)

    answer = run(["script.py", "look"], tmp_path)

    assert answer.stdout == "looks\nFalse []\n", answer


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program whose step never ends; it has said the ids of the step's process and of what that started."""
    write(tmp_path / "script.py", PARTS, GUARD)
    program = subprocess.Popen(
        [sys.executable, "script.py", "hang"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    with program:
        yield program
        program.kill()


def said_by(program: subprocess.Popen[str]) -> list[int]:
    assert program.stdout is not None
    return [int(word) for word in program.stdout.readline().split()]


def test_no_process_outlives_a_program_that_is_killed(hanging: subprocess.Popen[str]) -> None:
    busy, started_by_it = said_by(hanging)

    hanging.kill()
    hanging.communicate(timeout=30)

    assert has_ended(busy)
    assert has_ended(started_by_it)


def test_an_interrupt_ends_all_and_only_the_program_itself_speaks(hanging: subprocess.Popen[str]) -> None:
    busy, started_by_it = said_by(hanging)

    # As a terminal does it; and once more for the process itself, as a supervisor might.
    os.kill(busy, signal.SIGINT)
    os.killpg(hanging.pid, signal.SIGINT)
    _, errors = hanging.communicate(timeout=30)

    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "step_process" not in errors
    assert has_ended(busy)
    assert has_ended(started_by_it)
