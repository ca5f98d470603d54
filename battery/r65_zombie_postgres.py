"""Row 65: row 15 on PostgreSQL: a worker is stopped for longer than its lease, and then goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from perdure import Engine, LeaseLost

from . import orders
from .fleet import told_by
from .lives import Life, Witness, short_lease
from .orders import Death, Process
from .planted import without_the_fence_on_postgres
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server

Planted: TypeAlias = Callable[[], AbstractContextManager[object]]

_LEASE_MS = 150
_LONGEST_LIFE_S = 0.08
_SEEDS_FOR_A_CONTROL = 5


def _run(work: Work, server: Server) -> Counted:
    def trial(seed: int, folder: Path) -> None:
        _outlive(server, f"trial_{seed}", seed, folder, nullcontext)

    def controls(work: Work) -> Sequence[Control]:
        broken = ""
        for seed in range(_SEEDS_FOR_A_CONTROL):
            with work.fresh_folder() as folder:
                play = partial(
                    _outlive, server, f"control_{seed}", seed, folder, without_the_fence_on_postgres
                )
                broken = told_by(partial(play, patience_s=1.0))
            if broken:
                break
        return [Control("a commit does not look at the fence", bool(broken), broken or "nothing")]

    return work.counted(trial, controls=controls)


def _outlive(
    server: Server,
    schema: str,
    seed: int,
    folder: Path,
    planted: Planted,
    *,
    patience_s: float = 10.0,
) -> None:
    """Stop a worker in the middle of its work; let another do it all; let the first go on."""
    draw = chance(seed)
    witness = Witness(folder, server.store_url(schema))
    lost = folder / "lost"
    heir = None
    zombie = Life(partial(_be_the_zombie, witness, lost, planted), errors=witness.errors)
    try:
        while not _leases_held(server, schema):
            zombie.ends_within(0.005)
        zombie.ends_within(draw.random() * _LONGEST_LIFE_S)
        zombie.stop()
        heir = Life(partial(_be_the_heir, witness, server, schema), errors=folder / "errors of the heir")
        heir.end()
        before = _dump(server, schema)
        zombie.signal(signal.SIGCONT)
        zombie.ends_within(patience_s)
        after = _dump(server, schema)
        # It gives its lease back, in vain, and notes that it did so; which is of no run.
        changed = [table for table in before if before[table] != after[table] and table != "said"]
        assert not changed, f"I6: a worker without the lease wrote into {', '.join(changed)}"
        assert lost.exists(), "I6: a worker without the lease went on, and was not told"
        witness.look()
        orders.assert_all_was_done(witness)
    finally:
        for process in (zombie, heir):
            if process is not None:
                process.kill()
        witness.close()


async def _be_the_zombie(witness: Witness, lost: Path, planted: Planted) -> None:
    Process.death, Process.ledger = Death(), witness.ledger
    with planted(), short_lease(_LEASE_MS):
        try:
            async with Engine(witness.url) as engine:
                await orders.drive_all(engine, witness.acknowledged)
                await engine.serve()
        except LeaseLost:
            lost.touch()  # noqa: ASYNC240 (nobody else is on this loop)


async def _be_the_heir(witness: Witness, server: Server, schema: str) -> None:
    Process.death, Process.ledger = Death(), witness.ledger
    with short_lease(_LEASE_MS):
        async with Engine(witness.url) as engine:
            await orders.drive_all(engine, witness.acknowledged)
            while _leases_held(server, schema) > 1:  # noqa: ASYNC110 (what it waits for is seen in the store alone)
                await asyncio.sleep(0.01)


def _leases_held(server: Server, schema: str) -> int:
    """How many workers hold a lease."""
    ((count,),) = server.query(f"SELECT count(*) FROM {schema}.lease WHERE held")
    return count


def _dump(server: Server, schema: str) -> dict[str, list[Any]]:
    """Every row of every table."""
    tables = server.query(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")
    return {name: sorted(server.query(f"SELECT * FROM {schema}.{name}"), key=repr) for (name,) in tables}


ROW = Row(
    number=65,
    name="zombie, PostgreSQL",
    fault="A worker stands still for longer than its lease, also in the middle of a commit; another takes "
    "over and does the work, and the first one wakes up.",
    how="SIGSTOP and SIGCONT at any instant, in processes with a lease of 150 ms.",
    holds=(
        "the first one holds up nobody, and writes nothing more",
        "it is told, by LeaseLost",
        "a step on record is not done again",
        "every run comes to its right end",
    ),
    trials=Trials(push=3, long=250, release=5_000),
    run=with_a_server(_run),
)
