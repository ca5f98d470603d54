"""What a run did, as a test wants to see it: its steps, and its journal as text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from ..blocks.step import Step
from ..codec.failures import decode_failure
from ..codec.json import decoder
from ..core.journal import line_of, standing_frames
from ..core.records import Kind, RunRow
from ..runtime.driver import Driver
from ..stores.base import RunQuery, Store
from ..views import Entry, Timeline, from_ms, timeline_view

_decode_any = decoder(Any)
_VALUE_SHOWN = 120
_RUNS_SHOWN = 20


class Asked(NamedTuple):
    """A call of a step, as the harness saw a run ask for it."""

    step: Step[..., Any]
    data: bytes

    @property
    def args(self) -> Mapping[str, Any]:
        """By name, defaults filled in; a copy of its own, as the step gets it."""
        args, kwargs = self.step.arguments.decode(self.data)
        return inspect.signature(self.step).bind(*args, **kwargs).arguments


@dataclass(frozen=True, slots=True, repr=False)
class JournalStep:
    """A step that a run has done, from its journal."""

    name: str
    key: str
    """The call's place in the run: `0/2/charge`."""
    args: Mapping[str, Any] | None
    """By name, as the step got them; None where the run asked before this test had the store."""
    result: Any
    """None also for a step that failed."""
    error: BaseException | None
    """What the workflow met, of a step that failed for good."""
    attempts: int
    """How many it took; crashes are not counted."""
    at: datetime
    """When the result was recorded, in UTC."""

    def __repr__(self) -> str:
        args = ", ".join(f"{name}={_short(value)}" for name, value in (self.args or {}).items())
        came = f"raised {self.error!r}" if self.error is not None else f"→ {_short(self.result)}"
        tries = f" in {self.attempts} attempts" if self.attempts > 1 else ""
        return f"<{self.name}({args}) {came}{tries}>"


def steps_of(store: Store, row: RunRow, asked: Mapping[tuple[int, str], Asked]) -> list[JournalStep]:
    """The recorded steps of a run, in the order in which their results were recorded."""
    failed = [attempt.key for attempt in store.attempts(row.number) if attempt.failure is not None]
    found: list[JournalStep] = []
    for record in store.records(row.number):
        if record.kind not in (Kind.STEP, Kind.STEP_FAILED):
            continue
        call = asked.get((row.number, record.key))
        payload = record.payload or b"null"
        ok = record.kind == Kind.STEP
        error = None if ok else decode_failure(payload)
        decode = _decode_any if call is None else call.step.decode_result
        known: int = len(getattr(error, "attempts", ()))
        found.append(
            JournalStep(
                name=record.key.split("/", 2)[-1],
                key=record.key,
                args=None if call is None else call.args,
                result=decode(payload) if ok else None,
                error=error,
                attempts=known or failed.count(record.key) + 1,
                at=from_ms(record.at_ms),
            )
        )
    return found


# -- as text, for a test that failed -------------------------------------------------------------


def describe_journals(store: Store) -> str:
    """The journal of each run in the store, the oldest first."""
    rows = store.list_runs(RunQuery(limit=_RUNS_SHOWN + 1, all_generations=True))
    lines = [line for row in reversed(rows[:_RUNS_SHOWN]) for line in _journal(timeline_view(store, row))]
    if len(rows) > _RUNS_SHOWN:
        lines.append(f"… and older runs than these {_RUNS_SHOWN}")
    return "\n".join(lines) or "no run was started"


def _journal(timeline: Timeline) -> Iterator[str]:
    run = timeline.run
    generation = f", generation {run.generation}" if run.generation > 1 else ""
    error = f": {run.error}" if run.error else ""
    yield f"run {run.id!r} ({run.workflow}{generation}) is {run.status.value}{error}"
    yield f"    {'input':>14}  {_text(timeline.input)}"
    for entry in timeline.entries:
        yield f"    {entry.offset_ms / 1000:>+12.3f} s  {_entry(entry)}"
    for step in timeline.under_way:
        yield f"    {'under way':>14}  {step.name} ({step.key}), attempt {step.attempt}"
    for message in timeline.messages:
        yield f"    {'not taken':>14}  {message.kind} {message.name}"
    for state in timeline.states:
        yield f"    {'state':>14}  {state.name} = {_text(state.value)}"
    if timeline.result is not None:
        yield f"    {'result':>14}  {_text(timeline.result)}"


def _entry(entry: Entry) -> str:
    key = f" ({entry.key})" if entry.key.count("/") > 1 else ""
    tries = f", attempt {entry.attempt}" if entry.attempt else ""
    what = f"{entry.kind} {entry.name}{key}{tries}".rstrip()
    if entry.error is not None:
        return f"{what}: {entry.error}"
    return what if entry.value is None else f"{what} → {_text(entry.value)}"


def _text(value: bytes) -> str:
    text = value.decode(errors="replace")
    return text if len(text) <= _VALUE_SHOWN else text[:_VALUE_SHOWN] + "…"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_SHOWN else text[:_VALUE_SHOWN] + "…"


def describe_waiting(driver: Driver, next_ms: int | None) -> str:
    """What the engine waits for: each run with its open calls, and the next timer."""
    now = from_ms(driver.clock.now_ms())
    lines = [line for resident in list(driver.residents.values()) for line in _waits(driver, resident.number)]
    if not lines:
        lines.append("No run is in memory.")
    timer = "no timer is set" if next_ms is None else f"the next timer is due at {from_ms(next_ms)}"
    return "\n".join([*lines, f"It is {now}, and {timer}."])


def _waits(driver: Driver, number: int) -> Iterator[str]:
    resident = driver.residents[number]
    execution = resident.execution
    yield f"Run {resident.row.id!r} ({resident.row.workflow}) waits:"
    for task in execution.loop.tasks:
        frames = [] if task.done() else standing_frames(task.get_coro())
        if frames:
            yield f"    at {line_of(frames[-1])}"
    for pending in execution.pending:
        running = resident.in_flight.get(pending.key) is not None
        describe = getattr(pending.call, "describe", None)
        what = describe() if describe is not None else "a child"
        yield f"    for {what} ({pending.key}){', which is under way' if running else ''}"
