"""Steps that may be late: that a time limit passes while they run is something that can happen.

The first of an attempt's limits (timeout, heartbeat, the deadline over all attempts)
may pass unless a timer comes before it. The attempt is then lost, and may have acted
or not. Another one follows at once if the step's `Retry` and its deadline allow it. If
that is late too, so are all that are left: the call has failed for good. A run that parks for
it waits for a person, who resumes it: what a check would say of that is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ...codec.failures import describe_failure, encode_failure, step_failed
from ...core.commands import RunStep
from ...core.records import Kind, Status
from ...errors import Attempt, HeartbeatTimedOut, StepError, StepTimedOut
from ...runtime.definitions import StepDefinition
from ...runtime.limits import past_deadline, past_heartbeat, past_timeout
from .path import Possible
from .plan import Plan
from .runs import ExploredRun
from .steps import ExploredAttempt

LATE = (StepTimedOut, HeartbeatTimedOut)
"""What a call that is late raises. It came from outside, as a cancel does: a run may end with it."""


class Playing(Protocol):
    """The world, as its limits see it."""

    plan: Plan
    now_ms: int
    was_late: bool

    async def act_perhaps(self, run: ExploredRun, pending: RunStep, name: str) -> None: ...
    def land(self, run: ExploredRun, pending: RunStep) -> None: ...
    async def record(
        self,
        run: ExploredRun,
        kind: Kind,
        key: str = "",
        digest: int = 0,
        payload: bytes | None = None,
        value: Any = ...,
    ) -> None: ...


@dataclass(slots=True)
class Limited:
    """A step in flight that has limits."""

    run: ExploredRun
    pending: RunStep
    name: str
    begun_ms: int
    """When its attempt began."""
    lost: list[Attempt] = field(default_factory=list[Attempt])
    """The attempts that were late."""

    @property
    def definition(self) -> StepDefinition:
        """The step's."""
        return self.pending.call.definition

    @property
    def deadline_ms(self) -> int | None:
        """When the time for all attempts is over."""
        limit_ms = self.definition.deadline_ms
        return None if limit_ms is None else round(self.pending.asked_at_s * 1000) + limit_ms

    def coming(self) -> list[tuple[int, StepError]]:
        """When which limits pass: that of its attempt, or of all that are left if one was late before."""
        number, begun_ms = len(self.lost) + 1, self.begun_ms
        coming: list[tuple[int, StepError]] = []
        while True:
            at_ms, error = self._first_limit(number, begun_ms)
            coming.append((at_ms, error))
            if not self.lost or self.is_last(number, at_ms, error):
                return coming
            number, begun_ms = number + 1, at_ms

    def _first_limit(self, number: int, begun_ms: int) -> tuple[int, StepError]:
        definition = self.definition
        info = ExploredAttempt(self.run.facts, self.pending, number).info()
        limits: list[tuple[int, StepError]] = []
        if self.deadline_ms is not None and definition.deadline_ms is not None:
            limits.append((self.deadline_ms, past_deadline(info, definition.deadline_ms)))
        if definition.timeout_ms is not None:
            limits.append((begun_ms + definition.timeout_ms, past_timeout(info, definition.timeout_ms)))
        if definition.heartbeat_ms is not None:
            limits.append((begun_ms + definition.heartbeat_ms, past_heartbeat(info, definition.heartbeat_ms)))
        return min(limits, key=lambda limit: limit[0])

    def is_last(self, number: int, at_ms: int, error: StepError) -> bool:
        """Whether no attempt comes after that of this number, which was late at that time."""
        if self.deadline_ms is not None and self.deadline_ms <= at_ms:
            return True
        return number >= self.definition.retry.attempts or self.gives_up_on(error)

    def gives_up_on(self, error: StepError) -> bool:
        """Whether its `Retry` makes no other attempt after this error."""
        return self.definition.retry.gives_up_on(error)


class Limits:
    """Those of all steps in flight in a world."""

    def __init__(self, world: Playing) -> None:
        self._world = world
        self._limited: dict[tuple[int, str], Limited] = {}

    def begin(self, run: ExploredRun, pending: RunStep, name: str) -> None:
        """A step is in flight."""
        if pending.call.definition in self._world.plan.may_be_late:
            self._limited[run.facts.number, pending.key] = Limited(run, pending, name, self._world.now_ms)

    def lost(self, run: ExploredRun, pending: RunStep) -> list[Attempt]:
        """The attempts of a step that were late."""
        limited = self._limited.get((run.facts.number, pending.key))
        return [] if limited is None else limited.lost

    def end(self, run: ExploredRun, pending: RunStep) -> None:
        """A step is in flight no more."""
        self._limited.pop((run.facts.number, pending.key), None)

    def end_all(self, run: ExploredRun) -> None:
        """The run has ended."""
        for place in [place for place in self._limited if place[0] == run.facts.number]:
            del self._limited[place]

    def possible(self, before_ms: int | None) -> Iterator[Possible]:
        """Limits that may pass now; not those that come later than a timer, which is at `before_ms`."""
        for limited in self._limited.values():
            coming = limited.coming()
            if before_ms is None or coming[-1][0] <= before_ms:
                name = f"{limited.name} {'late again' if limited.lost else 'late'}"
                yield Possible(name, partial(self._pass, limited, coming))

    async def _pass(self, limited: Limited, coming: list[tuple[int, StepError]]) -> None:
        world, run, pending = self._world, limited.run, limited.pending
        last_ms, error = coming[-1]
        world.now_ms = max(last_ms, world.now_ms)
        await world.act_perhaps(run, pending, limited.name)
        pending.call.is_stale = True  # the attempt may have changed its arguments
        for at_ms, late in coming:
            failure = describe_failure(encode_failure(late))
            limited.lost.append(Attempt(len(limited.lost) + 1, failure, at_ms))
        if not limited.is_last(len(limited.lost), last_ms, error):
            limited.begun_ms = world.now_ms
            return
        if not limited.gives_up_on(error):
            attempts = tuple(limited.lost)
            error = step_failed(error, step=limited.definition.name, attempts=attempts, run_id=run.facts.id)
        world.land(run, pending)
        await world.record(run, Kind.STEP_FAILED, pending.key, pending.digest, encode_failure(error))
        world.was_late = world.was_late or run.status is Status.PARKED
