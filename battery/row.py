"""What a row of the battery is: a fault, how it is made, what must hold, how often it is tried.

A row's file has one `ROW`. Its `run` gets a `Work` and gives a `Counted`:

    def run(work: Work) -> Counted:
        return work.counted(_trial, controls=_controls)

    ROW = Row(3, "power loss", …, trials=Trials(push=1_000, long=200_000, release=2_000_000), run=run)

A trial is a function of a seed and an empty folder. It raises when something does not hold; all
chance in it comes from `chance(seed)`, so that the seed repeats it.
"""

from __future__ import annotations

import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

Tier: TypeAlias = Literal["push", "long", "release"]
TIERS: tuple[Tier, ...] = ("push", "long", "release")

_FAILURES_MAX = 10
"""After so many a row gives up: one is enough to know."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One trial in which something did not hold."""

    seed: int
    what: str


@dataclass(frozen=True, slots=True)
class Control:
    """A fault that was planted to see whether the row would notice."""

    planted: str
    """What was broken on purpose: `synchronous=NORMAL`."""
    caught: bool
    seen: str
    """What the row saw of it: `lost acknowledged commits in 61 of 200 power losses`."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of a row."""

    trials: int
    failures: Sequence[Failure] = ()
    controls: Sequence[Control] = ()
    notes: Sequence[str] = ()
    """What else is worth knowing, a sentence each."""
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was counted or measured besides, by name with its unit: `faults made`, `CPU while full, %`."""


@dataclass(frozen=True, slots=True)
class Trials:
    """How often a row is tried in each tier. A tier without a number is not run in it."""

    push: int
    long: int
    release: int

    def of(self, tier: Tier) -> int:
        return {"push": self.push, "long": self.long, "release": self.release}[tier]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of reliability."""

    number: int
    """Of the table; kept for ever."""
    name: str
    fault: str
    """What goes wrong, in a sentence."""
    how: str
    """How it is made to go wrong, in a sentence."""
    holds: Sequence[str]
    """What must hold all the same, a short sentence each."""
    trials: Trials
    run: Callable[[Work], Counted]


class Work:
    """What a row is given: how often to try, from which seed on, and a folder of its own."""

    def __init__(self, row: Row, tier: Tier, *, seed: int, trials: int | None, folder: Path) -> None:
        """`trials` is how often to try; None: as often as the tier says."""
        self.row = row
        self.tier: Tier = tier
        self.seed = seed
        self.trials = row.trials.of(tier) if trials is None else trials
        self.is_whole = trials is None
        """Whether this is the row as its tier wants it, and not the repeat of one trial."""
        self.folder = folder

    def size(self, *, push: int, long: int, release: int) -> int:
        """One of the three, for what is not a number of trials."""
        return {"push": push, "long": long, "release": release}[self.tier]

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.trials)

    @contextmanager
    def fresh_folder(self, name: str = "trial") -> Iterator[Path]:
        """An empty folder that goes when the block ends."""
        folder = self.folder / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def failures(self, trial: Callable[[int, Path], object], *, seeds: range | None = None) -> list[Failure]:
        """Try each seed, each in an empty folder; give those in which something was raised.

        Says at once, on stderr, how to repeat a failure. Gives up after ten.
        """
        failures: list[Failure] = []
        for seed in self.seeds if seeds is None else seeds:
            try:
                with self.fresh_folder() as folder:
                    trial(seed, folder)
            except Exception as error:
                failures.append(Failure(seed, describe(error)))
                self.report(failures[-1])
                if len(failures) == _FAILURES_MAX:
                    break
        return failures

    def counted(
        self,
        trial: Callable[[int, Path], object],
        *,
        controls: Callable[[Work], Sequence[Control]],
        notes: Sequence[str] = (),
        figures: Mapping[str, float] | None = None,
    ) -> Counted:
        """Try each seed, then the controls; the whole of what most rows do.

        A repeat of one trial (`--trials`) has no controls.
        """
        failures = self.failures(trial)
        tried = failures[-1].seed - self.seed + 1 if len(failures) == _FAILURES_MAX else self.trials
        planted = controls(self) if self.is_whole else ()
        return Counted(tried, failures, planted, notes, figures or {})

    def report(self, failure: Failure) -> None:
        """Say what failed, and the one command that repeats it."""
        print(
            f"  {failure.what}\n  again: {again(self.row, self.tier, failure.seed)}",
            file=sys.stderr,
            flush=True,
        )


def again(row: Row, tier: Tier, seed: int) -> str:
    """The command that repeats one trial. A trial may be larger in a longer tier."""
    longer = "" if tier == "push" else f" --tier {tier}"
    return f"scripts/battery {row.number}{longer} --seed {seed} --trials 1"


def chance(seed: int, *of: object) -> random.Random:
    """A source of chance in which everything follows from the seed (and what else is named)."""
    return random.Random("/".join(map(str, (seed, *of))))


def describe(error: BaseException) -> str:
    """What was raised, and in which line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "/battery/" in frame.filename] or frames
    where = f" ({Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else ""
    return f"{type(error).__name__}: {error}{where}"
