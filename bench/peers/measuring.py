"""The work and the figures, the same for every peer. Runs inside the peer's environment.

A peer gives one or more variants; each opens the system and hands over one
function, `run(run_id, steps)`: start a run of so many no-op steps, one after
the other, and wait for its result, which is the number of steps. Three figures
come from it:

- throughput: many runs at once, from the first start to the last result;
- sequential: one long run, from its first step to its last, by the clock that
  each step reads: so neither the start nor the wait for the result counts;
- latency: one run of one step at a time, from the call to the result in hand,
  each after a pause: else a system that polls may fall in step with the callers.

Each figure is one line of JSON on the standard output, and the raw speed of the
disk before and after is another. A variant that fails says why in such a line
too, and the next one is tried.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .limits import measure_commits_per_second
from .servers import end_servers_on_signals

POSTGRES = "PERDURE_BENCH_POSTGRES"
"""Names a server, `postgresql://…`; what runs on one is measured only where it is given."""
SHORT_STEPS = 10
_WARM_UP_RUNS = 5
_ROUNDS_MAX = 50
_SAMPLES_MIN = 10
_PAUSE_SECONDS_MAX = 0.05
_GOLDEN = 0.6180339887  # its multiples, less their whole part, spread evenly: no random numbers needed

Run = Callable[[str, int], Awaitable[object]]
"""`run(run_id, steps)`: start, wait, and answer with the number of steps."""


class Open(Protocol):
    """Opens the system with its data in `folder`, and closes it with all that it started."""

    def __call__(self, folder: Path, work: Work, /) -> AbstractAsyncContextManager[Run]: ...


@dataclass(frozen=True, slots=True)
class Work:
    """How much is done for each figure."""

    folder: Path
    runs: int
    long_steps: int
    samples: int
    seconds: float
    """A figure is measured again and again for this long, and at least once."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to set a system up."""

    name: str
    settings: str
    """What a reader must know to judge the figures: durability first."""
    open: Open
    needs: str = ""
    """A variable of the environment without which it is left out."""


_steps_at: list[float] = []


def note_step() -> None:
    """Called by every no-op step: it is how we know that it ran, and when."""
    _steps_at.append(time.perf_counter())


def main(version: str, variants: Sequence[Variant]) -> None:
    """Measure every variant, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--long-steps", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    work = Work(**vars(parser.parse_args()))
    possible = [variant for variant in variants if not variant.needs or os.environ.get(variant.needs)]
    asyncio.run(_measure_all(version, possible, work))


async def _measure_all(version: str, variants: Sequence[Variant], work: Work) -> None:
    # Here and not before the loop runs: asyncio takes SIGINT for itself when it starts.
    end_servers_on_signals()
    for index, variant in enumerate(variants):
        about = {"variant": variant.name, "settings": variant.settings, "version": version}
        folder = work.folder / str(index)
        folder.mkdir(parents=True)
        try:
            raw = [measure_commits_per_second(folder)]
            async with variant.open(folder, work) as run:
                # Again: some libraries take the signals for themselves when they start.
                end_servers_on_signals()
                for figure in (_throughput, _sequential, _latency):
                    _say({**about, **await figure(run, work)})
            raw.append(measure_commits_per_second(folder))
            between = {"value": statistics.mean(raw), "range": sorted(raw)}
            _say({**about, "figure": "raw", "unit": "commits/s", **between})
        except Exception as error:
            traceback.print_exc()
            _say({**about, "error": f"{type(error).__name__}: {error}".strip()})


async def _throughput(run: Run, work: Work) -> dict[str, object]:
    await _run_many(run, "warm", runs=_WARM_UP_RUNS)
    times: list[float] = []
    ends = time.perf_counter() + work.seconds
    while not times or (time.perf_counter() < ends and len(times) < _ROUNDS_MAX):
        began = time.perf_counter()
        await _run_many(run, f"many-{len(times)}", runs=work.runs)
        times.append(time.perf_counter() - began)
    steps = work.runs * SHORT_STEPS
    return {
        "figure": "throughput", "unit": "steps/s", "value": steps / statistics.median(times),
        "runs": work.runs, "steps": steps, "rounds": len(times),
    }  # fmt: skip


async def _run_many(run: Run, name: str, *, runs: int) -> None:
    _steps_at.clear()
    results = await asyncio.gather(*(run(f"{name}-{number}", SHORT_STEPS) for number in range(runs)))
    _check(results, [SHORT_STEPS] * runs)
    _check(len(_steps_at), SHORT_STEPS * runs)


async def _sequential(run: Run, work: Work) -> dict[str, object]:
    times: list[float] = []
    ends = time.perf_counter() + work.seconds
    while not times or (time.perf_counter() < ends and len(times) < _ROUNDS_MAX):
        _steps_at.clear()
        _check(await run(f"long-{len(times)}", work.long_steps), work.long_steps)
        _check(len(_steps_at), work.long_steps)
        times.append((_steps_at[-1] - _steps_at[0]) / (work.long_steps - 1))
    return {
        "figure": "sequential", "unit": "ms/step", "value": statistics.median(times) * 1_000,
        "steps": work.long_steps, "rounds": len(times),
    }  # fmt: skip


async def _latency(run: Run, work: Work) -> dict[str, object]:
    times: list[float] = []
    while len(times) < _SAMPLES_MIN or (sum(times) < work.seconds and len(times) < work.samples):
        await asyncio.sleep(len(times) * _GOLDEN % 1 * _PAUSE_SECONDS_MAX)
        began = time.perf_counter()
        _check(await run(f"one-{len(times)}", 1), 1)
        times.append(time.perf_counter() - began)
    times.sort()
    return {
        "figure": "latency", "unit": "ms", "value": _percentile(times, 0.50) * 1_000,
        "p99": _percentile(times, 0.99) * 1_000, "samples": len(times),
    }  # fmt: skip


def _percentile(times: Sequence[float], part: float) -> float:
    """Of sorted times, the nearest rank."""
    return times[min(len(times) - 1, int(len(times) * part))]


def _check(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"the work was not done as asked: {found!r} where {wanted!r} is right")


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
