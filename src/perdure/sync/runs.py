"""`Run` for code without asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

from .. import client as awaiting
from ..blocks.signal import Signal
from ..blocks.state import State
from ..blocks.update import Update
from ..views import RunStatus, RunView
from .life import Ask

R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")

_NO_MORE: Any = object()


class Run(Generic[R]):
    """A handle on one run; making it asks nothing. `R` is what the workflow returns."""

    def __init__(self, ask: Ask, run: awaiting.Run[R]) -> None:
        self._ask = ask
        self._run = run
        self.id = run.id
        """The run's id."""

    def result(self, timeout: float | None = None) -> R:
        """Wait for the run's end and return its result.

        Raises TimeoutError after `timeout` seconds; the run goes on and the result may be
        awaited again. Else as the awaiting `Run.result`: RunFailed and its kinds.
        """
        return self._ask(f"result() of run {self.id!r}", lambda _: self._run.result(), timeout)

    def send(self, signal: Signal[T], value: T, *, id: str = "") -> None:
        """Send a signal. It is on disk when this returns, and is received once, in order.

        With an `id`, sending it again is harmless. Raises RunClosed if the run has ended.
        """
        self._ask("send()", lambda _: self._run.send(signal, value, id=id))

    def update(self, update: Update[A, T], value: A) -> T:
        """Send an update and return its answer.

        Raises UpdateRefused if the validator refuses, RunClosed if the run has
        ended, and the handler's own error if it fails.
        """
        return self._ask("update()", lambda _: self._run.update(update, value))

    def state(self, state: State[T], default: T | None = None) -> T | None:
        """The latest published value; `default` when nothing has been published."""
        return self._ask("state()", lambda _: self._run.state(state, default))

    def watch(self, state: State[T]) -> Iterator[T]:
        """Each new value of a state, the latest first, until the run has ended."""
        values = self._run.watch(state)
        while (value := self._ask("watch()", lambda _: _next(values))) is not _NO_MORE:
            yield value

    def cancel(self, reason: str = "") -> None:
        """Ask the run to stop. It is cancelled at its next await, may clean up, and then ends."""
        self._ask("cancel()", lambda _: self._run.cancel(reason))

    def terminate(self, reason: str = "") -> None:
        """End the run at once, with no clean-up. Its children are cancelled."""
        self._ask("terminate()", lambda _: self._run.terminate(reason))

    def resume(self) -> None:
        """Go on with a parked run: it is replayed, and tries again what failed."""
        self._ask("resume()", lambda _: self._run.resume())

    def info(self) -> RunView:
        """The run as it stands."""
        return self._ask("info()", lambda _: self._run.info())

    def status(self) -> RunStatus:
        """Where the run stands."""
        return self._ask("status()", lambda _: self._run.status())

    def __repr__(self) -> str:
        return f"<run {self.id}>"


async def _next(values: AsyncIterator[T]) -> T:
    return await anext(values, _NO_MORE)
