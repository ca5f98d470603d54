"""Row 3: the power goes in the middle of anything.

The disk is `perdure.testing.FaultyDisk`: what was not synced is kept, lost or torn
by the sector, in any order; files whose folder was not synced may be gone, removed
ones back. Each trial is up to three lives of one file with a worker and a client,
one in five from its very first byte on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from perdure.errors import StoreError
from perdure.testing.disk import FaultyDisk
from perdure.testing.source import SeededSource

from .life import Life, make_template, what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance

_VERBS_MAX = 80


def run(work: Work) -> Counted:
    template = make_template(work.folder)
    totals = Counter[str]()

    def trial(seed: int, folder: Path) -> None:
        _trial(seed, folder, template, totals)

    return work.counted(trial, controls=lambda work: _controls(work, template), figures=totals)


def _trial(
    seed: int, folder: Path, template: Path, totals: Counter[str], *, synchronous: str = "FULL"
) -> None:
    luck = chance(seed, "power")
    source = SeededSource(seed)
    life = Life(folder, luck, template=template if luck.random() < 0.8 else None)
    try:
        for number in range(1, luck.randint(2, 4)):
            with FaultyDisk() as disk:
                disk.cut_power(nth=round(10 ** luck.uniform(0.5, 3.5)))
                try:
                    life.open(synchronous=synchronous)
                    for _ in range(luck.randrange(_VERBS_MAX)):
                        life.act()
                except StoreError:
                    assert disk.is_dead, "the store failed while the disk was well"
                after = folder / str(number)
                disk.survivors(life.place, after, source)
                life.give_up()
            with FaultyDisk():
                life.judge(after)
            totals["power losses"] += 1
            totals["disk operations"] += disk.operations
        totals["acknowledged writes"] += life.acknowledged
    finally:
        life.end()


def _controls(work: Work, template: Path) -> Sequence[Control]:
    return [_control(work, template, synchronous) for synchronous in ("NORMAL", "OFF")]


def _control(work: Work, template: Path, synchronous: str) -> Control:
    tried = work.size(push=100, long=1_000, release=1_000)

    def weak(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _trial(seed, folder, template, Counter(), synchronous=synchronous)

    noticed = what_was_noticed(weak, range(tried))
    lost = sum("not what was acknowledged" in what for what in noticed)
    seen = f"of {tried} trials {lost} lost acknowledged writes, {len(noticed) - lost} left a damaged file"
    # NORMAL may lose, and must not damage; OFF may do both.
    caught = lost > 0 if synchronous == "NORMAL" else len(noticed) > lost
    return Control(f"`synchronous={synchronous}`", caught, seen)


ROW = Row(
    3,
    "power loss",
    fault="The power goes: what was not synced is lost, torn or out of order.",
    how="An SQLite VFS under the real store, cut at a random operation, up to three times for a file.",
    holds=[
        "no acknowledged start, signal or record is lost",
        "a commit is whole or not there",
        "the file opens, and passes every check",
    ],
    trials=Trials(push=1_000, long=5_000, release=500_000),
    run=run,
)
