"""A worker whose clock jumps: `python -m battery.clocked STORE LEDGER PLANTED`; row 13 runs it.

It says with each line of the ledger how long a sleep was, by the run's own time.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from perdure import Engine, now, step, workflow
from perdure.core.records import Record
from perdure.runtime.clock import Clock, SystemClock
from perdure.runtime.resident import Resident

from .lives import Notes
from .planted import replaced

RUNS = 4
NAPS = (0.05, 0.1, 0.2, 0.05)
_WORKS, _WORK_S = 30, 0.02
ledger: Notes


@step
async def note(what: str, asked: float, took: float) -> str:
    ledger.add(what, asked, took)
    return what


@step
async def work() -> None:
    await asyncio.sleep(_WORK_S)  # by the loop's clock, which nobody sets


async def go_on_working() -> None:
    for _ in range(_WORKS):
        await work()


@workflow
async def nap(number: int) -> int:
    working = asyncio.create_task(go_on_working())  # so that there are records also while the clock is back
    for turn, asked in enumerate(NAPS):
        before = now()
        await asyncio.sleep(asked)
        await note(f"{number}/{turn}", asked, (now() - before).total_seconds())
    await working
    return len(NAPS)


def believe_the_clock(self: Resident, kind: int, key: str, digest: int, payload: Any, clock: Clock) -> Record:
    """What is planted: a record has whatever time the clock shows."""
    record = Record(self.seq, kind, key, digest, clock.now_ms(), payload, self.number)
    self.seq += 1
    self.recorded += 1
    return record


async def main(store: str) -> None:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    # After so long a timer looks at the clock again; a trial cannot wait 30 s.
    SystemClock._LONGEST_WAIT_S = 0.1
    async with Engine(f"sqlite:///{store}") as engine:
        runs = [await engine.start(nap(number), id=f"nap-{number}") for number in range(RUNS)]
        ledger.add("ready", 0, 0)
        for run in runs:
            assert await run.result() == len(NAPS)


if __name__ == "__main__":
    ledger = Notes(Path(sys.argv[2]))
    planted = replaced(Resident, next_record=believe_the_clock) if sys.argv[3] == "planted" else nullcontext()
    with planted:
        asyncio.run(main(sys.argv[1]))
