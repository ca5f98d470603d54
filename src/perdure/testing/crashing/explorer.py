"""Crashing one scenario wherever it can be crashed, and saying what came of it.

A scenario is run once to learn its spots, then once for each of them. Each run gets
a fresh world of the user's, and must come to the end of the run without a crash.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ...blocks.handler import Handler
from ...blocks.stream import Stream
from ...blocks.workflow import WorkflowCall
from ...core.records import Status
from ...errors import PerdureError
from ...runtime.collector import collector
from ...runtime.subscriptions import Subscribing
from ..clock import START_MS, ManualClock
from ..events import Event
from ..journals import JournalStep, describe_journals, steps_of
from .conserving import Kept, not_conserved, picture_of_streams
from .disks import Disk, give_back, take_disk
from .doomed import DoomedEngine
from .judging import Picture, Replays, all_runs, compare, leftovers, parked, take_picture
from .left import Left
from .living import Driving, NeverEnds
from .spots import DEATHS, FAULTS, Fault, Spot, read_spots, write_spots
from .turning import watched_turns
from .world import Effect, World

W = TypeVar("W")
E = TypeVar("E")

_ANOTHER_DAY_MS = 100_000_007
"""So much later the run is tried once more, when results differ after a crash that has changed the time."""


@dataclass(frozen=True, slots=True)
class Crashed(Generic[W]):
    """One crash run that has come to its end, for `check` to look at."""

    crash: str
    """Where it was crashed: `charge/1:after-effect`; empty for the run without a crash."""
    world: W
    """What `setup` gave."""
    result: Any
    """What the run returned; None if it failed, or there was none."""
    error: Exception | None
    """What `run.result()` raised."""
    effects: Sequence[Effect]
    """Every call of a step's or a handler's function, in all lives, in the order in which they began."""
    look: Callable[[], Sequence[JournalStep]]
    left: Left | None = None
    """What is on disk; None with `process=True`."""

    @property
    def steps(self) -> Sequence[JournalStep]:
        """The recorded steps of the run, without those of its children."""
        return self.look()

    def events(self, stream: Stream[E]) -> list[E]:
        """The values of a stream's events, in order."""
        return self._left().events(stream)

    def parked(self, handler: Handler[E]) -> list[E]:
        """The values of the events that a handler has parked, in order."""
        return self._left().parked(handler)

    def query(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """What a SELECT finds in the store's database: what a `transaction=True` has written."""
        return self._left().query(sql, *bindings)

    def _left(self) -> Left:
        if self.left is None:
            raise PerdureError(
                "Nothing of a crash run in processes is left.", hint="Do without process=True."
            )
        return self.left


@dataclass(frozen=True, slots=True)
class Crashes:
    """What `crash_everywhere` has done."""

    runs: int
    """How many crash runs there were, besides the one without a crash."""
    spots: tuple[str, ...]
    """Where: `charge/1:after-effect`, or two with a comma between for pairs."""
    by_kind: Mapping[str, int]
    """How many spots of each kind."""
    missed: tuple[str, ...]
    """Spots that the crash run did not come by: steps on threads do not always end in the same order."""
    compared: bool
    """Whether all runs came to the same end. False when that depends on the time, which a crash changes."""

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.by_kind.items())
        return f"<{self.runs} crash runs: {kinds}>"


class CrashFailure(AssertionError):
    """A crash run did not come out right. The message's first line reproduces it."""


class Trial(Protocol):
    """One crash run's own: a fresh world of the user's, and what is to run in it."""

    @property
    def call(self) -> WorkflowCall[Any] | None: ...
    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def handlers(self) -> Sequence[Subscribing] | None:
        """Those that are served; None: all that are defined."""
        ...

    async def finish(self, crashed: Crashed[Any]) -> None:
        """Look at what came of it; raises what is wrong."""
        ...

    def abandon(self) -> None:
        """It did not come to its end."""
        ...


class Scenario(Protocol):
    """What is to be crashed."""

    @property
    def again(self) -> str:
        """How to run one crash again, with `{crash}` where its name goes."""
        ...

    async def begin(self) -> Trial:
        """Make a fresh world."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How one crash run went, and ended."""

    passed: Sequence[Sequence[tuple[str, Fault]]]
    """Where each life can be crashed, besides where it was."""
    missed: bool
    """Whether it did not come by where it was to be crashed."""
    wrong: str
    """Which law was broken; empty when none was."""
    picture: Picture
    journals: str
    crashed: Crashed[Any]
    ended_ms: int | None = None
    """What the clock showed in the end, where that is known."""


class Explorer:
    """Crashes one scenario wherever it can be."""

    def __init__(self, scenario: Scenario, kinds: Collection[Fault] = FAULTS) -> None:
        self._scenario = scenario
        self._kinds = kinds
        self._replays = Replays()
        self._reference: Picture | None = None
        self._ended_ms: int | None = None
        """What the clock showed in the end of the run without a crash."""
        self._compared = True
        self._disk: Disk | None = None

    async def explore(self, *, pairs: bool, crash: str | None) -> Crashes:
        """All crash runs, or the one that is named."""
        collector.relax()
        try:
            with watched_turns():
                crashes = await self._explore(pairs=pairs, crash=crash)
            self._give_back_disk()
            return crashes
        finally:
            collector.restore()
            self._let_go_of_disk()

    async def _explore(self, *, pairs: bool, crash: str | None) -> Crashes:
        learnt = (await self._run(())).passed[0]
        done: list[tuple[Spot, ...]] = []
        missed: list[tuple[Spot, ...]] = []
        if crash is not None:
            wanted = read_spots(crash)
            if (await self._run(wanted)).missed:
                moments = ", ".join(str(Spot(*where)) for where in dict.fromkeys(learnt))
                raise PerdureError(f"The run does not come by {crash!r}.", hint=f"It comes by {moments}.")
            done.append(wanted)
        else:
            for spot in self._of_kinds(learnt):
                ending = await self._run((spot,))
                (missed if ending.missed else done).append((spot,))
                if pairs and spot.fault in DEATHS and not ending.missed:
                    await self._pairs(spot, ending.passed[1], done, missed)
        # Last, since a crash tells more: what the run without one has recorded must replay too.
        self._replays.forget()
        await self._run(())
        kinds = Counter(spot.fault for spots in done for spot in spots)
        return Crashes(
            runs=len(done),
            spots=tuple(write_spots(spots) for spots in done),
            by_kind={kind: kinds[kind] for kind in FAULTS if kinds[kind]},
            missed=tuple(write_spots(spots) for spots in missed),
            compared=self._compared,
        )

    async def _pairs(
        self,
        first: Spot,
        passed: Sequence[tuple[str, Fault]],
        done: list[tuple[Spot, ...]],
        missed: list[tuple[Spot, ...]],
    ) -> None:
        """Crash once more, wherever the second worker can be."""
        for second in self._of_kinds(passed):
            if second.fault in DEATHS:
                ending = await self._run((first, second))
                (missed if ending.missed else done).append((first, second))

    def _of_kinds(self, passed: Sequence[tuple[str, Fault]]) -> list[Spot]:
        return [Spot(moment, fault) for moment, fault in dict.fromkeys(passed) if fault in self._kinds]

    # -- one crash run ---------------------------------------------------------------------------

    async def _run(self, spots: tuple[Spot, ...]) -> Ending:
        trial = await self._scenario.begin()
        try:
            ending = await self.bring_to_end(trial, spots, START_MS)
            wrong = ending.wrong
            if self._reference is None and not wrong:
                self._reference, self._ended_ms = ending.picture, ending.ended_ms
            elif self._compared and not wrong:
                wrong = await self._compare(ending)
            if wrong:
                raise CrashFailure(self._message(spots, wrong, ending))
            await self._finish(trial, spots, ending)
        finally:
            trial.abandon()
        return ending

    async def _finish(self, trial: Trial, spots: tuple[Spot, ...], ending: Ending) -> None:
        try:
            await trial.finish(ending.crashed)
        except Exception as error:
            if not spots:
                raise  # not a matter of crashes
            raise CrashFailure(self._message(spots, _tell(error), ending)) from error

    async def bring_to_end(self, trial: Trial, spots: tuple[Spot, ...], start_ms: int) -> Ending:
        """Make one crash run."""
        disk = self._empty_disk()
        world = World(disk.store, ManualClock(start_ms), spots)
        driving = Driving(world, trial.call, trial.events, handlers=trial.handlers)
        try:
            engine = await driving.to_the_end()
        except NeverEnds as error:
            crashed: Crashed[Any] = Crashed(write_spots(spots), None, None, None, world.effects, list)
            journals = describe_journals(disk.store)
            self._let_go_of_disk()
            return Ending(world.passed, bool(world.armed), str(error), {}, journals, crashed)
        except BaseException:
            self._let_go_of_disk()
            raise
        else:
            ending = await self._look(engine, world, trial, write_spots(spots), disk)
            world.is_over = True
            await engine.close()
            return ending
        finally:
            world.let_go()

    async def _look(self, engine: DoomedEngine, world: World, trial: Trial, crash: str, disk: Disk) -> Ending:
        store, rows = world.store, all_runs(world.store)
        picture = take_picture(store, rows)
        picture |= picture_of_streams(store, disk.streams())
        picture |= {f"table {name!r}": Kept(sorted(told)) for name, told in disk.tables().items()}
        wrong = world.broken or leftovers(store, rows)
        wrong = wrong or not_conserved(store, engine.served, engine.was_handled)
        if self._reference is None:
            wrong = wrong or parked(rows)
            for row in rows:
                self._replays.take_as_seen(store, row)
        elif not compare(self._reference, picture):  # else that tells more
            for row in rows:
                wrong = wrong or self._replays.replay(engine.driver, row)
        result: Any = None
        failure: Exception | None = None
        look: Callable[[], Sequence[JournalStep]] = list
        if trial.call is not None:
            definition = trial.call.definition
            last = next(row for row in reversed(rows) if row.id == definition.name)
            look = partial(steps_of, store, last, world.calls)
            if last.status == Status.COMPLETED:
                result = definition.decode_result(last.output or b"null")
            else:
                failure = await _failure_of(engine, last.id)
        crashed: Crashed[Any] = Crashed(crash, None, result, failure, world.effects, look, Left(disk))
        journals = describe_journals(store) if wrong else ""
        ended_ms = world.clock.now_ms()
        return Ending(world.passed, bool(world.armed), wrong, picture, journals, crashed, ended_ms)

    async def _compare(self, ending: Ending) -> str:
        """How what came of it differs from what does without a crash, if that is not always another.

        Where the crash has taken no time, it must be the same at the same time.
        """
        assert self._reference is not None
        wrong = compare(self._reference, ending.picture)
        if wrong:
            took_no_time = ending.ended_ms is not None and ending.ended_ms == self._ended_ms
            trial = await self._scenario.begin()
            try:
                later = await self.bring_to_end(
                    trial, (), START_MS + (0 if took_no_time else _ANOTHER_DAY_MS)
                )
            finally:
                trial.abandon()
            if compare(self._reference, later.picture):
                self._compared = False
                return ""
        return wrong

    def _empty_disk(self) -> Disk:
        """What the crash run before has left is there until now: its `check` may look at it."""
        self._give_back_disk()
        self._disk = take_disk()
        return self._disk

    def _give_back_disk(self) -> None:
        disk, self._disk = self._disk, None
        if disk is not None:
            give_back(disk)

    def _let_go_of_disk(self) -> None:
        """It may hold anything."""
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.close()

    def _message(self, spots: tuple[Spot, ...], wrong: str, ending: Ending) -> str:
        effects = "\n".join(f"    life {effect.life}: {effect}" for effect in ending.crashed.effects)
        if not spots:
            return f"The run is wrong even without a crash: {wrong}\n{effects}\n{ending.journals}"
        again = self._scenario.again.format(crash=write_spots(spots))
        said = " ".join(spot.explain() for spot in spots)
        done = f"What was done:\n{effects or '    nothing'}"
        return f"{again}\n{said}\n{wrong}\n{done}\n{ending.journals}".rstrip()


def _tell(error: Exception) -> str:
    """`test_shop.py:24: AssertionError: …`: where the user's own check was broken, and how."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


async def _failure_of(engine: DoomedEngine, run_id: str) -> Exception | None:
    try:
        await (await engine.get(run_id)).result()
    except PerdureError as error:
        return error
    return None
