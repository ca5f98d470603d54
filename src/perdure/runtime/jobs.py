"""Jobs: steps that other workers' runs have queued for a worker with a tag, and that run here.

A job is claimed with this worker's lease, and run as any step is: its attempts, limits and
retries are kept where those of its run are. What it comes to is a message to the run; it
is sent in the commit that takes the job away, under the lease: so it is sent once, and by
nobody who has lost the lease. At each look it is seen which jobs are not wanted any
more, or not ours, and their steps are stopped.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..codec.failures import encode_failure
from ..core.commands import RunStep
from ..core.records import Message, MessageKind
from ..errors import StepFailed
from ..stores.base import AttemptRow, ClaimedJob, Lease, Store
from ..stores.jobs import CRASHES_BEFORE_SUSPECT
from .definitions import StepDefinition
from .effects import RunningStep

if TYPE_CHECKING:
    from .driver import Driver

CRASHES_BEFORE_FAILURE = 5
_PAGE = 200
_PAUSE_S = 0.02

FindSteps = Callable[[], Sequence[StepDefinition]]


class Outcome(msgspec.Struct, array_like=True):
    """The payload of a STEP_ENDED message."""

    ok: bool
    payload: bytes
    """The result, or a failure."""
    digest: int
    """Of the arguments that the step had."""


_encode = msgspec.msgpack.Encoder().encode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


class _Found(NamedTuple):
    """What a look found."""

    held: set[tuple[int, str]]
    claimed: list[ClaimedJob]


class Jobs:
    """Claims the jobs that this worker may run, and runs them."""

    def __init__(self, driver: Driver, find_steps: FindSteps, *, capacity: int) -> None:
        """`find_steps`: those that this worker may run for others. `capacity`: as `Claims` has it."""
        self._driver: Driver = weakref.proxy(driver)
        driver.look_for_jobs = self.look
        self._find_steps = find_steps
        self._loop = asyncio.get_running_loop()
        self._capacity = capacity
        self._again = False
        self._suspect: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Claim no more."""
        self._capacity = 0

    def look(self) -> None:
        """Look now for jobs, and which of those that run here are to be stopped."""
        driver = self._driver
        if driver.claiming_jobs:
            self._again = True
            return
        if driver.stopped or driver.committer.error is not None:
            return
        known = self._known()
        if not (known or driver.jobs):
            return
        room = driver.room(self._capacity, most=_PAGE)
        driver.claiming_jobs = True
        look = _Look(driver.lease, known, room, suspect=not self._has_suspect(), runs_any=bool(driver.jobs))
        driver.committer.ask_between(look, lambda found: self._found(found, known))

    def _known(self) -> dict[str, StepDefinition]:
        """The steps by name, where one alone has it, and by source."""
        steps = self._find_steps()
        names = Counter(step.name for step in steps)
        return {step.name: step for step in steps if names[step.name] == 1} | {
            step.source: step for step in steps
        }

    def _has_suspect(self) -> bool:
        """Whether a job runs here of which workers died: no other such one is begun beside it."""
        return self._suspect is not None and not self._suspect.done()

    def _found(self, found: _Found | Exception, known: dict[str, StepDefinition]) -> None:
        driver = self._driver
        driver.claiming_jobs = False
        if isinstance(found, Exception):
            driver.complain(found, "looking for steps to run for other workers")
        elif not driver.stopped:
            self._take(found, known)
        if self._again:
            self._again = False
            self.look()

    def _take(self, found: _Found, known: dict[str, StepDefinition]) -> None:
        for place, task in self._driver.jobs.items():
            if place not in found.held:
                task.cancel()
        if self._capacity <= 0:
            return  # it stops: what was claimed meanwhile is free when the lease is given back
        for claimed in found.claimed:
            job = claimed.job
            before = self._driver.jobs.get((job.run, job.key))
            if before is not None:
                before.cancel()  # withdrawn, and asked for anew
            self._begin(claimed, known.get(job.source) or known[job.step])
        if found.claimed:
            self._loop.call_later(_PAUSE_S, self.look)  # not at once: other workers take their share

    def _begin(self, claimed: ClaimedJob, definition: StepDefinition) -> None:
        driver, job = self._driver, claimed.job
        place = (job.run, job.key)
        call = _JobCall(definition, job.arguments)
        # Nobody awaits this future: the run that does is elsewhere.
        nobody: asyncio.Future[Any] = self._loop.create_future()
        pending = RunStep(job.key, job.digest, definition.decode_result, call, nobody, job.asked_at_ms / 1000)
        owner = _JobOwner(claimed)
        if claimed.crashes >= CRASHES_BEFORE_FAILURE:
            self.step_failed(owner, pending, _kills_its_worker(claimed))
            return
        running = RunningStep(driver.effects, self, owner, pending)
        task = driver.jobs[place] = self._loop.create_task(running.run(), name=job.key)
        if claimed.crashes >= CRASHES_BEFORE_SUSPECT:
            self._suspect = task
        task.add_done_callback(lambda task: self._ended(place, task))

    def _ended(self, place: tuple[int, str], task: asyncio.Task[None]) -> None:
        driver = self._driver
        if driver.jobs.get(place) is task:
            del driver.jobs[place]
        if not task.cancelled() and (error := task.exception()) is not None:
            driver.complain(error, f"running step {place[1]!r} of run number {place[0]}")
        self.look()  # there is room for another

    # -- what comes of them (as `Outcomes` of the effects) -----------------------------------------

    def step_done(self, owner: _JobOwner, pending: RunStep, payload: bytes, value: Any, /) -> None:
        """A step returned: send the result."""
        self._send(owner, pending, Outcome(True, payload, pending.digest))

    def step_failed(self, owner: _JobOwner, pending: RunStep, error: BaseException, /) -> None:
        """A step failed for good: send the failure."""
        self._send(owner, pending, Outcome(False, encode_failure(error), pending.digest))

    def attempt_made(self, row: AttemptRow) -> None:
        """Write down a failed attempt or a heartbeat."""
        self._driver.attempt_made(row)

    def _send(self, owner: _JobOwner, pending: RunStep, outcome: Outcome) -> None:
        driver = self._driver
        if driver.stopped:
            return
        now_ms = driver.clock.now_ms()
        message = Message(0, owner.number, MessageKind.STEP_ENDED, pending.key, _encode(outcome), "", now_ms)
        driver.committer.add_message(message, driver.children.told(message), caller=False)


class _Look:
    """What the writer's thread is to do: claim, and see what is held, in this order."""

    def __init__(
        self,
        lease: Lease,
        known: dict[str, StepDefinition],
        room: int,
        *,
        suspect: bool,
        runs_any: bool,
    ) -> None:
        self._lease = lease
        self._steps = sorted(known)
        self._tags = sorted({step.worker for step in known.values() if step.worker is not None})
        self._room = room
        self._suspect = suspect
        self._runs_any = runs_any

    def __call__(self, store: Store) -> _Found:
        claimed: list[ClaimedJob] = []
        if self._room > 0 and self._tags:
            claimed = store.claim_jobs(
                self._lease, tags=self._tags, steps=self._steps, limit=self._room, suspect=self._suspect
            )
        return _Found(store.held_jobs(self._lease) if self._runs_any else set(), claimed)


class _JobOwner:
    """The run that asked for a job, as far as it is known here."""

    __slots__ = ("attempts", "number", "row")

    def __init__(self, claimed: ClaimedJob) -> None:
        self.number = claimed.job.run
        self.row = claimed
        self.attempts: dict[str, list[AttemptRow]] | None = {claimed.job.key: claimed.attempts}


class _JobCall:
    """The call of a job's step, made anew from its arguments."""

    __slots__ = ("args", "data", "definition", "is_stale", "kwargs")

    def __init__(self, definition: StepDefinition, data: bytes) -> None:
        self.definition = definition
        self.data = data
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.is_stale = True

    def renew(self) -> None:
        """Give each attempt arguments of its own. Raises NotDecodable."""
        self.args, self.kwargs = self.definition.read_arguments(self.data)
        self.is_stale = False

    def describe(self) -> str:
        """`render(…)`"""
        return f"{self.definition.name}(…)"


def _kills_its_worker(claimed: ClaimedJob) -> StepFailed:
    return StepFailed(
        f"{claimed.crashes} workers died while they ran step {claimed.job.key!r} of run {claimed.id!r}: the "
        "step may be killing them (memory, a crash in native code).",
        hint="Look at the step, then resume the run.",
    )
