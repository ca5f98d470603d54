"""Row 12: a commit is on disk, and its answer is lost.

The engine cannot know, so it stops; another opens the store. The caller cannot
know either, and asks again, with the same id. In a trial one commit in a hundred
to one in five goes like that, while four runs take steps and signals.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from perdure import Signal, StoreUnavailable, step, step_info, workflow
from perdure.stores.base import Batch
from perdure.testing import Harness
from perdure.testing.disk import FaultyDisk

from .life import what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance

T = TypeVar("T")

_RUNS = 4
_STEPS = 6
_SIGNALS = 3
_UNDO = "DELETE FROM record WHERE pos = (SELECT max(pos) FROM record)"

add = Signal[int]("add")


class _Ledger:
    """What was done in the world, and what was on disk before it."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], set[str]] = {}
        self.effects = 0
        self.numbers: dict[int, str] = {}
        self.recorded: set[tuple[str, str]] = set()
        self.wrong = ""

    def note(self, run_id: str, key: str, idempotency_key: str) -> None:
        self.effects += 1
        self.keys.setdefault((run_id, key), set()).add(idempotency_key)
        if (run_id, key) in self.recorded and not self.wrong:
            self.wrong = f"step {key} of run {run_id} was recorded, and ran again"

    def committed(self, batch: Batch) -> None:
        for record in batch.records:
            if record.run in self.numbers:
                self.recorded.add((self.numbers[record.run], record.key))


ledger = _Ledger()


@step
async def takes_effect(number: int) -> int:
    info = step_info()
    ledger.note(info.run_id, info.key, info.idempotency_key)
    return number


@workflow
async def counts_and_adds() -> int:
    total = 0
    for number in range(_STEPS):
        total += await takes_effect(number)
    for _ in range(_SIGNALS):
        total += await add.receive() * await takes_effect(10)
    return total


class _World:
    """A harness whose commits lose their answers, and callers who ask until they are answered."""

    def __init__(self, seed: int, folder: Path, totals: Counter[str], *, undone: bool) -> None:
        self._luck = chance(seed, "ambiguous")
        self._rate = self._luck.choice((0.01, 0.05, 0.1, 0.2))
        self._totals = totals
        self._undone = undone
        self._path = folder / "runs.db"
        self._harness = Harness(self._path, seed=seed, workflows=[counts_and_adds])

    async def live(self) -> None:
        await self._harness.open()
        self._arm()
        ids = [f"run-{n}" for n in range(_RUNS)]
        # Where a control has undone what a run waits for, nothing comes.
        patience_s = 1 if self._undone else 60
        await asyncio.wait_for(asyncio.gather(*map(self._use, ids)), patience_s)
        await self._harness.stop()

    def _arm(self) -> None:
        store = self._harness.store
        store.before_commit = self._maybe_lose
        store.after_commit = ledger.committed

    def _maybe_lose(self, batch: Batch) -> None:
        if self._luck.random() < self._rate:
            self._totals["answers lost"] += 1
            self._harness.store.fail_after_commit()

    async def _use(self, run_id: str) -> None:
        run = await self._insist(lambda: self._harness.start(counts_and_adds(), id=run_id))
        ledger.numbers[run._number] = run_id
        for number in range(1, _SIGNALS + 1):
            await self._insist(lambda number=number: run.send(add, number, id=f"add-{number}"))
        total = await self._insist(run.result)
        expected = sum(range(_STEPS)) + 10 * sum(range(1, _SIGNALS + 1))
        assert total == expected, f"run {run_id} came to {total}, and should come to {expected}"

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            engine = self._harness.engine
            try:
                return await ask()
            except StoreUnavailable:
                if self._harness.engine is engine:
                    await self._take_over()

    async def _take_over(self) -> None:
        engine = self._harness.engine
        await self._harness.stop()
        if self._harness.engine is not engine:
            return
        if self._undone:
            connection = apsw.Connection(str(self._path))
            connection.execute(_UNDO)
            connection.close()
        await self._harness.open()
        self._arm()


def _trial(seed: int, folder: Path, totals: Counter[str], *, undone: bool = False) -> None:
    global ledger  # noqa: PLW0603 (steps have no other way to the trial that they run in)
    ledger = _Ledger()
    with FaultyDisk():  # for speed: nothing is really synced
        asyncio.run(_World(seed, folder, totals, undone=undone).live())
    assert not ledger.wrong, ledger.wrong
    steps = _RUNS * (_STEPS + _SIGNALS)
    assert len(ledger.keys) == steps, f"{len(ledger.keys)} steps had effects, of {steps}"
    for step_of, keys in ledger.keys.items():
        assert len(keys) == 1, f"step {step_of} had {len(keys)} idempotency keys"
    totals["effects made again"] += ledger.effects - steps


def run(work: Work) -> Counted:
    totals = Counter[str]()
    return work.counted(lambda seed, folder: _trial(seed, folder, totals), controls=_controls, figures=totals)


def _controls(work: Work) -> Sequence[Control]:
    def undo(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _trial(seed, folder, Counter(), undone=True)

    noticed = what_was_noticed(undo, range(20))
    seen = f"noticed in {len(noticed)} of 20 trials"
    return [Control("the commit is undone, as if its answer had told the truth", len(noticed) > 5, seen)]


ROW = Row(
    12,
    "ambiguous commit",
    fault="A commit is on disk, and its answer is lost.",
    how="The store writes, and raises all the same, in 1 to 20 % of the commits of a real engine.",
    holds=[
        "an id starts once, and a signal with an id is taken once",
        "a recorded step does not run again",
        "a step that does has the same idempotency key",
        "every run comes to its result",
    ],
    trials=Trials(push=300, long=3_000, release=200_000),
    run=run,
)
