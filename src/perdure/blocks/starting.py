"""What a start is made of, the same for all who start runs, and how one is refused; and `start_within`."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

from ..core.holding import held_here
from ..core.records import NewRun, RunRow, Status
from ..errors import ConflictError, OutsideRun, PerdureError, RunClosed
from ..runtime.attempt import current_attempt
from ..runtime.closing import PYTHON
from ..stores.base import StartOutcome
from .options import Seconds, as_tags, as_text, to_ms
from .workflow import Workflow, WorkflowCall

R = TypeVar("R")
T = TypeVar("T")

OnConflict = Literal["return", "raise", "cancel"]
Reuse = Literal["never", "if_failed", "always"]


def start_within(
    call: WorkflowCall[Any],
    *,
    id: str | None = None,
    timeout: Seconds | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Start a run from a step with `transaction=True`, in the transaction of its result. Gives the run's id.

    The run is there if the step's result is, and once, however often the step's function is
    called. Any worker takes it up then. Without `id` it gets one made from the step's place. An
    id that has a run already, with the same input, is left at that; `timeout` and `tags` are
    those of `Client.start`.

    Raises ConflictError if the id belongs to a run with other input or of another
    workflow, StepError in any other step, OutsideRun where no step runs. For connections of your
    own there is `connection=` of `Client.start`.
    """
    attempting = current_attempt.get(None)
    if attempting is None:
        raise OutsideRun(
            "start_within() was called where no step runs.",
            hint="Call it in a @step(transaction=True); elsewhere use start(…, connection=…) of a client.",
        )
    info = attempting.info()
    lent = info.lent()
    definition = definition_of(call)
    drawn = info.draw()
    new = new_run(call, drawn, lent.clock.now_ms(), id=id, timeout=timeout, tags=tags)
    holding = held_here.get()
    if holding is not None:
        holding.start(new, is_named=id is not None)
        return new.id
    outcome = lent.store.start_within(lent.connection, new)
    assert isinstance(outcome, StartOutcome), "a step's connection is not one to be awaited"
    if outcome.verdict == "conflict":
        raise conflict(outcome, definition.name, in_transaction=True)
    return outcome.run.id


def definition_of(call: WorkflowCall[R]) -> Workflow[Any, R]:
    """The workflow that is called. Raises PerdureError for what is no call of one."""
    if not isinstance(call, WorkflowCall):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PerdureError(
            f"{call!r} is not a call of a workflow.",
            hint="Give start() a call: engine.start(checkout(order)).",
        )
    return call.definition


def new_run(
    call: WorkflowCall[Any],
    drawn: bytes,
    now_ms: int,
    *,
    id: str | None,
    timeout: Seconds | None,
    tags: Mapping[str, str] | None,
    on_conflict: OnConflict = "return",
    reuse: Reuse = "never",
) -> NewRun:
    """A run to be started; `drawn` is 32 random bytes: its seed, and its id where it is given none."""
    definition = call.definition
    timeout_ms = to_ms(timeout, "timeout") if timeout is not None else definition.timeout_ms
    return NewRun(
        id=as_text(id, "A run's id") if id is not None else drawn[16:].hex(),
        workflow=definition.name,
        input=call.input(),
        seed=drawn[:16],
        created_at_ms=now_ms,
        python=PYTHON,
        deadline_ms=None if timeout_ms is None else now_ms + timeout_ms,
        tags=as_tags(tags, "start"),
        on_conflict=on_conflict,
        reuse=reuse,
    )


def conflict(outcome: StartOutcome, workflow: str, *, in_transaction: bool = False) -> ConflictError:
    """The error for a start whose id another run has; in a transaction of the user's there is no `reuse`."""
    row = outcome.run
    why = {
        "input": "it was started with other input",
        "workflow": f"it belongs to workflow {row.workflow!r}, and this is {workflow!r}",
        "running": "it is still running, and on_conflict is 'raise'",
        "parked": "it parked while it was being cancelled",
    }.get(outcome.reason, outcome.reason)
    return ConflictError(
        f"Run {row.id!r} exists: {why}. Nothing was started.",
        run_id=row.id,
        hint="Use another id."
        if in_transaction
        else "Use another id, or reuse='always' for an id whose run has ended.",
    )


def refuse_policies(options: Mapping[str, Any]) -> None:
    """Raise PerdureError for what cannot be asked of a start in a transaction of the user's."""
    if (options["on_conflict"], options["reuse"]) != ("return", "never"):
        raise PerdureError(
            f"start(…, connection=…) cannot have on_conflict={options['on_conflict']!r} and "
            f"reuse={options['reuse']!r}: what becomes of another run is not decided in an open transaction.",
            hint="Leave both out: an id that has a run already, with the same input, gives that run.",
        )


def closed_run(row: RunRow) -> RunClosed:
    """The error for what was sent to a run that has ended."""
    return RunClosed(
        f"Run {row.id!r} has ended ({Status(row.status).word}) and takes nothing more.",
        run_id=row.id,
        hint="Start a new run for it.",
    )


def refuse_awaited(outcome: T | Awaitable[T], connection: object, what: str) -> T:
    """What became of what was written on a connection. Raises PerdureError if it would have to be awaited."""
    if not isinstance(outcome, Awaitable):
        return outcome
    if isinstance(outcome, Coroutine):
        outcome.close()
    raise PerdureError(
        f"{what}: {type(connection).__qualname__} is a connection that is awaited. Nothing was written.",
        hint="Use perdure.Engine or perdure.Client, and await; or give a connection that blocks.",
    )
