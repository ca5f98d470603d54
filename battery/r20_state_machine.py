"""Row 20: whatever clients ask for, in any order, between crashes: a pure model knows what comes of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from perdure import RunCancelled, RunClosed, Signal, State, step, step_info, workflow
from perdure.core.records import Status
from perdure.runtime.inbox import Inbox
from perdure.stores.base import RunQuery
from perdure.testing import SeededSource

from .planted import replaced
from .row import Control, Counted, Failure, Row, Trials, Work, describe
from .simulating.engine import SimulatedEngine, VirtualClock
from .simulating.loop import VirtualLoop
from .simulating.witness import Witness
from .simulating.world import quiet

T = TypeVar("T")

_RULES = 30
_LONG_ENOUGH_S = 800.0
_END = -1
value_sent = Signal[int]("value")
counted = State[int]("counted")
ids = st.sampled_from(["a", "b", "c"])


@step
async def note(value: int) -> tuple[int, str]:
    return value, step_info().idempotency_key  # the key is for the witness


@workflow
async def double(value: int) -> int:
    noted, _ = await note(value)
    return 2 * noted


@workflow
async def collect() -> list[int]:
    """Everything that is sent, until the end is sent: some by a child, some after a while."""
    seen: list[int] = []
    while (value := await value_sent.receive()) != _END:
        if value % 5 == 0:
            value = await double(value)
        elif value % 3 == 0:
            await asyncio.sleep(value)
        noted, _ = await note(value)
        seen.append(noted)
        counted.set(len(seen))
    return seen


class Modelled:
    """What must come of one run."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.sent = 0
        self.is_over = False
        self.is_cancelled = False

    def send(self, value: int) -> None:
        self.sent += 1
        if value == _END:
            self.is_over = True
        else:
            self.seen.append(2 * value if value % 5 == 0 else value)


class Runs(RuleBasedStateMachine):
    """A worker that crashes, and its clients."""

    make_witness: Callable[[], Witness] = Witness

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._quiet = quiet()
        self._quiet.__enter__()
        self._runner = asyncio.Runner(loop_factory=VirtualLoop)
        self._source = SeededSource(0)
        self._witness = self.make_witness()
        self._model: dict[str, Modelled] = {}
        self._numbers: dict[str, int] = {}
        self._url = self._new_store()
        self._do(self._open())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def _new_store(self) -> str:
        """The URL of a store that is not there yet."""
        return f"sqlite:///{Path(self._folder.name) / 'runs.db'}"

    async def _open(self) -> None:
        self._clock = VirtualClock()
        workflows = [collect, double]
        self._engine = SimulatedEngine(self._url, workflows=workflows, clock=self._clock, source=self._source)
        self._engine.latency_s = self._engine.read_latency_s = lambda: 0.0
        self._engine.witness = self._witness
        await self._engine.__aenter__()

    @rule(run_id=ids)
    def start(self, run_id: str) -> None:
        """The same id again is the same run, whatever became of it."""
        run = self._do(self._engine.start(collect(), id=run_id))
        self._model.setdefault(run_id, Modelled())
        assert self._numbers.setdefault(run_id, run._number) == run._number

    @rule(run_id=ids, value=st.integers(0, 20), twice=st.booleans())
    def send(self, run_id: str, value: int, twice: bool) -> None:
        """A signal counts once, however often it is sent under one id."""
        if run_id in self._model:
            self._send(run_id, value, twice=twice)

    @rule(run_id=ids)
    def finish(self, run_id: str) -> None:
        if run_id in self._model:
            self._send(run_id, _END, twice=False)

    def _send(self, run_id: str, value: int, *, twice: bool) -> None:
        model = self._model[run_id]
        name = f"{model.sent}"
        for _ in range(1 + twice):
            try:
                self._do(self._engine.send(run_id, value_sent, value, signal_id=name))
            except RunClosed:
                assert model.is_over or model.is_cancelled
                return
        if not model.is_over and not model.is_cancelled:
            model.send(value)

    @rule(run_id=ids)
    def cancel(self, run_id: str) -> None:
        """What was sent before is done before."""
        if run_id in self._model:
            self.let_time_pass()
            self._do(self._engine.cancel(run_id))
            self._model[run_id].is_cancelled = not self._model[run_id].is_over

    @rule()
    def crash(self) -> None:
        self._do(self._engine.kill())
        self._do(self._open())

    @rule()
    def deploy(self) -> None:
        self._do(self._engine.close())
        self._do(self._open())

    @rule()
    def let_time_pass(self) -> None:
        """All that was asked for is done by then."""
        self._do(self._come_to_rest())
        for run_id, model in self._model.items():
            self._do(self._look_at(run_id, model))

    async def _come_to_rest(self) -> None:
        await asyncio.sleep(_LONG_ENOUGH_S)
        # Five crashes in a row park a run: a person goes on with it.
        while parked := self._engine.faulty.list_runs(RunQuery(statuses=(Status.PARKED,))):
            for row in parked:
                await self._engine.resume(row.id)
            await asyncio.sleep(_LONG_ENOUGH_S)

    async def _look_at(self, run_id: str, model: Modelled) -> None:
        run = await self._engine.get(run_id, collect)
        assert await run.state(counted, 0) == len(model.seen), f"{run_id} should have {model.seen}"
        if model.is_cancelled:
            try:
                await run.result()
            except RunCancelled:
                return
            raise AssertionError(f"{run_id} was cancelled, and came to its end")
        if model.is_over:
            assert await run.result() == model.seen

    @invariant()
    def nothing_is_lost_and_nothing_is_made_up(self) -> None:
        assert not self._witness.broken, self._witness.broken
        rows = self._engine.faulty.list_runs(RunQuery())
        assert {row.id for row in rows if row.parent is None} == set(self._model)

    def teardown(self) -> None:
        self.let_time_pass()
        wrong = list(self._engine.faulty.check())
        self._do(self._engine.close())
        self._runner.close()
        self._quiet.__exit__(None, None, None)
        self._folder.cleanup()
        assert not wrong, wrong


def run_with(work: Work, machine: type[Runs]) -> Counted:
    """Try histories of `machine`, and the control."""
    broken = _explore(machine, work.trials, of_seed=work.seed)
    failures = [Failure(work.seed, broken)] if broken else []
    for failure in failures:
        work.report(failure)
    controls = _controls(work, machine) if work.is_whole else ()
    return Counted(work.trials, failures, controls, (), {"rules in each trial, at most": _RULES})


def _explore(
    machine: type[Runs],
    examples: int,
    *,
    of_seed: int,
    phases: Sequence[Phase] = (Phase.generate, Phase.shrink),
) -> str:
    """So many histories; what was broken in one of them."""
    how = settings(
        max_examples=examples, stateful_step_count=_RULES, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=phases, report_multiple_bugs=False,
    )  # fmt: skip

    @seed(of_seed)
    class Seeded(machine):
        pass

    try:
        run_state_machine_as_test(Seeded, settings=how)
    except Exception as error:
        return describe(error)
    return ""


def _controls(work: Work, machine: type[Runs]) -> Sequence[Control]:
    def keep(self: Inbox, message: Any) -> None:
        self._waiting.pop(message.pos, None)

    with replaced(Inbox, _take=keep):
        broken = _explore(machine, 40, of_seed=work.seed, phases=(Phase.generate,))
    return [Control("a message stays when its run has recorded it", bool(broken), broken[:160] or "nothing")]


ROW = Row(
    number=20,
    name="state machine",
    fault="Clients start, send, send again, cancel and end runs, in any order, between crashes and deploys.",
    how="Hypothesis makes the histories; runs have signals, children and timers; a pure model knows the end.",
    holds=(
        "each run has seen exactly what was sent to it, in order",
        "an id is one run, a signal's id one signal",
        "what was sent before a cancel is done before it",
        "the store is whole",
    ),
    trials=Trials(push=25, long=200, release=50_000),
    run=lambda work: run_with(work, Runs),
)
