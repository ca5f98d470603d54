"""`crash_everywhere`: run a workflow once to learn where it can be crashed, then once for each of these."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...blocks.workflow import WorkflowCall
from ...errors import PerdureError
from ...runtime.subscriptions import Subscribing
from ..events import Append, Event
from .explorer import Crashed, Crashes, Explorer, Trial
from .process import ProcessExplorer
from .spots import FAULTS, Fault


@dataclass(frozen=True, slots=True)
class CallScenario:
    """A call, with functions that make and check its world."""

    call: WorkflowCall[Any] | None
    events: Sequence[Event]
    handlers: Sequence[Subscribing] | None
    setup: Callable[[], Any] | None
    check: Callable[[Crashed[Any]], Any] | None
    again: str

    async def begin(self) -> Trial:
        world = None if self.setup is None else await _maybe_async(self.setup())
        return _CallTrial(self.call, self.events, self.handlers, world, self.check)


@dataclass(frozen=True, slots=True)
class _CallTrial:
    call: WorkflowCall[Any] | None
    events: Sequence[Event]
    handlers: Sequence[Subscribing] | None
    world: Any
    check: Callable[[Crashed[Any]], Any] | None

    async def finish(self, crashed: Crashed[Any]) -> None:
        if self.check is not None:
            await _maybe_async(self.check(replace(crashed, world=self.world)))

    def abandon(self) -> None:
        """Nothing is held."""


async def _maybe_async(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def crash_everywhere(
    call: WorkflowCall[Any] | Sequence[Event],
    *,
    events: Sequence[Event] = (),
    handlers: Sequence[Subscribing] | None = None,
    setup: Callable[[], Any] | None = None,
    check: Callable[[Crashed[Any]], Any] | None = None,
    kinds: Collection[Fault] = FAULTS,
    pairs: bool = False,
    process: bool = False,
    crash: str | None = None,
) -> Crashes:
    """Run a workflow, or have events handled, once; then again for each place at which that can be crashed.

    `crash_everywhere(checkout(order))` runs a workflow. `crash_everywhere([Append(orders, placed), …],
    handlers=[ship, per_hour])` appends events, and is over when each is handled, each window that silence
    closes is closed, and each run that was started has ended.

    After each crash a fresh engine goes on with what is on disk. Time is virtual, the
    disk is in memory, and the engine is the real one. Each run must come to the same
    end as the one without a crash; no step whose result is recorded may be called
    again, an interrupted one only with the same idempotency key; no run, timer or
    message may be left behind; and every journal must replay.

    Streams must have the same events, handlers have parked the same, and tables of yours the same rows, in
    whatever order. An event that is done on disk may not be handled again, nor the next of its key be begun
    before it is. Each must be somewhere: appended = done + parked + discarded.

    - `handlers`: handlers, windows and joins that are served; by default all that are defined.
    - `events`: what comes from outside, in order: `Send(approval, "ann")`, `Ask(move, address)`,
      `Cancel()`, `Wait(86_400)`, `Append(orders, placed)`. Each is sent when the run only waits, and once
      more, with the same id, if the worker died before the sender heard. Without a run, what is
      appended in a row does not wait for handlers.
    - `setup`: makes the world fresh before each run, sync or async; what it returns is `crashed.world`.
    - `check`: your own invariants, sync or async; called after each run, that without a crash included.
    - `kinds`: only these; by default all (`before-effect`, `after-effect`, `before-record`,
      `after-record`, `zombie`, `twice`, `due-while-down`, `clock-forward`, `clock-back`).
    - `pairs`: after each crash, crash the second worker everywhere too.
    - `process`: run each worker in a real process, on a real file, and kill it with SIGKILL
      (kinds: those in which a worker dies). The workflow must be importable by its name, and
      what `setup` makes must be where another process finds it: files, the environment.
    - `crash`: only this one, as a failure names it.

    Steps and handlers are really called, steps with `on="process"` on a thread. Raises CrashFailure, whose
    first line says how to run that crash alone; and what `check` raises without a crash.
    """
    run, sent = _read(call, events)
    if process and (run is None or handlers is not None):
        raise PerdureError(
            "Only a workflow alone is crashed in processes, without handlers.",
            hint="Do without process=True.",
        )
    scenario = CallScenario(run, sent, handlers, setup, check, _again(process=process))
    explorer = ProcessExplorer(scenario, kinds) if process else Explorer(scenario, kinds)
    return await explorer.explore(pairs=pairs, crash=crash)


def _read(
    call: WorkflowCall[Any] | Sequence[Event], events: Sequence[Event]
) -> tuple[WorkflowCall[Any] | None, Sequence[Event]]:
    if isinstance(call, WorkflowCall):
        return call, tuple(events)
    sent = (*call, *events)
    if not any(isinstance(event, Append) for event in sent):
        raise PerdureError(
            "There is no event to be handled.", hint="Give some: [Append(orders, Placed('17'))]."
        )
    return None, sent


def _again(*, process: bool) -> str:
    return f"crash_everywhere(…, {'process=True, ' if process else ''}crash={{crash!r}})"
