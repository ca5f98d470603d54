"""An engine in a test's hands: its time, its steps, its faults, its crashes.

    async with Harness() as harness:
        run = await harness.start(checkout(order), id="order-17")
        await harness.crash()
        await harness.advance(days=1)
        assert await run.result() == "nobody answered"

The engine is a real one on a real file. Nothing here sleeps: `until`, `settle`
and `result()` follow the engine, and fail after a while instead of hanging.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self, TypeVar

from ..blocks.step import Step, StepCall
from ..blocks.workflow import Workflow
from ..client import Client, Run
from ..core.commands import RunStep
from ..core.events import Append, Clash, Placed
from ..core.records import Message, NewRun, Record, RunRow
from ..doors import Door
from ..errors import PerdureError, RunNotFound
from ..runtime.clock import Clock, Source
from ..runtime.definitions import WorkflowDefinition
from ..runtime.driver import RESIDENTS_KEPT
from ..runtime.resident import Resident
from ..stores.base import Reply, StartOutcome, Store
from .clock import ManualClock, loop_turn
from .engine import HarnessEngine, RanBefore
from .faulty import FaultyStore
from .journals import Asked, JournalStep, describe_journals, describe_waiting, steps_of
from .overriding import Override, override
from .source import SeededSource

T = TypeVar("T")

_PATIENCE_S = 20.0
_QUIET_TURNS = 6
_NAP_S = 0.000_5
_TURNS_BEFORE_NAP = 25


class Harness(Client):
    """One store, and the engines that open it one after another.

    It is a client of whichever engine is open: `start`, `run`, `get`, `send` and
    the rest are an engine's own, and a `Run` goes on working after `crash()` and
    `restart()`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        clock: ManualClock | None = None,
        workflows: Iterable[Workflow[Any, Any]] | None = None,
        residents_kept: int = RESIDENTS_KEPT,
        time_flies: bool = False,
        tags: Iterable[str] | None = None,
    ) -> None:
        """`path`: the store's file; by default one of its own, which goes with the harness. Or its URL.

        `time_flies`: whenever only time can get a run on, the clock goes to that time by itself.
        `tags`: those of its engine; by default all, and a step that asks for a worker runs in place.
        """
        self._folder = None if path is not None else tempfile.TemporaryDirectory(prefix="perdure-")
        where = os.fspath(path) if path is not None else os.path.join(self._folder.name, "runs.db")  # type: ignore[union-attr]
        super().__init__(where if where.startswith("postgresql://") else f"sqlite:///{where}")
        self.clock = clock or ManualClock()
        self.source: Source = SeededSource(seed)
        self.workflows = workflows
        self._ran = RanBefore()
        self._residents_kept = residents_kept
        self._time_flies = time_flies
        self._tags = None if tags is None else frozenset(tags)
        self._pilot: asyncio.Task[None] | None = None
        self._asked: dict[tuple[int, str], Asked] = {}
        self._was_opened = False
        self.engine = self._make_engine()
        self._door = _HarnessDoor(self)
        self.clock.settle = self.settle
        self.clock.next_elsewhere = lambda: self.engine.next_ms()  # noqa: PLW0108 (the engine changes)

    def _make_engine(self) -> HarnessEngine:
        engine = HarnessEngine(
            self.url,
            clock=self.clock,
            source=self.source,
            workflows=self.workflows,
            residents_kept=self._residents_kept,
        )
        engine.ran = self._ran
        engine.on_asked = self._note_asked
        engine.serves = self._tags
        return engine

    def _note_asked(self, resident: Resident, pending: RunStep) -> None:
        call: StepCall[Any] = pending.call
        self._asked[resident.number, pending.key] = Asked(call.definition, call.data)

    @property
    def store(self) -> FaultyStore:
        """The store of the engine that is open."""
        return self.engine.faulty

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    # -- the lives of the engine -----------------------------------------------------------------

    async def open(self) -> HarnessEngine:
        """Open the store with a new engine. Entering the harness does it for the first time."""
        if self._was_opened:
            self.engine = self._make_engine()
        self._was_opened = True
        await self.engine.__aenter__()
        if self._time_flies and self._pilot is None:
            self._pilot = asyncio.get_running_loop().create_task(self._let_time_fly())
        return self.engine

    async def open_once(self) -> None:
        """Open the store, unless that was done before.

        The pytest fixture opens with the test. A fixture of yours that asks it for
        something (`start`, `get` …) opens it before; one that needs `engine` calls this.
        """
        if not self._was_opened:
            await self.open()

    async def stop(self) -> None:
        """Close the engine as a deploy does. Does nothing when none is open."""
        pilot, self._pilot = self._pilot, None
        if pilot is not None:
            pilot.cancel()
        if self.engine.is_open:
            self.engine.faulty.release_commits()
        await self.engine.__aexit__(None, None, None)

    def abandon(self) -> None:
        """Let everything go where no loop runs any more; an engine that is still open is dropped."""
        if self._pilot is not None:
            self._pilot.cancel()
        self.engine.drop()
        if self._folder is not None:
            self._folder.cleanup()

    async def restart(self) -> HarnessEngine:
        """Close the engine and open a new one on the same file."""
        await self.stop()
        return await self.open()

    async def crash(self) -> HarnessEngine:
        """Drop the engine as `kill -9` would, and open a new one: what was not on disk is gone."""
        await self.kill()
        return await self.open()

    async def kill(self) -> None:
        """Drop the engine as `kill -9` would. The lease is not given back, and nothing more is written.

        Steps on the loop are cancelled, which a real death would not do; a thread that
        is in a step goes on, which it would not.
        """
        engine = self.engine
        store = engine.faulty
        store.kill()
        committer = engine.driver.committer
        committer.check_lease()  # something to write, so that the worker notices its death
        await self.until(lambda: committer.error is not None)
        await engine.__aexit__(None, None, None)

    # -- time, and waiting for moments -----------------------------------------------------------

    async def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Let that much time pass, moment by moment: it stops wherever something is due."""
        await self.clock.advance(seconds + 60 * (minutes + 60 * (hours + 24 * days)))

    async def until(self, condition: Callable[[], object], *, seconds: float = _PATIENCE_S) -> None:
        """Let the engine work until `condition()` is true.

        Raises AssertionError if that does not come in so many (real) seconds, and
        says what each run waits for.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + seconds
        turns = 0
        while not condition():
            if loop.time() > give_up_at:
                raise AssertionError(
                    f"waited {seconds:g} s for a moment that did not come.\n{self.waiting()}"
                )
            turns += 1
            # A loop that spins starves the writer's thread and the steps' threads.
            await (loop_turn() if turns % _TURNS_BEFORE_NAP else _nap())

    async def settle(self) -> None:
        """Let the engine work until nothing more comes of what was done: only time or a test gets it on.

        A step that a test holds up counts as settled; one on a thread does not wait here.
        """
        quiet = 0

        def is_settled() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if self.engine.is_quiet else 0
            return quiet > _QUIET_TURNS

        await self.until(is_settled)

    def waiting(self) -> str:
        """What the engine waits for: which runs, in which line and for which call, and the next timer."""
        if not self.engine.is_open:
            return "No engine is open."
        return describe_waiting(self.engine.driver, self.engine.next_ms())

    async def _let_time_fly(self) -> None:
        while True:
            await _nap()
            if self.engine.is_open and self.engine.is_quiet and not self.engine.running_steps:
                await self.settle()
                if not self.engine.running_steps:
                    await self.clock.advance_to_next()

    # -- steps and journals ----------------------------------------------------------------------

    def override(self, step: Step[..., Any], fake: Callable[..., Any]) -> AbstractContextManager[Override]:
        """Let `step` do what `fake` does, within the `with` block: `with harness.override(charge, fake):`.

        `fake` is a function, sync or async, with the step's own parameters. What the
        block gives has the `calls`. Raises DefinitionError for a fake that does not
        fit, or a step that runs in a process of its own.
        """
        return override(step, fake)

    def steps(self, run: Run[Any] | str) -> list[JournalStep]:
        """The steps of a run that are on disk, in the order in which their results were recorded."""
        return steps_of(self._open_store(), self._run_row(run), self._asked)

    def records(self, run: Run[Any] | str) -> list[Record]:
        """The journal of a run, record by record, as it is on disk."""
        return self._open_store().records(self._run_row(run).number)

    def journals(self) -> str:
        """The journals of all runs as text: what the plugin shows of a test that failed."""
        return describe_journals(self._open_store())

    def _open_store(self) -> Store:
        if not self.engine.is_open:
            raise PerdureError("No engine is open.", hint="Use `async with Harness() as harness:`.")
        return self.engine.faulty.store

    def _run_row(self, run: Run[Any] | str) -> RunRow:
        run_id = run if isinstance(run, str) else run.id
        row = self._open_store().run_by_id(run_id)
        if row is None:
            raise RunNotFound(f"No run {run_id!r} in {self.url}.", run_id=run_id)
        return row


class _HarnessDoor:
    """The way to whichever engine is open; opens the first one when it is not open yet."""

    def __init__(self, harness: Harness) -> None:
        self.clock: Clock = harness.clock
        self.source: Source = harness.source
        self._harness = harness

    async def _engine(self) -> Door:
        await self._harness.open_once()
        return self._harness.engine.door

    async def read(self, look: Callable[[Store], T]) -> T:
        return await (await self._engine()).read(look)

    async def write(self, verb: Callable[[Store], T]) -> T:
        return await (await self._engine()).write(verb)

    async def start(self, new: NewRun, definition: WorkflowDefinition) -> StartOutcome:
        return await (await self._engine()).start(new, definition)

    async def start_within(
        self, connection: Any, new: NewRun, definition: WorkflowDefinition
    ) -> StartOutcome:
        outcome = (await self._engine()).start_within(connection, new, definition)
        return await outcome if isawaitable(outcome) else outcome

    async def send(self, message: Message) -> int:
        return await (await self._engine()).send(message)

    async def append(self, append: Append) -> list[Placed] | Clash:
        return await (await self._engine()).append(append)

    async def append_within(
        self, connection: Any, append: Append, register: Callable[[Store, Any], object] | None
    ) -> list[Placed] | Clash:
        outcome = (await self._engine()).append_within(connection, append, register)
        return await outcome if isawaitable(outcome) else outcome

    async def ask(self, message: Message) -> Reply:
        return await (await self._engine()).ask(message)

    async def ended(self, number: int) -> RunRow:
        door = await self._engine()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await door.ended(number)
        except TimeoutError:
            waiting = self._harness.waiting()
            raise AssertionError(f"waited {_PATIENCE_S:g} s for a run to end.\n{waiting}") from None

    async def close(self) -> None:
        """The harness closes its engines itself."""


async def _nap() -> None:
    """Give other threads room."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(_NAP_S, lambda: woken.done() or woken.set_result(None))
    await woken
