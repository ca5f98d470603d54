"""One run of the explored world, and the proof that its journal gives it again.

The world keeps of a run what a worker would keep, and the whole journal. When a
schedule is over each run is replayed: it must ask for the same calls, in the
same places, and come to the same end. A workflow that looks at anything but its
arguments and its journal does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...blocks.workflow import Workflow
from ...codec import failures
from ...codec.failures import describe_failure
from ...core.commands import Outcome, Publish
from ...core.execution import Execution
from ...core.host import RunFacts
from ...core.ready import Ready
from ...core.records import Record, Status
from .plan import Failure


class TracedExecution(Execution):
    """An execution that writes down what its code asks for, and when."""

    __slots__ = ("asked",)

    def __init__(self, facts: RunFacts, ready: Ready) -> None:
        super().__init__(facts, ready=ready, failures=failures)
        self.asked: list[tuple[int, str]] = []
        """The seq of the next record when it was asked, and the key."""

    def _next_key(self, name: str) -> str:
        key = super()._next_key(name)
        self.asked.append((self.seq, key))
        return key


@dataclass(slots=True, eq=False)
class ExploredRun:
    """A run, and what its worker keeps beside it."""

    facts: RunFacts
    definition: Workflow[Any, Any]
    data: bytes
    """The encoded arguments."""
    label: str
    """Put before the names of its events: empty for the run that is explored, `pay: ` for a child."""
    execution: TracedExecution
    parent: ExploredRun | None = None
    parent_key: str = ""
    on_parent_close: str = "cancel"
    journal: list[Record] = field(default_factory=list[Record])
    published: dict[str, bytes] = field(default_factory=dict[str, bytes])
    outcome: Outcome | None = None
    reopened: bool = False
    """It was parked and cancelled: its journal lacks the failure, so it is not what was delivered."""
    cancel_reason: str | None = None
    awaits_children: str | None = None
    """Why it is to be cancelled, once its children have ended."""
    cancelled_how: str = "cancel"
    """And whether that is a `cancel` or its `timeout`."""

    @property
    def status(self) -> Status:
        """Where it stands."""
        return Status.RUNNING if self.outcome is None else self.outcome.status


def replay(run: ExploredRun) -> Failure | None:
    """Run a journal again, and say what became different."""
    ready = Ready()
    again = TracedExecution(run.facts, ready)
    try:
        with ready:
            again.foresee_patches(run.journal)
            again.begin(run.definition.body(run.data), run.definition.encode_result)
            again.replay(run.journal)
            again.go_live()
        difference = _difference(run, again)
    except Exception as error:
        return Failure("replay", f"A replay of run {run.facts.id!r} breaks: {error}", error)
    finally:
        again.drop()
    if difference is None:
        return None
    return Failure(
        "replay",
        f"A replay of run {run.facts.id!r} {difference}. The workflow looks at something that is not "
        "recorded: time, randomness, a global, the order of a set.",
    )


def _difference(run: ExploredRun, again: TracedExecution) -> str | None:
    if not run.reopened and again.asked != run.execution.asked:
        return f"asks for {_keys(again)}, where it asked for {_keys(run.execution)}"
    if (ends := _end(again.outcome)) != (ended := _end(run.outcome)):
        return f"{ends}, where it {ended}"
    if run.status is Status.PARKED:
        return None  # what it did in its last event is taken back
    published = {command.state: command.payload for command in again.commands if isinstance(command, Publish)}
    if published != run.published:
        return f"publishes {_shown(published)}, where it published {_shown(run.published)}"
    return None


def _keys(execution: TracedExecution) -> str:
    return ", ".join(f"'{key}'" for _, key in execution.asked) or "nothing"


def _end(outcome: Outcome | None) -> str:
    if outcome is None:
        return "goes on"
    output = outcome.output or b""
    said = output.decode() if outcome.status is Status.COMPLETED else describe_failure(output)
    return f"is {outcome.status.word}: {said}"


def _shown(published: dict[str, Any]) -> str:
    return ", ".join(f"{state} = {payload.decode()}" for state, payload in published.items()) or "nothing"
