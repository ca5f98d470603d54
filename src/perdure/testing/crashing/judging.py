"""What a world looks like in the end, and what is wrong with it.

The picture of a world is every run with its outcome and the states that it
published. A crash run must come to the picture of the run without a crash, leave
nothing behind, and its journals must replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...codec.failures import describe_failure
from ...core.records import Record, RunRow, Status
from ...errors import PerdureError
from ...runtime.driver import Driver
from ...stores.base import RunQuery, Store
from .conserving import Kept, differ

Picture: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Runs by id, and what there is of streams and tables: `Kept`."""
_RUNS_MAX = 10_000
_REPLAYABLE = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT, Status.CONTINUED)
_SHOWN = 200
_UNRECORDED = "the code depends on what is not recorded (time, chance, a global)"


def all_runs(store: Store) -> list[RunRow]:
    """Every run of every generation, the oldest first."""
    return store.list_runs(RunQuery(limit=_RUNS_MAX, all_generations=True))[::-1]


def take_picture(store: Store, rows: list[RunRow]) -> dict[str, tuple[Any, ...]]:
    """What there is to compare."""
    return {
        row.id if row.generation == 1 else f"{row.id}~{row.generation}": (
            row.workflow,
            Status(row.status).word,
            _outcome(row),
            *((name, state.payload) for name, state in sorted(store.states(row.number).items())),
        )
        for row in rows
    }


def _outcome(row: RunRow) -> bytes | str:
    if row.output is None:
        return ""
    return row.output if row.status == Status.COMPLETED else describe_failure(row.output)


def compare(before: Picture, after: Picture) -> str:
    """How the second picture differs from the first, in a sentence; empty when it does not."""
    for name in before.keys() | after.keys():
        was, came = before.get(name), after.get(name)
        if isinstance(was, Kept) or isinstance(came, Kept):
            if was != came:
                return differ(name, Kept(was or ()), Kept(came or ()))
            continue
        if was is None:
            return f"there is a run {name!r}, which there is not without a crash"
        if came is None:
            return f"there is no run {name!r}, which there is without a crash"
        if was != came:
            return f"run {name!r} {_tell(came)}; without a crash it {_tell(was)}"
    return ""


def _tell(seen: tuple[Any, ...]) -> str:
    _, status, outcome, *states = seen
    text = outcome.decode(errors="replace") if isinstance(outcome, bytes) else outcome
    shown = f"{status}: {text}" if text else status
    published = ", ".join(f"{name} = {payload.decode(errors='replace')}" for name, payload in states)
    return f"is {shown}"[:_SHOWN] + (f" ({published})"[:_SHOWN] if published else "")


def parked(rows: list[RunRow]) -> str:
    """Which run waits for a person, in a sentence; empty when none does."""
    for row in rows:
        if row.status == Status.PARKED:
            return f"run {row.id!r} is parked: {_outcome(row)!s}"
    return ""


def leftovers(store: Store, rows: list[RunRow]) -> str:
    """What was left behind, in a sentence; empty when nothing was."""
    running = [row.id for row in rows if row.status == Status.RUNNING]
    if running:
        return f"run {running[0]!r} was left running"
    for row in rows:
        if row.status != Status.PARKED and store.messages_for(row.number):
            return f"a message to run {row.id!r}, which has ended, was left behind"
    return ""


class Replays:
    """Replays journals of ended runs; each that is the same as one before, only once."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, ...]] = set()

    def take_as_seen(self, store: Store, row: RunRow) -> None:
        """Do not replay a journal like this one."""
        self._seen.add(_content(row, store.records(row.number)))

    def forget(self) -> None:
        """Replay each again."""
        self._seen.clear()

    def replay(self, driver: Driver, row: RunRow) -> str:
        """Why the journal does not lead where the run ended; empty when it does."""
        records = driver.store.records(row.number)
        content = _content(row, records)
        if content in self._seen or Status(row.status) not in _REPLAYABLE:
            return ""
        self._seen.add(content)
        return _replay(driver, row, records)


def _content(row: RunRow, records: list[Record]) -> tuple[Any, ...]:
    """All of a journal but its times."""
    told = ((record.kind, record.key, record.digest, record.payload) for record in records)
    return (row.workflow, row.input, row.output, *told)


def _replay(driver: Driver, row: RunRow, records: list[Record]) -> str:
    definition = driver.registry.find(row.workflow)
    if definition is None:
        return ""
    execution = driver.make_resident(row).execution
    try:
        with driver.turn:
            execution.foresee_patches(records)
            execution.begin(definition.body(row.input), definition.encode_result)
            execution.replay(records)
    except PerdureError as error:
        return f"the journal of run {row.id!r} does not replay: {error}"
    outcome = execution.outcome
    execution.drop()
    if outcome is None or outcome.status != row.status:
        came = "goes on" if outcome is None else f"is {Status(outcome.status).word}"
        was = Status(row.status).word
        return f"run {row.id!r} ended as {was}, but its journal replayed {came}: {_UNRECORDED}"
    if outcome.status is Status.COMPLETED and outcome.output != row.output:
        return f"the journal of run {row.id!r} replays to another result: {_UNRECORDED}"
    return ""
