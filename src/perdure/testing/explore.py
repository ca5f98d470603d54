"""`explore`: a workflow in every order in which things can happen to it.

Steps finish, signals come, timers fire, somebody cancels: in what order, nobody
knows beforehand. A test sees one order; `explore` sees all, or as many as it may,
and shows the shortest in which something is wrong.

It needs no engine and no store: it drives the same core as the engine does
(`core/execution`), so what it finds is what a worker would do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from ..blocks.step import Step
from ..blocks.workflow import WorkflowCall
from .exploring.choosing import choose
from .exploring.explored import Answer, Explored
from .exploring.limits import LATE
from .exploring.path import ImpossibleChoice, Path
from .exploring.plan import Fakes, Happening, Plan, limited, prepare
from .exploring.play import Played, play, trace
from .exploring.search import Orders, Walks
from .exploring.shrink import confirm, shrink
from .exploring.steps import StepCalled
from .exploring.telling import describe
from .source import SeededSource

__all__ = [
    "Answer", "Exploration", "Explored", "ScheduleFailed", "ScheduleImpossible", "StepCalled", "choose",
    "explore",
]  # fmt: skip

R = TypeVar("R")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Exploration:
    """What was explored. In all of it nothing was wrong."""

    schedules: int
    """How many schedules were played."""
    complete: bool
    """Whether they are all that there are: then there is no order in which something is wrong."""
    longest: int
    """The most choices that one of them had."""
    trace: str
    """A hash of all choices and journals: the same for the same seed, in every process."""


class ScheduleFailed(AssertionError):
    """In one order something is wrong. The message shows the shortest that was found."""

    def __init__(self, message: str, *, schedule: str, explored: Explored[Any, Any]) -> None:
        super().__init__(message)
        self.schedule = schedule
        """What to give to `explore(schedule=…)` to see it again."""
        self.explored = explored
        """How it went."""


class ScheduleImpossible(AssertionError):
    """The schedule that was given cannot happen: the code, or what is sent to it, has changed."""


async def explore(
    call: WorkflowCall[R],
    *,
    events: Sequence[Happening | Sequence[Happening]] = (),
    setup: Callable[[], W | Awaitable[W]] | None = None,
    overrides: Fakes | Callable[[W], Fakes] | None = None,
    check: Callable[[Explored[R, W]], object] | None = None,
    always: Callable[[Explored[R, W]], object] | None = None,
    may_raise: type[BaseException] | tuple[type[BaseException], ...] = (),
    may_wait: bool = False,
    may_be_late: Sequence[Step[..., Any]] = (),
    schedules: int = 1_000,
    depth: int = 100,
    seed: int = 0,
    schedule: str | None = None,
) -> Exploration:
    """Run a workflow in every order in which its steps, timers and messages can come.

    - `events`: what comes from outside, `Send(…)`, `Ask(…)`, `Append(…)` and `Cancel()`, in any order and
      at any moment; a row of its own, `[Send(…), Send(…)]`, comes in its order. A cancel need not come.
    - `setup`: makes what steps touch, anew for each schedule; sync or async.
    - `overrides`: what runs in place of steps, `{charge: fake}`; or makes that of what `setup` made.
    - `check`: sees each schedule when it is over, and raises, or returns False, if something is
      wrong; `always` looks after every event too. Sync or async.
    - `may_raise`: what may end or park the run; any other error is a failure, also without a check.
    - `may_wait`: a run that waits for ever, with nothing left that could get it on, is no failure.
    - `may_be_late`: steps whose time limits may pass while they run, for one attempt or for all; what
      that raises is no failure by itself. Each makes for many more schedules.
    - `schedules`: how many to play at most. If there are more, half are the least unusual ones, and
      half random walks by `seed`. `depth`: choices after which a schedule keeps to the default order.
    - `schedule`: play only this one: names, separated by commas, and then the default order.

    A step acts when its completion is chosen, with all its attempts. One that is interrupted may have
    acted or not: both are tried. The next timer may fire at any moment, since steps may be slow.
    Besides, no run may wait for ever or break a law, and each journal must replay the same.

    Raises ScheduleFailed, with the shortest schedule found, and ScheduleImpossible. Writes nothing.
    """
    raised = may_raise if isinstance(may_raise, tuple) else (may_raise,)
    plan = Plan(
        call, prepare(events), setup, overrides, check, always,
        (*raised, *LATE) if may_be_late else raised, may_wait, limited(may_be_late), depth, seed,
    )  # fmt: skip
    exploring = _Exploring(plan)
    if schedule is not None:
        await exploring.play_named([name for part in schedule.split(",") if (name := part.strip())])
    else:
        await exploring.search(schedules)
    return exploring.report()


class _Exploring:
    """One exploration under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._played = 0
        self._longest = 0
        self._is_complete = False
        self._trace = blake2b(digest_size=16)

    def report(self) -> Exploration:
        """What came of it."""
        return Exploration(self._played, self._is_complete, self._longest, self._trace.hexdigest())

    async def play_named(self, names: list[str]) -> None:
        """Play one schedule, by its names."""
        try:
            played = await play(self._plan, Path(names, depth=self._plan.depth))
        except ImpossibleChoice as error:
            raise ScheduleImpossible(
                f"The schedule {', '.join(names)!r} cannot happen: {error}. The workflow, or what is "
                "sent to it, is not what it was. Leave `schedule` out to explore anew."
            ) from None
        self._note(played)
        if played.failure is not None:
            raise _failed(played, describe(played, found_in=0, first_length=0, confirmed=True))

    async def search(self, schedules: int) -> None:
        """Play all orders, or the least unusual ones and then random walks."""
        plan = self._plan
        orders = Orders(schedules=schedules, depth=plan.depth)
        while self._played < schedules and not orders.is_empty:
            if orders.is_over_bound and self._played >= schedules // 2:
                break
            path = orders.next()
            await self._play(path)
            orders.learn(path)
        self._is_complete = not orders.is_over_bound and not orders.is_over_depth
        walks = Walks(SeededSource(plan.seed).draw, depth=plan.depth)
        while orders.is_over_bound and self._played < schedules:
            await self._play(walks.next())

    async def _play(self, path: Path) -> None:
        try:
            played = await play(self._plan, path)
        except ImpossibleChoice as error:
            raise ScheduleImpossible(
                f"The same choices led {self._plan.call.describe()} to another place: {error}. Something "
                "is carried over from one schedule to the next, or is left to chance. Make all that "
                "steps touch anew in `setup`."
            ) from None
        self._note(played)
        if played.failure is None:
            return
        shortest = await shrink(self._plan, played)
        message = describe(
            shortest,
            found_in=self._played,
            first_length=len(path.needed),
            confirmed=await confirm(self._plan, shortest),
        )
        raise _failed(shortest, message)

    def _note(self, played: Played) -> None:
        self._played += 1
        self._longest = max(self._longest, len(played.path.taken))
        self._trace.update(trace(played))


def _failed(played: Played, message: str) -> ScheduleFailed:
    failed = ScheduleFailed(message, schedule=", ".join(played.path.needed), explored=played.explored)
    if played.failure is not None:
        failed.__cause__ = played.failure.error
    return failed
