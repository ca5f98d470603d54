"""Row 15: a worker is stopped for longer than its lease, another takes over, and the first goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import apsw

from perdure import Engine, LeaseLost

from . import orders
from .lives import Life, Witness, dump, short_lease
from .orders import Death, Process
from .planted import first_caught, without_the_fence
from .row import Control, Row, Trials, Work, chance

_LEASE_MS = 150
_TRIALS_OF_THE_CONTROL = 100


def _trial(seed: int, folder: Path) -> None:
    _outlive(chance(seed), folder, nullcontext())


def _outlive(
    draw: Random, folder: Path, planted: AbstractContextManager[object], *, patience_s: float = 10.0
) -> None:
    """Stop a worker in the middle of its work; let another do it all; let the first go on."""
    witness = Witness(folder)
    lost = folder / "lost"
    heir = None
    zombie = Life(partial(_be_the_zombie, witness, lost, planted), errors=witness.errors)
    try:
        while not _leases_held(witness.store):  # before it has the lease it would be no zombie, but late
            zombie.ends_within(0.001)
        zombie.ends_within(draw.random() * 0.04)
        zombie.stop()
        while _is_in_a_transaction(witness.store):  # there it would stop everybody, and nobody can help
            zombie.signal(signal.SIGCONT)
            zombie.ends_within(0.001)
            zombie.stop()
        heir = Life(partial(_be_the_heir, witness), errors=folder / "errors of the heir")
        heir.end()
        before = dump(witness.store)
        zombie.signal(signal.SIGCONT)
        zombie.ends_within(patience_s)
        after = dump(witness.store)
        changed = [table for table in before if before[table] != after[table]]
        assert not changed, f"I6: a worker without the lease wrote into {', '.join(changed)}"
        assert lost.exists(), "I6: a worker without the lease went on, and was not told"
        witness.look()
        orders.assert_all_was_done(witness)
    finally:
        for process in (zombie, heir):
            if process is not None:
                process.kill()
        witness.close()


async def _be_the_zombie(witness: Witness, lost: Path, planted: AbstractContextManager[object]) -> None:
    Process.death, Process.ledger = Death(), witness.ledger
    with planted, short_lease(_LEASE_MS):
        try:
            async with Engine(f"sqlite:///{witness.store}") as engine:
                await orders.drive_all(engine, witness.acknowledged)
                await engine.serve()
        except LeaseLost:
            lost.touch()  # noqa: ASYNC240 (nobody else is on this loop)


async def _be_the_heir(witness: Witness) -> None:
    Process.death, Process.ledger = Death(), witness.ledger
    with short_lease(_LEASE_MS):
        async with Engine(f"sqlite:///{witness.store}") as engine:
            await orders.drive_all(engine, witness.acknowledged)
            while _leases_held(witness.store) > 1:  # noqa: ASYNC110 (what it waits for is seen on disk alone)
                await asyncio.sleep(0.01)


def _leases_held(store: Path) -> int:
    """How many workers hold a lease."""
    if not store.exists():
        return 0
    connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        count: Any = connection.execute("SELECT count(*) FROM lease WHERE held").get
    except apsw.Error:  # its tables are just being made
        return 0
    else:
        return count
    finally:
        connection.close()


def _is_in_a_transaction(store: Path) -> bool:
    """Whether somebody holds the lock of the file."""
    connection = apsw.Connection(str(store))
    try:
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    except apsw.BusyError:
        return True
    else:
        return False
    finally:
        connection.close()


def _trial_of_the_control(seed: int, folder: Path) -> None:
    _outlive(chance(seed), folder, without_the_fence(), patience_s=0.3)


def _controls(work: Work) -> Sequence[Control]:
    planted = "a commit does not look at the fence"
    return [first_caught(work, planted, _trial_of_the_control, seeds=_TRIALS_OF_THE_CONTROL, law="wrote")]


ROW = Row(
    number=15,
    name="zombie",
    fault="A worker stands still for longer than its lease, another takes over and does the work, and the "
    "first one wakes up.",
    how="SIGSTOP and SIGCONT, in processes with a lease of 150 ms.",
    holds=(
        "the first one writes nothing more",
        "it is told, by LeaseLost",
        "a step on record is not done again",
        "every run comes to its right end",
    ),
    trials=Trials(push=15, long=250, release=5_000),
    run=lambda work: work.counted(_trial, controls=_controls),
)
