"""Playing one schedule to its end, and judging it."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ...codec.failures import describe_failure
from ...core.journal import line_of, standing_frame
from ...core.records import Kind, Status
from ..events import Cancel
from .explored import Explored
from .path import Path
from .plan import Failure, Plan, Wrong, is_allowed
from .runs import ExploredRun, replay
from .world import World


@dataclass(frozen=True, slots=True)
class Played:
    """One schedule that was played."""

    path: Path
    explored: Explored[Any, Any]
    world: World
    failure: Failure | None


async def play(plan: Plan, path: Path) -> Played:
    """Make a fresh world, play one schedule in it, and judge it.

    Raises ImpossibleChoice, and whatever the user's `setup` raises.
    """
    things = plan.setup() if plan.setup is not None else None
    if inspect.isawaitable(things):
        things = await things
    world = World(plan, path, things)
    explored: Explored[Any, Any] = Explored(world)
    always = plan.always
    after_each = None if always is None else _Each(always, explored)
    try:
        await world.play(after_each)
        failure = None if world.was_late else _judge_ends(world) or await _hold(plan.check, "check", explored)
        # Last: a replay runs the workflow's code again, and may touch what a check looks at.
        failure = failure or next(filter(None, map(replay, world.runs)), None)
    except Wrong as wrong:
        failure = wrong.failure
    finally:
        world.drop()
    return Played(path, explored, world, failure)


class _Each:
    """Checks after every event."""

    def __init__(self, always: Callable[[Any], object], explored: Explored[Any, Any]) -> None:
        self._always = always
        self._explored = explored

    async def __call__(self) -> None:
        failure = await _hold(self._always, "always", self._explored)
        if failure is not None:
            raise Wrong(failure)


async def _hold(
    check: Callable[[Any], object] | None, kind: str, explored: Explored[Any, Any]
) -> Failure | None:
    """Ask a check of the user's: it raises, or answers False, when something is wrong."""
    if check is None:
        return None
    try:
        answer = check(explored)
        if inspect.isawaitable(answer):
            answer = await answer
    except (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:  # what pytest.fail and pytest.raises raise is no Exception
        said = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or ""
        return Failure(kind, f"`{kind}` does not hold: {type(error).__name__}: {said}", error)
    return Failure(kind, f"`{kind}` answers False.") if answer is False else None


def _judge_ends(world: World) -> Failure | None:
    plan = world.plan
    for run in world.runs:
        outcome = run.outcome
        if outcome is None or outcome.error is None or (run.parent and run.status is not Status.PARKED):
            continue  # what ends a child is its parent's business
        error = outcome.error
        was_stopped = run.status is Status.TIMED_OUT or (
            run.status is Status.CANCELLED and run.cancel_reason is not None
        )
        if not was_stopped and not is_allowed(error, plan.may_raise):
            text = f"Run {run.facts.id!r} is {run.status.word}: {type(error).__name__}: {error}"
            return Failure("raised", text, error)
    waiting = [run for run in world.runs if run.outcome is None and not _has_parked(run, world)]
    if plan.may_wait:
        waiting = [] if world.was_left else [run for run in waiting if _is_orphan(run)]
    return Failure("waits", _describe_wait(waiting[-1], world)) if waiting else None


def _is_orphan(run: ExploredRun) -> bool:
    """Whether its parent has ended, and it should have ended with it."""
    parent = run.parent
    return parent is not None and not parent.status.is_open and run.on_parent_close == "cancel"


def _has_parked(run: ExploredRun, world: World) -> bool:
    """Whether it waits for a child that waits for a person, which was allowed."""
    children = [child for child in world.runs if child.parent is run]
    return any(child.status is Status.PARKED or _has_parked(child, world) for child in children)


def _describe_wait(run: ExploredRun, world: World) -> str:
    frame = standing_frame(run.execution.loop.tasks, "0")
    where = f" It stands at {line_of(frame)}." if frame is not None else ""
    if _is_orphan(run):
        return f"Run {run.facts.id!r} waits for ever, and its parent has ended.{where}"
    cancels = any(isinstance(one.event, Cancel) for row in world.plan.events for one in row)
    return (
        f"Run {run.facts.id!r} waits for ever: nothing more can happen to it"
        f"{' (a cancel need not come)' if cancels else ''}.{where}"
    )


def trace(played: Played) -> bytes:
    """A hash of all choices and all journals of a schedule: the same in every process."""
    digest = blake2b(digest_size=16)
    for taken in played.path.taken:
        digest.update(f"{taken.name}\n".encode())
    for record in played.world.journal:
        payload = record.payload
        if record.kind in (Kind.STEP_FAILED, Kind.CHILD_FAILED) and payload is not None:
            payload = describe_failure(payload).encode()  # the rest is lines and paths of this machine
        digest.update(f"{record.run} {record.seq} {record.kind} {record.key} {record.digest} ".encode())
        digest.update(f"{record.at_ms} ".encode() + (payload or b"") + b"\n")
    for run in played.world.runs:
        digest.update(run.status.name.encode())
        if run.status is Status.COMPLETED and run.outcome is not None:
            digest.update(run.outcome.output or b"")
    return digest.digest()
