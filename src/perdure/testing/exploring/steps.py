"""Calling a step's function for a world: all attempts at one moment, in this thread.

A step acts when its completion is chosen, and not when it is asked for: so the
order of completions is the order of effects too, and every order of them is
tried. Attempts follow each other with no time in between; for those that are late
see limits.py.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...codec.failures import describe_failure, encode_failure, step_failed
from ...core.commands import RunStep
from ...core.host import RunFacts
from ...core.records import Kind
from ...errors import Attempt, StepError
from ...runtime.attempt import StepInfo, current_attempt
from ...runtime.definitions import StepCallLike


@dataclass(frozen=True, slots=True)
class StepCalled:
    """One time that a step's function was called."""

    step: str
    """The step's name."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    value: Any
    """What it returned; None when it raised."""
    error: BaseException | None
    was_heard: bool
    """Whether its result goes to the run. It does not when the call was interrupted after it had acted."""
    text: str
    """`charge('17') → 'r-17'`."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """What a step came to, as it is recorded."""

    kind: Kind
    payload: bytes
    value: Any = ...


class ExploredAttempt:
    """The attempt under way, as `step_info()` sees it."""

    def __init__(self, facts: RunFacts, pending: RunStep, number: int) -> None:
        self._facts = facts
        self._pending = pending
        self._number = number

    def info(self) -> StepInfo:
        """What the step may know of itself."""
        facts = self._facts
        return StepInfo(
            self,
            run_id=facts.id,
            workflow=facts.workflow,
            step=self._pending.call.definition.name,
            key=self._pending.key,
            attempt=self._number,
            seed=facts.seed,
            last_details=None,
        )

    def beat(self, details: bytes | None) -> None:
        """No time passes while a step acts: that one is silent for too long is an event of its own."""


async def call_step(
    facts: RunFacts,
    pending: RunStep,
    function: Callable[..., Any],
    lost: Sequence[Attempt],
    *,
    now_ms: int,
    heard: bool,
    called: list[StepCalled],
) -> StepEnd:
    """Call a step's function, again as its `Retry` says; each call goes into `called`.

    `lost`: the attempts before, which were late.
    """
    call: StepCallLike = pending.call
    definition = call.definition
    failed = [*lost]
    for number in range(len(lost) + 1, definition.retry.attempts + 1):
        if call.is_stale:
            call.renew()
        asked = call.describe()
        before = current_attempt.set(ExploredAttempt(facts, pending, number))
        try:
            value = function(*call.args, **call.kwargs)
            if inspect.isawaitable(value):
                value = await value
            payload, value = definition.settle(value)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:
            error = _as_failure(raised, definition.name, facts.id)
        else:
            called.append(_called(call, number, value, None, heard, f"{asked} → {_short(value)}"))
            return StepEnd(Kind.STEP, payload, value)
        finally:
            current_attempt.reset(before)
        text = f"{asked} raised {describe_failure(encode_failure(error))}"
        called.append(_called(call, number, None, error, heard, text))
        failed.append(Attempt(number, describe_failure(encode_failure(error)), now_ms))
        call.is_stale = True  # the attempt may have changed its arguments
        if not heard or definition.retry.gives_up_on(error):
            return StepEnd(Kind.STEP_FAILED, encode_failure(error))
        if number == definition.retry.attempts:
            whole = step_failed(error, step=definition.name, attempts=tuple(failed), run_id=facts.id)
            return StepEnd(Kind.STEP_FAILED, encode_failure(whole))
    raise AssertionError(f"step {definition.name!r} has no attempts")


def _as_failure(raised: BaseException, step: str, run_id: str) -> BaseException:
    if not isinstance(raised, asyncio.CancelledError):
        return raised
    task = asyncio.current_task()
    if task is not None and task.cancelling() > 0:
        raise raised  # it is the whole exploration that is cancelled
    return StepError(f"Step {step!r} of run {run_id!r} was cancelled from inside.")


def _called(
    call: StepCallLike, number: int, value: Any, error: BaseException | None, heard: bool, text: str
) -> StepCalled:
    return StepCalled(
        call.definition.name, call.args, call.kwargs, number, value, error, was_heard=heard, text=text
    )


def _short(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 60 else f"{text[:59]}…"
