"""The threads of steps: they do not hold a program back, and do not lose what is raised on them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

from perdure.runtime.threads import Threads

STUCK = """
import asyncio, threading
from perdure import Engine, step, workflow

begun = threading.Event()

@step
def never_returns() -> None:
    begun.set()
    threading.Event().wait()

@workflow
async def stuck() -> None:
    await never_returns()

async def main() -> None:
    async with Engine("sqlite:///stuck.db") as engine:
        await engine.start(stuck(), id="stuck")
        await asyncio.to_thread(begun.wait)

asyncio.run(main())
print("the end")
"""


def test_a_step_that_never_returns_does_not_keep_the_program_from_ending(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=tmp_path, timeout=30, capture_output=True, text=True, check=False
    )

    assert (ended.stdout, ended.stderr, ended.returncode) == ("the end\n", "", 0)


async def test_what_a_thread_raises_arrives_whatever_it_is() -> None:
    def stops() -> None:
        raise StopIteration

    threads = Threads(asyncio.get_running_loop())
    exits, stopping = threads.call(sys.exit), threads.call(stops)
    await asyncio.wait([exits, stopping])
    threads.stop()

    assert isinstance(exits.exception(), SystemExit)
    assert isinstance(stopping.exception(), RuntimeError)


async def test_what_was_cancelled_in_line_is_never_called() -> None:
    threads = Threads(asyncio.get_running_loop())
    release = threading.Event()
    called: list[int] = []
    busy = [threads.call(release.wait) for _ in range(32)]
    waiting = [threads.call(lambda number=number: called.append(number)) for number in range(3)]

    waiting[1].cancel()
    release.set()
    await asyncio.gather(*busy, waiting[0], waiting[2])
    threads.stop()

    assert called == [0, 2]


async def test_an_idle_thread_is_used_again() -> None:
    threads = Threads(asyncio.get_running_loop())

    names = [await threads.call(lambda: threading.current_thread().name) for _ in range(20)]
    threads.stop()

    assert set(names) == {"perdure-step-1"}
