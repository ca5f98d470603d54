"""Crash runs in real processes: each worker is a child of this one, and is killed with SIGKILL at its spot.

The store is a real file. What is left of a worker is what it wrote: the store, and a
ledger of the calls that it made, a line each, synced at the moment of the effect.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ...blocks.workflow import WorkflowCall
from ...codec.failures import decode_failure
from ...core.records import RunRow, Status
from ...errors import PerdureError, RunFailed
from ...stores.opening import open_store
from ..events import Append, Ask, Cancel, Event, Send, Wait
from ..journals import describe_journals, steps_of
from .explorer import Crashed, Ending, Explorer, Scenario, Trial
from .judging import all_runs, leftovers, parked, take_picture
from .spots import DEATHS, FAULTS, Fault, Spot, write_spots
from .world import Effect

_CHILD = "perdure.testing.crashing.child"
_LIFE_S_MAX = 60.0


class ProcessExplorer(Explorer):
    """Makes each life of a crash run a process."""

    def __init__(self, scenario: Scenario, kinds: Collection[Fault] = FAULTS) -> None:
        super().__init__(scenario, [kind for kind in kinds if kind in DEATHS])

    async def bring_to_end(self, trial: Trial, spots: tuple[Spot, ...], start_ms: int) -> Ending:
        """Make one crash run: a process for each spot, which dies there, and one that comes to the end."""
        with tempfile.TemporaryDirectory(prefix="perdure-") as name:
            folder = Path(name)
            passed: list[Sequence[Spot]] = []
            broken = ""
            missed = False
            for life, spot in enumerate([*spots, None], start=1):
                report = await _live(folder, trial, life, spot, start_ms)
                if report is None:
                    passed.append(())
                    continue
                missed = spot is not None
                passed.append([Spot(*told) for told in report["passed"]])
                broken = report["broken"]
                break
            return _look(folder, _call_of(trial), write_spots(spots), passed, missed=missed, broken=broken)


async def _live(
    folder: Path, trial: Trial, life: int, spot: Spot | None, start_ms: int
) -> dict[str, Any] | None:
    """One process: what it reports, or None when it was killed."""
    call = _call_of(trial)
    told = {
        "workflow": _importable(call),
        "input": call.input().decode(),
        "events": [_as_json(event) for event in trial.events],
        "spot": str(spot or ""),
        "life": life,
        "start_ms": start_ms,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _CHILD, str(folder), json.dumps(told), env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LIFE_S_MAX):
            _, said = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.communicate()
        raise PerdureError(
            f"A worker did not come to its end in {_LIFE_S_MAX:g} s, and was killed."
        ) from None
    if child.returncode == -signal.SIGKILL and spot is not None:
        return None
    if child.returncode != 0:
        raise PerdureError(
            f"A worker ended with exit code {child.returncode}:\n{said.decode(errors='replace')}"
        )
    return json.loads((folder / "report").read_bytes())


def _call_of(trial: Trial) -> WorkflowCall[Any]:
    assert trial.call is not None, "events alone are not crashed in processes"
    return trial.call


def _importable(call: WorkflowCall[Any]) -> str:
    source = call.definition.source
    if source.startswith("__main__:") or "<" in source:
        raise PerdureError(
            f"Workflow {call.definition.name!r} ({source}) cannot be imported by another process.",
            hint="Define it at the top of a module, or crash it in this process: process=False.",
        )
    return source


def _as_json(event: Event) -> list[Any]:
    match event:
        case Send(signal, value):
            return ["send", signal.name, signal.encode(value).decode()]
        case Ask(update, value):
            return ["ask", update.name, update.encode(value).decode()]
        case Append(stream, value):
            new = stream.new_event(value, "", 0, id=None, time=None, source="")
            return ["append", stream.name, new.type, new.version, new.key, new.payload.decode()]
        case Cancel(reason):
            return ["cancel", reason]
        case Wait():
            return ["wait", event.ms]


def _look(
    folder: Path,
    call: WorkflowCall[Any],
    crash: str,
    passed: Sequence[Sequence[Spot]],
    *,
    missed: bool,
    broken: str,
) -> Ending:
    """What is on disk in the end."""
    store = open_store(url_in(folder))
    try:
        rows = all_runs(store)
        wrong = (
            broken or "; ".join(store.check()) or leftovers(store, rows) or ("" if crash else parked(rows))
        )
        last = next(row for row in reversed(rows) if row.id == call.definition.name)
        result, error = _outcome(call, last)
        steps = steps_of(store, last, {})
        effects = [effect for _, effect in read_ledger(folder)]
        crashed: Crashed[Any] = Crashed(crash, None, result, error, effects, lambda: steps)
        return Ending(passed, missed, wrong, take_picture(store, rows), describe_journals(store), crashed)
    finally:
        store.close()


def _outcome(call: WorkflowCall[Any], row: RunRow) -> tuple[Any, Exception | None]:
    if row.status == Status.COMPLETED:
        return call.definition.decode_result(row.output or b"null"), None
    error = RunFailed(f"Run {row.id!r} is {Status(row.status).word}.", run_id=row.id)
    if row.output is not None:
        error.__cause__ = decode_failure(row.output)
    return None, error


# -- what both sides know ------------------------------------------------------------------------


def url_in(folder: Path) -> str:
    """The store's."""
    return f"sqlite:///{folder / 'runs.db'}"


def read_ledger(folder: Path) -> list[tuple[int, Effect]]:
    """The calls that all lives made, each with the number of its run; their arguments as text."""
    effects: dict[tuple[int, int], tuple[int, Effect]] = {}
    for what, _, *told in read_lines(folder):
        if what == "call":
            life, place, run, run_id, step, key, idempotency_key, attempt, shown = told
            effect = Effect(run_id, step, key, idempotency_key, attempt, tuple(shown), {}, life)
            effects[life, place] = run, effect
        elif what == "done":
            effects[told[0], told[1]][1].is_done = True
    return list(effects.values())


def read_lines(folder: Path) -> list[list[Any]]:
    """What the lives before have written down: what it is, the time in milliseconds, and more."""
    ledger = folder / "ledger"
    return [json.loads(line) for line in ledger.read_bytes().splitlines()] if ledger.exists() else []
