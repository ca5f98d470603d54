"""Row 19: runs with very long journals, thousands of signals, deep chains of children, wide fans of steps."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from perdure import Engine, Signal, step, workflow
from perdure.core.execution import Execution

from .lives import Life
from .planted import replaced
from .row import Control, Counted, Failure, Row, Trials, Work, describe

_GROWTH_MAX = 2.3
"""t(2n) / t(n) of a replay: 2 is linear."""
_RSS_MAX_MIB = 700
_REPEATS = 5
go = Signal[int]("go")
number = Signal[int]("number")


@step
async def same(value: int) -> int:
    return value


@workflow
async def walk(steps: int) -> int:
    total = 0
    for value in range(steps):
        total += await same(value)
    await go.receive()
    return total


@workflow
async def fan_out(steps: int) -> int:
    values = await asyncio.gather(*(same(value) for value in range(steps)))
    await go.receive()
    return sum(values)


@workflow
async def listen(signals: int) -> int:
    total = 0
    for _ in range(signals):
        total += await number.receive()
    await go.receive()
    return total


@workflow
async def descend(depth: int) -> int:
    return 1 if depth == 0 else 1 + await descend(depth - 1)


def _run(work: Work) -> Counted:
    """Every shape once; each in a process of its own, whose memory is watched."""
    long = work.size(push=10_000, long=50_000, release=50_000)
    shapes: list[tuple[str, Callable[[Path], Coroutine[Any, Any, None]]]] = [
        (f"{long:,} steps one by one", lambda folder: _grow(folder, walk, long, _record_steps)),
        ("10,000 steps at once", lambda folder: _grow(folder, fan_out, 10_000, _record_steps)),
        ("10,000 signals", lambda folder: _grow(folder, listen, 10_000, _send_signals)),
        ("1,000 children, one inside the other", _descend),
    ]
    failures: list[Failure] = []
    figures: dict[str, float] = {}
    for place, (what, play) in enumerate(shapes):
        with work.fresh_folder() as folder:
            began = time.perf_counter()
            try:
                _watch(play, folder)
            except AssertionError as error:
                failures.append(Failure(place, f"{what}: {describe(error)}"))
                work.report(failures[-1])
            figures[f"{what}, s"] = round(time.perf_counter() - began, 2)
            grown = folder / "growth"
            if grown.exists():
                figures[f"{what}, replay t(2n)/t(n)"] = float(grown.read_text(encoding="ascii"))
    controls = _controls(work) if work.is_whole else ()
    return Counted(len(shapes), failures, controls, (), figures)


def _watch(play: Callable[[Path], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def live() -> None:
        await play(folder)
        rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert rss_mib < _RSS_MAX_MIB, f"I13: it took {rss_mib:.0f} MiB"

    assert Life(live, errors=folder / "errors").end(patience_s=250), "it was killed"


async def _grow(folder: Path, definition: Any, size: int, fill: Callable[[Engine, str, int], Any]) -> None:
    """A run of half the size and one of the size: their replays, one after the other, some times over."""
    url = f"sqlite:///{folder / 'runs.db'}"
    async with Engine(url) as engine:
        for run_id, count in (("half", size // 2), ("whole", size)):
            await engine.start(definition(count), id=run_id)
            await fill(engine, run_id, count)
    growth = await _replay_growth(url)
    (folder / "growth").write_text(f"{growth:.2f}", encoding="ascii")
    assert growth < _GROWTH_MAX, f"a replay of twice the length takes {growth:.1f} times as long"
    async with Engine(url) as engine:
        run = await engine.get("whole", definition)
        await run.send(go, 1)
        assert await run.result() == size * (size - 1) // 2


async def _record_steps(engine: Engine, run_id: str, count: int) -> None:
    """Wait until so much is on record, and nothing is under way."""
    driver = engine._driver
    assert driver is not None
    run = next(resident for resident in driver.residents.values() if resident.row.id == run_id)
    while run.seq < count or run.in_flight or run.recorded:  # noqa: ASYNC110 (a benchmark adds no hooks)
        await asyncio.sleep(0.01)


async def _send_signals(engine: Engine, run_id: str, count: int) -> None:
    for start in range(0, count, 500):
        values = range(start, min(start + 500, count))
        await asyncio.gather(*(engine.send(run_id, number, value) for value in values))
    await _record_steps(engine, run_id, count)


async def _replay_growth(url: str) -> float:
    """How much longer the replay of the whole takes than that of the half; of each the least disturbed."""
    spent: dict[str, list[float]] = {"half": [], "whole": []}
    for _ in range(_REPEATS):
        async with Engine(url) as engine:
            for run_id, times in spent.items():
                times.append(_replay_s(engine._driver, run_id))
    return min(spent["whole"]) / min(spent["half"])


def _replay_s(driver: Any, run_id: str) -> float:
    row = driver.store.run_by_id(run_id)
    records = driver.store.records(row.number)
    definition = driver.registry.find(row.workflow)
    execution = driver.make_resident(row).execution
    began = time.process_time()
    with driver.turn:
        execution.foresee_patches(records)
        execution.begin(definition.body(row.input), definition.encode_result)
        execution.replay(records)
    spent = time.process_time() - began
    execution.drop()
    return spent


async def _descend(folder: Path) -> None:
    async with Engine(f"sqlite:///{folder / 'runs.db'}") as engine:
        assert await engine.run(descend(1_000)) == 1_001


def _controls(work: Work) -> Sequence[Control]:
    """A replay that looks through all that it had before, at each record: it must be seen to grow faster."""
    replay_one = Execution.apply

    def look_back(self: Execution, record: Any, value: Any = ...) -> None:
        sum(range(self.seq))
        if value is ...:
            replay_one(self, record)
        else:
            replay_one(self, record, value)

    with work.fresh_folder() as folder, replaced(Execution, apply=look_back):
        try:
            _watch(lambda place: _grow(place, walk, 8_000, _record_steps), folder)
        except AssertionError as error:
            return [Control("each record costs more than the one before", True, str(error)[-120:].strip())]
    return [Control("each record costs more than the one before", False, "nothing")]


ROW = Row(
    number=19,
    name="deep histories",
    fault="A run has a very long journal, thousands of signals, children a thousand deep, or steps by the "
    "thousand at once.",
    how="Each shape in a process of its own; its replay is timed, and that of one half as long.",
    holds=(
        f"a replay is linear: t(2n) / t(n) below {_GROWTH_MAX}",
        f"no process takes more than {_RSS_MAX_MIB} MiB",
        "each run comes to its right end",
    ),
    trials=Trials(push=4, long=4, release=4),
    run=_run,
)
