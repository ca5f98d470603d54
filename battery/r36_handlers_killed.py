"""Row 36: workers that handle events are killed at random instants, and so is who appends them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from perdure.stores.sqlite import SqliteStore

from .handled import Planted, Scene
from .planted import beginning_events_early, counting_events_as_done_early, first_caught
from .row import Control, Counted, Row, Trials, Work, chance

_KILLS = 10
_WORKERS = 2
_LONGEST_LIFE_S = 0.08
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 60.0, 1.5
_SEEDS_FOR_A_CONTROL = 20


def _run(work: Work) -> Counted:
    counted = work.counted(_trial, controls=_controls)
    return replace(counted, figures={"kills": _KILLS * counted.trials})


def _trial(seed: int, folder: Path) -> None:
    _live_and_die(seed, folder, nullcontext, _PATIENCE_S)


def _live_and_die(seed: int, folder: Path, planted: Planted, patience_s: float) -> None:
    draw = chance(seed)
    store = folder / "runs.db"
    SqliteStore(store).close()
    scene = Scene(folder, f"sqlite:///{store}", workers=_WORKERS, planted=planted, patience_s=patience_s)
    try:
        for _ in range(_KILLS):
            scene.live_for(draw.random() * _LONGEST_LIFE_S)
            scene.replace_one(draw)
        scene.come_to_the_end()
    finally:
        scene.kill_all()


def _controls(work: Work) -> Sequence[Control]:
    def play(planted: Planted, seed: int, folder: Path) -> None:
        _live_and_die(seed, folder, planted, _PATIENCE_OF_A_CONTROL_S)

    plants: dict[str, Planted] = {
        "an event counts as done when it is begun": counting_events_as_done_early,
        "the next event of a key does not wait for the disk": beginning_events_early,
    }
    return [
        first_caught(
            work, name, lambda seed, folder, planted=planted: play(planted, seed, folder),
            seeds=_SEEDS_FOR_A_CONTROL,
        )
        for name, planted in plants.items()
    ]  # fmt: skip


ROW = Row(
    number=36,
    name="handlers killed",
    fault="One of two workers that handle events, or who appends them, is killed by SIGKILL.",
    how="Forked processes on one file, and a real `kill -9` at a random instant, ten in each trial.",
    holds=(
        "each event is in the stream once, at one position",
        "each event is handled until its handler is done",
        "the next event of a key is not begun before; after it was, none before it is given again",
        "an event has one idempotency key, whichever worker handles it",
    ),
    trials=Trials(push=10, long=300, release=5_000),
    run=_run,
)
