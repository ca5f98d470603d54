"""Handles events and kills itself: `python -m tests.crash.consumer STORE LEDGER [EVENT NUMBER]`.

Its first life appends the events. A handler writes a line to the ledger at the moment of
its effect, with fsync. Events of key `killer` kill the process by SIGKILL, whenever they are handled;
those of key `bad` fail for good. At the given event (`before commit`, `after commit`, `effect`) the process
dies, too, the NUMBER-th time that it comes. It ends when all is handled or parked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

from battery.lives import short_lease
from perdure import Event, NonRetryable, Stream
from perdure.runtime.clock import SystemClock
from perdure.testing.engine import HarnessEngine
from tests.crash.program import Death
from tests.streams.conservation import accounts

EVENTS = 120
KEYS = 10


@dataclass(frozen=True)
class Reading:
    key: str
    number: int


readings: Stream[Reading] = Stream("readings", Reading, key=lambda reading: reading.key)
death = Death("", 0)
ledger = -1


@readings.on(concurrency=8)
async def note(event: Event[Reading]) -> None:
    if event.key == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if event.key == "bad":
        raise NonRetryable("it is bad")
    os.write(ledger, f"{event.position} {event.key} {event.data.number}\n".encode())
    os.fsync(ledger)
    death.may_come("effect")


def key_of(number: int) -> str:
    """Two events of the killer, some bad ones, and many others."""
    if number in (30, 60):
        return "killer"
    return "bad" if number % 40 == 7 else f"key-{number % KEYS}"


async def main(store: str) -> None:
    """Append once, and handle until nothing is left."""
    engine = HarnessEngine(f"sqlite:///{store}", clock=SystemClock(), handlers=[note])
    async with engine:
        engine.faulty.before_commit = lambda batch: death.may_come("before commit")
        engine.faulty.after_commit = lambda batch: death.may_come("after commit")
        for number in range(EVENTS):
            await engine.append(readings, Reading(key_of(number), number), id=f"{number}")
        while accounts(engine.faulty.store, note).pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        death = Death(sys.argv[3], int(sys.argv[4]))
    ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with short_lease(2_000):
        asyncio.run(main(sys.argv[1]))
