"""Row 6: a sync fails once, and the next ones succeed without having kept what it lost.

That is what Linux does: after a failed fsync the pages count as clean. So the disk
here drops what was to be synced, while every program still sees it. A store that
goes on after that, or that a new process takes up where it stood, builds on what
is not there; the power is cut some time later to show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from perdure.errors import StoreError, StoreUnavailable
from perdure.stores.sqlite import SqliteStore
from perdure.testing.disk import FaultyDisk
from perdure.testing.source import SeededSource

from .life import NAME, Life, make_template, what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance


def run(work: Work) -> Counted:
    template = make_template(work.folder)
    totals = Counter[str]()

    def trial(seed: int, folder: Path) -> None:
        _trial(seed, folder, template, totals)

    return work.counted(trial, controls=lambda work: _controls(work, template), figures=totals)


def _trial(seed: int, folder: Path, template: Path, totals: Counter[str], *, planted: bool = False) -> None:
    luck = chance(seed, "sync")
    life = Life(folder, luck, template=template)
    life.takes_errors_for_success = planted
    try:
        with FaultyDisk() as disk:
            life.open()
            disk.fail(nth=luck.randint(1, 30), of={"sync"})
            error = _live(life, luck.randrange(10, 60))
            if disk.faults_made:
                totals["syncs that failed"] += 1
                if error is not None:
                    _expect_stop(life, error)
                    disk.is_dead = luck.random() < 0.7  # killed: it cannot even close its files
                    life.give_up()
                    disk.is_dead = False
                    # While another has it open, to look does not write the log into the file.
                    keeper = SqliteStore(life.place / NAME)
                    life.judge(life.place)
                    life.open()
                    keeper.close()
                _live(life, luck.randrange(1, 30))
            after = folder / "after"
            disk.survivors(life.place, after, SeededSource(seed))
            life.give_up()
        with FaultyDisk():
            life.judge(after)
    finally:
        life.end()


def _live(life: Life, verbs: int) -> StoreError | None:
    try:
        for _ in range(verbs):
            life.act()
    except StoreError as error:
        return error
    return None


def _expect_stop(life: Life, error: StoreError) -> None:
    """Whoever met the failed sync writes no more through the connection that met it."""
    assert isinstance(error, StoreUnavailable), f"a failed sync was told as {error!r}"
    if life.doubt is None:
        return  # it met a store that was closing, or a reader
    again = life.try_again()
    assert again is not None, "a store whose sync had failed went on writing"
    assert "sync" in again.what, f"it was refused, but not for the sync: {again.what}"


def _controls(work: Work, template: Path) -> Sequence[Control]:
    def believe(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _trial(seed, folder, template, Counter(), planted=True)

    noticed = what_was_noticed(believe, range(60))
    seen = f"noticed in {len(noticed)} of 60 trials"
    return [Control("a failed sync is taken for success", bool(noticed), seen)]


ROW = Row(
    6,
    "a sync that fails once",
    fault="A sync fails, and the next ones succeed although the data is lost.",
    how="The VFS fails one sync and drops what it should have kept; the power goes some time later.",
    holds=[
        "the store stops, and does not try the sync again",
        "what was acknowledged, before and after, is there",
        "the file passes every check",
    ],
    trials=Trials(push=300, long=2_000, release=100_000),
    run=run,
)
