"""What a workflow uses in place of clocks, randomness and branching on its own version."""

from __future__ import annotations

import random as _random
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

from ..core.host import RunFacts
from .call import Call
from .signal import standing_host
from .workflow import WorkflowCall


def now() -> datetime:
    """The run's time, in UTC: that of the last event it was given. The same in every replay."""
    return datetime.fromtimestamp(standing_host("now()").now_ms() / 1000, tz=UTC)


def random() -> _random.Random:
    """A source of random numbers that gives the same in every replay.

    Each task of a run has its own, seeded by 16 random bytes of the run and the
    task's path: one branch drawing more does not change what another draws. Not
    for secrets.
    """
    return standing_host("random()").own("random", _random.Random)


def uuid() -> UUID:
    """A random UUID (version 4) that is the same in every replay."""
    return UUID(int=random().getrandbits(128), version=4)


def patched(name: str) -> bool:
    """Whether changed code may run here: `if patched("fraud check"): await check(order)`.

    True in a run that comes here for the first time with the new code, and in all
    its replays (the answer is recorded). False in a run that went by here before
    the change, for as long as it lives.
    """
    return standing_host("patched()").patched(name)


def compensate(call: Call[Any]) -> None:
    """Register an undo before its effect is tried: `compensate(refund(order))`.

    If the run fails or is cancelled, the registered calls are awaited in reverse
    order, each as durable as any step, and then the run ends with its error. A run
    that ends well does not undo. The undo must bear that its effect never came
    about, since it is registered first.
    """
    host = standing_host("compensate()")
    call.claim()
    host.compensate(call)


def continue_as_new(call: WorkflowCall[Any]) -> NoReturn:
    """End this run's journal and go on with `call` as a new run of the same id.

    For runs that would otherwise grow without end. Signals that were not received
    are lost with the old journal: receive them first.
    """
    host = standing_host("continue_as_new()")
    call.input()  # what cannot be encoded is refused here, and not when the run has ended
    host.continue_as_new(call)


def run_info() -> RunFacts:
    """Who the run is that this code stands in: id, generation, workflow."""
    return standing_host("run_info()").facts
