"""Row 4: an operation of the disk fails, whichever it is.

A script of verbs is run once to count its operations, and then once for each of
them and each way in which it can fail: an I/O error, half a write, no space, each
of them once or for good. What cannot be done is said as a typed error; what was
read was right; and when the disk is well again, the store goes on.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from perdure.errors import StoreError
from perdure.testing.disk import Fault, FaultyDisk, Operation

from .life import Life, make_template, what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance

_VERBS = 6
_WAYS = ((Fault.ERROR, "any"), (Fault.SHORT, "write"), (Fault.FULL, "write"))


def run(work: Work) -> Counted:
    """Each seed is a script; in it every operation fails, in every way that it can."""
    template = make_template(work.folder)
    totals = Counter[str]()

    def trial(seed: int, folder: Path) -> None:
        counts = _count(seed, folder, template)
        for fault, what in _WAYS:
            among = counts.total() if what == "any" else counts["write"]
            for nth in range(1, among + 1):
                for lasting in (False, True) if work.tier != "push" or nth % 5 == 0 else (False,):
                    inside = folder / f"{fault.value}-{nth}-{lasting}"
                    inside.mkdir()
                    _fail_one(seed, inside, template, fault, nth, lasting=lasting)
                    shutil.rmtree(inside)
                    totals["operations that failed"] += 1

    counted = work.counted(trial, controls=lambda work: _controls(work, template))
    return Counted(
        totals["operations that failed"],
        counted.failures,
        counted.controls,
        figures={"scripts": counted.trials},
    )


def _count(seed: int, folder: Path, template: Path) -> Counter[Operation]:
    """The operations of a life in which nothing fails."""
    inside = folder / "count"
    inside.mkdir()
    life = Life(inside, chance(seed, "errors"), template=template)
    with FaultyDisk() as disk:
        life.open()
        for _ in range(_VERBS):
            life.act()
        life.close()
        life.judge(life.place)
    life.end()
    return disk.counts


def _fail_one(
    seed: int, folder: Path, template: Path, fault: Fault, nth: int, *, lasting: bool, planted: bool = False
) -> None:
    life = Life(folder, chance(seed, "errors"), template=template)
    life.takes_errors_for_success = planted
    try:
        with FaultyDisk() as disk:
            disk.fail(fault, nth=nth, lasting=lasting)
            # A verb that failed may have been written; a worker opens anew before it goes on.
            _live(life)
            disk.mend()
            life.give_up()
            life.judge(life.place)
            life.open()
            for _ in range(3):
                life.act()
            life.close()
            life.judge(life.place)
    finally:
        life.end()


def _live(life: Life) -> None:
    try:
        life.open()
        for _ in range(_VERBS):
            life.act()
        life.close()
    except StoreError:
        pass


def _controls(work: Work, template: Path) -> Sequence[Control]:
    def believe(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _fail_one(seed, folder, template, Fault.ERROR, 30 + 7 * seed, lasting=True, planted=True)

    noticed = what_was_noticed(believe, range(20))
    return [
        Control("an error is taken for success", bool(noticed), f"noticed in {len(noticed)} of 20 trials")
    ]


ROW = Row(
    4,
    "a disk that fails",
    fault="An operation of the disk fails: an I/O error, half a write, no space.",
    how="The VFS lets each operation of a script fail, one by one, once or for good.",
    holds=[
        "what was acknowledged is there",
        "a commit is whole or not there",
        "every error is one of ours, and nothing read is wrong",
        "the store goes on when the disk is well",
    ],
    trials=Trials(push=1, long=3, release=200),
    run=run,
)
