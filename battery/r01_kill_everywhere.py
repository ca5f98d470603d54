"""Row 1: the process is killed at every moment that has a name, and at every pair of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import orders
from .lives import Life, Witness
from .orders import Death
from .planted import caught_by, delivering_early
from .row import Control, Row, Trials, Work

Moment = tuple[str, int]
_LIVES_MAX = 10


@cache
def moments() -> list[Moment]:
    """All moments that a life has in which nothing goes wrong, one after the other of each kind."""
    with TemporaryDirectory() as folder:
        witness = Witness(Path(folder))
        told = Path(folder) / "seen"

        async def look_on() -> None:
            death = Death()
            await orders.work(witness, death)
            told.write_text(repr(dict(death.seen)))

        Life(look_on, errors=witness.errors).end()
        witness.close()
        seen: dict[str, int] = eval(told.read_text())
    return [(kind, number) for kind in sorted(seen) for number in range(1, seen[kind] + 1)]


def _deaths(seed: int) -> list[Moment]:
    """First each moment alone, then each pair: one in the first life, one in the second."""
    single = moments()
    if seed < len(single):
        return [single[seed]]
    # 7,919 is prime: the short tiers see pairs from all over.
    number = (seed - len(single)) * 7_919 % len(single) ** 2
    return [single[number // len(single)], single[number % len(single)]]


def _trial(seed: int, folder: Path) -> None:
    _die_at(_deaths(seed), folder, nullcontext())


def _die_at(deaths: list[Moment], folder: Path, planted: AbstractContextManager[object]) -> None:
    witness = Witness(folder)
    try:
        for death in deaths:
            Life(_life(witness, Death((death,)), planted), errors=witness.errors).end()
            witness.look()
        for _ in range(_LIVES_MAX):
            if Life(_life(witness, Death(), planted), errors=witness.errors).end():
                break
        witness.look()
        orders.assert_all_was_done(witness)
    finally:
        witness.close()


def _life(
    witness: Witness, death: Death, planted: AbstractContextManager[object]
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def live() -> None:
        with planted:
            await orders.work(witness, death)

    return live


def _controls(work: Work) -> Sequence[Control]:
    """A worker that delivers what is not on disk, killed before each commit."""
    armed = [moment for moment in moments() if moment[0] == "before commit"]
    seen: list[str] = []
    for moment in armed:
        with work.fresh_folder() as folder:
            broken = caught_by(lambda at=moment, place=folder: _die_at([at], place, delivering_early()))
        if broken:
            seen.append(broken)
    said = f"in {len(seen)} of {len(armed)} deaths before a commit: {seen[0] if seen else 'nothing'}"
    return [Control("results are delivered before they are on disk", bool(seen), said)]


ROW = Row(
    number=1,
    name="kill -9 everywhere",
    fault="The process dies by SIGKILL in a moment that has a name: before or after a commit, before or "
    "after an effect; and, in its next life, in another one.",
    how="Armed points in a forked process; every one of them, and pairs.",
    holds=(
        "nothing acknowledged is lost",
        "a step on record is not done again, and one that is interrupted has the same idempotency key",
        "no step begins before the results that it stands on are on disk",
        "the store is whole",
        "every run comes to its right end",
    ),
    trials=Trials(push=100, long=1_500, release=40_000),
    run=lambda work: work.counted(_trial, controls=_controls, figures={"moments": len(moments())}),
)
