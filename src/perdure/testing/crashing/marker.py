"""`@pytest.mark.crash_everywhere`: a test that is a generator, run once for each crash.

    @pytest.mark.crash_everywhere
    def test_an_order_is_paid_once():
        ledger = Ledger()                       # a fresh world
        with override(charge, ledger.charge):
            receipt = yield checkout(order)     # run, crashed, brought to its end
        assert ledger.payments == [receipt]     # what must hold

What stands before the `yield` is done anew for each crash run. It gives the call, or
a tuple of the call and events; what comes back is the result of the run, or its
error is raised there. Events alone are for handlers, `@pytest.mark.crash_everywhere(handlers=[ship])`; a
`Crashed` comes back.
"""

from __future__ import annotations

import asyncio
import inspect
import shlex
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ...blocks.workflow import WorkflowCall
from ...errors import PerdureError
from ...runtime.subscriptions import Subscribing
from ..events import Append, Event, Wait
from .explorer import Crashed, CrashFailure, Explorer
from .spots import FAULTS

MARK = "crash_everywhere"


@dataclass(frozen=True, slots=True)
class GeneratorScenario:
    """A test function, called anew for each crash run."""

    function: Callable[[], Generator[Any, Any, None]]
    handlers: Sequence[Subscribing] | None
    again: str

    async def begin(self) -> GeneratorTrial:
        generator = self.function()
        return GeneratorTrial(generator, *_read(next(generator, None)), self.handlers)


@dataclass(frozen=True, slots=True)
class GeneratorTrial:
    """One run of the test function, which waits at its `yield`."""

    generator: Generator[Any, Any, None]
    call: WorkflowCall[Any] | None
    events: Sequence[Event]
    handlers: Sequence[Subscribing] | None

    async def finish(self, crashed: Crashed[Any]) -> None:
        try:
            if crashed.error is not None:
                self.generator.throw(crashed.error)
            else:
                self.generator.send(crashed if self.call is None else crashed.result)
        except StopIteration:
            return
        raise PerdureError("A crash_everywhere test has yielded twice.", hint="Yield one call, or events.")

    def abandon(self) -> None:
        self.generator.close()


def _read(yielded: Any) -> tuple[WorkflowCall[Any] | None, Sequence[Event]]:
    call, *events = yielded if isinstance(yielded, tuple) else (yielded,)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(call, Append | Wait):
        return None, (call, *events)  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(call, WorkflowCall):
        raise PerdureError(
            f"A crash_everywhere test has yielded {call!r}, which is not a call of a workflow or an Append.",
            hint="Write `result = yield checkout(order)`, or `yield checkout(order), Send(approval, 'ann')`.",
        )
    return call, events  # pyright: ignore[reportUnknownVariableType]


def run_marked(item: pytest.Function) -> bool | None:
    """Run a marked test; None leaves it to others."""
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return None
    if not inspect.isgeneratorfunction(item.obj):
        raise PerdureError(
            f"{item.nodeid} is marked crash_everywhere, and is no generator.",
            hint="Write `def`, and `result = yield checkout(order)` in it.",
        )
    names = inspect.signature(item.obj).parameters
    given = {name: value for name, value in item.funcargs.items() if name in names}
    scenario = GeneratorScenario(
        lambda: item.obj(**given),
        mark.kwargs.get("handlers"),
        f"pytest {shlex.quote(item.nodeid)} --crash='{{crash}}'",
    )
    explorer = Explorer(scenario, mark.kwargs.get("kinds", FAULTS))
    crash = item.config.getoption("--crash")
    try:
        asyncio.run(explorer.explore(pairs=mark.kwargs.get("pairs", False), crash=crash))
    except CrashFailure as failure:
        # Without a traceback: the engine's own frames tell nobody anything.
        raise pytest.fail.Exception(str(failure), pytrace=False) from None
    return True
