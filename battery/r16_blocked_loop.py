"""Row 16: a step blocks the engine's event loop for longer than the lease."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from perdure import Engine, LeaseLost, Signal, step, workflow

from .lives import Life, Notes, dump, short_lease
from .planted import caught_by, without_the_fence
from .row import Control, Row, Trials, Work

_LEASE_MS = 600
_BLOCKED_S = 1.8
go = Signal[int]("go")


class Where:
    ledger: Notes
    blocks = True


@step
async def block() -> str:
    """Hold the loop; the next worker's attempt does not."""
    Where.ledger.add("begun")
    if Where.blocks:
        threading.Event().wait(_BLOCKED_S)
    return "done"


@workflow
async def wait_and_block() -> str:
    return await block()


class _Said(logging.Handler):
    """Writes what the watchdog says into the ledger."""

    def emit(self, record: logging.LogRecord) -> None:
        Where.ledger.add("said", record.getMessage())


async def _be_blocked(folder: Path, planted: AbstractContextManager[object]) -> None:
    log = logging.getLogger("perdure")
    log.setLevel(logging.WARNING)  # a whole row keeps it silent
    log.addHandler(_Said())
    with planted, short_lease(_LEASE_MS):
        try:
            async with Engine(f"sqlite:///{folder / 'runs.db'}") as engine:
                await engine.run(wait_and_block(), id="one")
                await engine.serve()
        except LeaseLost:
            Where.ledger.add("lost")


async def _take_over(folder: Path) -> None:
    Where.blocks = False
    with short_lease(_LEASE_MS):
        async with Engine(f"sqlite:///{folder / 'runs.db'}") as engine:
            run = await engine.get("one", wait_and_block)
            assert await run.result() == "done"


def _block(folder: Path, planted: AbstractContextManager[object], *, patience_s: float = 10.0) -> None:
    Where.ledger = Notes(folder / "ledger")
    blocked = Life(partial(_be_blocked, folder, planted), errors=folder / "errors")
    heir = None
    try:
        while ["begun"] not in Where.ledger.lines():
            assert not blocked.ends_within(0.005), (folder / "errors").read_text()
        heir = Life(partial(_take_over, folder), errors=folder / "errors of the heir")
        heir.end()
        assert not blocked.ends_within(0), "the other took over only when the first had ended"
        before = dump(folder / "runs.db")
        blocked.ends_within(_BLOCKED_S + patience_s)
        _judge(before, dump(folder / "runs.db"), Where.ledger.lines())
    finally:
        for process in (blocked, heir):
            if process is not None:
                process.kill()
        Where.ledger.close()


def _judge(before: dict[str, list[Any]], after: dict[str, list[Any]], lines: list[list[Any]]) -> None:
    changed = [table for table in before if before[table] != after[table]]
    assert not changed, f"I6: a worker without the lease wrote into {', '.join(changed)}"
    assert ["lost"] in lines, "I6: a worker without the lease went on, and was not told"
    said = [line[1] for line in lines if line[0] == "said" and "held the engine's event loop" in line[1]]
    assert len(said) == 1, f"the watchdog spoke {len(said)} times"
    assert "Step '0/0/block' of run 'one'" in said[0], said[0]
    assert f"{Path(__file__).name}:" in said[0], said[0]


def _controls(work: Work) -> Sequence[Control]:
    with work.fresh_folder() as folder:
        broken = caught_by(lambda: _block(folder, without_the_fence(), patience_s=0.5))
    return [Control("a commit does not look at the fence", bool(broken), broken or "nothing")]


ROW = Row(
    number=16,
    name="blocked loop",
    fault="An async step blocks the engine's event loop for three times as long as the lease.",
    how="A process whose step waits without await; another process takes over meanwhile.",
    holds=(
        "the other worker does the work within the lease and a second",
        "the blocked one then writes nothing, and is told by LeaseLost",
        "its log names the step, the run and the line",
    ),
    trials=Trials(push=3, long=50, release=500),
    run=lambda work: work.counted(lambda seed, folder: _block(folder, nullcontext()), controls=_controls),
)
