"""A program for workers that are processes of their own: its second step kills the one that it runs in."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from perdure import Retry, step, step_info, workflow


@step(retry=Retry(attempts=1))
def work(folder: str, number: int, deaths: int) -> str:
    """Note the attempt; number 2 kills its process as often as it is told."""
    info = step_info()
    notes = Path(folder) / f"{number}.txt"
    with notes.open("a") as file:
        file.write(f"{info.attempt} {info.idempotency_key}\n")
    if number == 2 and len(notes.read_text().splitlines()) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{number} by attempt {info.attempt}"


@workflow
async def three(folder: str, deaths: int = 1) -> list[str]:
    return [await work(folder, number, deaths) for number in (1, 2, 3)]


def add(one: int, other: int) -> int:
    return one + other


@step(on="process")
def reckon(one: int, other: int) -> tuple[int, int, str]:
    info = step_info()
    info.heartbeat({"at": one})
    return add(one, other), os.getpid(), info.key


@workflow
async def elsewhere() -> tuple[int, int, str]:
    return await reckon(1, 2)
