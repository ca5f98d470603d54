"""The process that is killed: it works through all days until they are done, wherever it stands at its start.

Starting a day that was started before returns the same run, so this program
needs no memory of its own. It tells what it does in lines of JSON on its
standard output; whoever reads them may kill it at any line.

    python -m examples.flights.worker --store flights.db --out flights-out --days 60
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from perdure import Engine, RunStatus, WorkflowCall
from perdure.errors import PerdureError

from .ledger import Entry
from .source import find_source
from .workflow import Place, prepare, report_day, report_year, watchers

DAYS_AT_ONCE = 16
"""More would not be faster: the steps are work for the processor."""
SOURCE_RUN = "flights-2013-source"

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Line:
    """What the worker tells: that it took up its work, each effect, each day, and the end."""

    kind: Literal["begun", "effect", "day", "done"]
    days: int = 0
    run: str = ""
    step: str = ""
    counted: bool = True


def day_run(day: str) -> str:
    return f"flights-{day}"


def year_run(days: int) -> str:
    """One summary per number of days: `--days 30` first and `--full` later are two."""
    return f"flights-2013-first-{days}-days"


def tell(line: Line) -> None:
    try:
        # One write of less than a pipe's buffer: lines from several threads do not mix.
        os.write(sys.stdout.fileno(), msgspec.json.encode(line) + b"\n")
    except BrokenPipeError:
        # The driver is gone. To stop at once loses nothing: that is what this example shows.
        os._exit(1)


def tell_entry(entry: Entry) -> None:
    tell(Line("effect", run=entry.run, step=entry.step, counted=entry.counted))


async def finish(engine: Engine, call: WorkflowCall[R], *, id: str) -> R:
    """Start a run, or find it as it stands, and bring it to its end."""
    # A run that completed stays as it is; one that failed is started anew.
    run = await engine.start(call, id=id, reuse="if_failed")
    if await run.status() is RunStatus.PARKED:
        # Many kills in a row look like a step that kills its worker, and such a run waits for a person.
        # Whoever starts this worker is that person, and means: go on.
        await run.resume()
    return await run.result()


async def work(store: Path, place: Place, *, days: int) -> None:
    """Do all that is left to do."""
    async with Engine(f"sqlite:///{store}") as engine:
        chosen = (await finish(engine, prepare(place), id=SOURCE_RUN))[:days]
        tell(Line("begun", days=len(chosen)))
        places = asyncio.Semaphore(DAYS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for day in chosen:
                group.create_task(_work_on_day(engine, day, place, places))
        await finish(engine, report_year(chosen, place), id=year_run(len(chosen)))
    tell(Line("done", days=len(chosen)))


async def _work_on_day(engine: Engine, day: str, place: Place, places: asyncio.Semaphore) -> None:
    async with places:
        await finish(engine, report_day(day, place), id=day_run(day))
    tell(Line("day", run=day_run(day)))


async def work_until_told(store: Path, place: Place, *, days: int) -> None:
    """As `work`; SIGTERM ends it in good order: the engine is closed, and its lease given back."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await work(store, place, days=days)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.flights.worker", description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", type=Path, default=None)
    parser.add_argument("--days", type=int, default=366)
    options = parser.parse_args()
    place = Place(source=str((options.source or find_source()).resolve()), out=str(options.out.resolve()))
    watchers.append(tell_entry)
    try:
        asyncio.run(work_until_told(options.store.resolve(), place, days=options.days))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    except (PerdureError, ExceptionGroup) as error:
        reasons = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        for reason in reasons:
            print(f"The worker stopped: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
