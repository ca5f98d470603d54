"""Runs the worker, kills it again and again, starts it anew, until all is done.

The moments of the kills are drawn by a seed, as numbers of effects: one in each
equal part of the work, so that they spread over it on a fast machine and a slow
one alike. The driver learns of an effect at once, by the worker's next line, and
the engine may not have recorded the step by then: there a kill hurts most.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec

from .display import Display, Tallies
from .ledger import read_entries
from .worker import Line
from .workflow import DAY_STEPS, ledger_path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 15
PAUSE_SECONDS_MAX = 0.05
"""Every other kill comes a little after its effect, in the middle of some other step."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for: all of it absolute paths and plain numbers."""

    source: Path
    out: Path
    store: Path
    days: int
    kills: int
    seed: int


class WorkerFailed(Exception):
    """The worker ended by itself before the work was done."""


def draw_moments(*, effects: int, kills: int, random: Random) -> list[int]:
    """After how many effects to kill: one moment in each of `kills` equal parts, in order."""
    kills = min(kills, effects)
    edges = [effects * part // kills for part in range(kills + 1)] if kills else []
    return [random.randrange(first, end) for first, end in pairwise(edges)]


async def drive(job: Job, display: Display) -> Tallies:
    """Work until all is done, through every kill. Raises WorkerFailed if the worker gives up by itself."""
    random = Random(job.seed)
    before = [entry for entry in read_entries(ledger_path(str(job.out))) if entry.counted]
    # One effect for the split, one for the summary.
    seen = Tallies(
        days_total=job.days,
        effects=len(before),
        effects_total=max(job.days * len(DAY_STEPS) + 2, len(before)),
    )
    # Not at the very end, where the worker might be done before the kill comes.
    left = max(seen.effects_total - seen.effects - len(DAY_STEPS), 0)
    moments = [seen.effects + moment for moment in draw_moments(effects=left, kills=job.kills, random=random)]
    killed_at: float | None = None
    while True:
        seen.days = 0
        process = await start_worker(job)
        display.note(
            f"worker {process.pid} started" + (", to go on where the last one was" if killed_at else "")
        )
        moment = moments[0] if moments else None
        pause = random.uniform(0, PAUSE_SECONDS_MAX) if seen.kills % 2 else 0.0
        try:
            await _follow(process, seen, display, killed_at=killed_at, kill_at=moment, pause=pause)
        except BaseException:
            await stop_worker(process)
            raise
        if process.returncode == 0:
            return seen
        if process.returncode != -signal.SIGKILL or moment is None:
            raise WorkerFailed(
                f"The worker ended by itself with code {process.returncode}; what it said stands above. "
                "Nothing is lost: put right what it names, and give the same command again."
            )
        killed_at = time.monotonic()
        seen.kills += 1
        moments.pop(0)
        display.note(f"worker {process.pid} killed (SIGKILL) after {seen.effects:,} effects")


async def start_worker(job: Job) -> Process:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights.worker"),
        *("--store", str(job.store), "--out", str(job.out), "--source", str(job.source)),
        *("--days", str(job.days)),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        # Its own session: Ctrl-C at the terminal is for the driver, which stops the worker in good order.
        start_new_session=True,
    )


async def stop_worker(process: Process) -> None:
    """Ask the worker to end; make it, if it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _follow(
    process: Process,
    seen: Tallies,
    display: Display,
    *,
    killed_at: float | None,
    kill_at: int | None,
    pause: float,
) -> None:
    """Read the worker's lines until it ends; kill it when `kill_at` effects are counted."""
    assert process.stdout is not None
    async for text in process.stdout:
        line = msgspec.json.decode(text, type=Line)
        if killed_at is not None:
            display.note(f"worker {process.pid} went on {time.monotonic() - killed_at:.1f} s after the kill")
            killed_at = None
        match line.kind:
            case "effect" if line.counted:
                seen.effects += 1
            case "effect":
                seen.repeats += 1
            case "day":
                seen.days += 1
            case "begun":
                seen.days_total = line.days
            case "done":
                pass
        display.show(seen)
        if kill_at is not None and seen.effects > kill_at:
            kill_at = None
            await asyncio.sleep(pause)
            _kill(process)
    await process.wait()


def _kill(process: Process) -> None:
    # It may have ended by itself just now: its exit code says how.
    with suppress(ProcessLookupError):
        process.kill()
