"""What a check sees: how a schedule went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ...blocks.state import State
from ...blocks.update import Update
from ...codec.failures import decode_failure
from ...core.records import Record, Status
from ...errors import RunCancelled, RunFailed, RunTimedOut
from ...views import RunStatus
from ..events import Ask
from .steps import StepCalled
from .world import World

T = TypeVar("T")
R = TypeVar("R")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an update was answered."""

    update: Update[Any, Any]
    asked: Any
    """The value that was sent."""
    value: Any
    """The handler's result; None when there was an error."""
    error: BaseException | None
    """`UpdateRefused`, `RunClosed`, or what the handler raised."""


class Explored(Generic[R, W]):
    """One schedule: the run, what was done for it, and the world that `setup` made.

    It shows what is so now: in `always` the run may still be on its way.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def world(self) -> W:
        """What `setup` returned for this schedule; None without one."""
        return cast(W, self._world.things)

    @property
    def schedule(self) -> tuple[str, ...]:
        """What happened, in order, by the names that `explore(schedule=…)` takes."""
        return tuple(taken.name for taken in self._world.path.taken)

    @property
    def status(self) -> RunStatus:
        """Where the run stands: RUNNING when it waits for ever, or is still on its way."""
        return RunStatus(self._world.root.status.word)

    @property
    def result(self) -> R:
        """The run's result. Raises its `error` if it has none; AssertionError when it has not ended."""
        root = self._world.root
        if root.outcome is None:
            raise AssertionError("the run has not ended: it has no result")
        if self.error is not None:
            raise self.error
        assert root.outcome.output is not None
        return cast(R, root.definition.decode_result(root.outcome.output))

    @property
    def error(self) -> BaseException | None:
        """What ended or parked the run; RunCancelled or RunTimedOut when it was stopped."""
        root = self._world.root
        if root.outcome is None or root.status is Status.COMPLETED:
            return None
        return stopped(root.status, root.facts.id) or root.outcome.error

    @property
    def steps(self) -> list[StepCalled]:
        """Each time that a step's function was called, in order, also for children."""
        return list(self._world.called)

    @property
    def journal(self) -> list[Record]:
        """All records, in order, also those of children; `run` numbers the runs from 1 on."""
        return list(self._world.journal)

    @property
    def answers(self) -> list[Answer]:
        """What each `Ask` was answered so far."""
        return [
            Answer(event.update, event.value, event.update.decode_result(answer.payload), None)
            if answer.ok
            else Answer(event.update, event.value, None, decode_failure(answer.payload))
            for outside, answer in self._world.answers
            if isinstance(event := outside.event, Ask)
        ]

    def published(self, state: State[T]) -> list[T]:
        """All values that the run published of this state, in order; of all its generations."""
        root = self._world.root
        own = {run.facts.number for run in self._world.runs if run.facts.id == root.facts.id}
        return [
            state.decode(payload)
            for number, name, payload in self._world.published
            if number in own and name == state.name
        ]


def stopped(status: Status, run_id: str) -> RunFailed | None:
    """The error of a run that was stopped from outside; None for any other end."""
    if status is Status.CANCELLED:
        return RunCancelled(f"Run {run_id!r} was cancelled.", run_id=run_id)
    if status is Status.TIMED_OUT:
        return RunTimedOut(f"Run {run_id!r} took longer than its timeout.", run_id=run_id)
    return None
