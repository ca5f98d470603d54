"""Put something else in the place of a step, for as long as a test wants.

The step keeps its name, its retries and its time limits: only what it does is
replaced. What does not fit is refused at once, and not in the middle of a run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from ..blocks.step import Step
from ..errors import DefinitionError
from ..runtime.definitions import Place


class Override:
    """A step that does something else for a while, and what it was asked for meanwhile."""

    def __init__(self, step: Step[..., Any], fake: Callable[..., Any]) -> None:
        self.calls: list[dict[str, Any]] = []
        """The arguments of each call by name, in the order in which the calls began."""
        self._step = step
        self._fake = fake
        self._signature = inspect.signature(step)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The step's function is called: note the call; give its arguments by place, where they have one."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        self.calls.append(dict(bound.arguments))
        return bound

    async def call_async(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of a function that runs on the loop."""
        bound = self._bind(args, kwargs)
        value = self._fake(*bound.args, **bound.kwargs)
        return await value if inspect.isawaitable(value) else value

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of a function that runs on a thread."""
        bound = self._bind(args, kwargs)
        return self._fake(*bound.args, **bound.kwargs)

    def __repr__(self) -> str:
        calls = "\n  ".join(repr(call) for call in self.calls) or "none"
        return f"<override of {self._step.name}, calls:\n  {calls}>"


@contextmanager
def override(step: Step[..., Any], fake: Callable[..., Any]) -> Generator[Override]:
    """Let `step` do what `fake` does, within the `with` block; the journal records what comes of it.

    `fake` is a function, sync or async, that takes what the step takes; it gets arguments
    by place, also those that the step was given by name, and all defaults. A sync fake
    of an async step is called on the event loop; an async fake of a sync step runs
    there too. In the fake `step_info()` works as in the step. Raises DefinitionError
    if the signatures do not fit, or if the step runs in a process of its own.
    """
    if step.place == "process":
        raise DefinitionError(
            f"Step {step.name!r} runs in a process of its own, where a fake of this process is not known.",
            hint="Override a step that calls it, or let the test have a step without on='process'.",
        )
    function: Callable[..., Any] = fake.fn if isinstance(fake, Step) else fake
    _check_signature(step, function)
    over = Override(step, function)
    on_loop = step.place == "loop" or inspect.iscoroutinefunction(function)
    place: Place = "loop" if on_loop else "thread"
    before = step.fn, step.place
    step.fn, step.place = (over.call_async if on_loop else over.call), place
    try:
        yield over
    finally:
        step.fn, step.place = before


def _check_signature(step: Step[..., Any], fake: Callable[..., Any]) -> None:
    real = inspect.signature(step)
    try:
        theirs = inspect.signature(fake)
    except ValueError:
        return  # a function written in C, which does not say what it takes
    parameters = real.parameters.values()
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    by_name = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY}
    try:
        theirs.bind(*by_place, **by_name)
    except TypeError as error:
        raise DefinitionError(
            f"The fake of step {step.name!r} takes {theirs}, and the step takes {real}: {error}.",
            hint="Give the fake the step's own parameters.",
        ) from None
