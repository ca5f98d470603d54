"""One opening of a client or an engine: the thread that it lives on; and who may wait for it.

Law: no call waits for a loop that is gone, and none is made from where it would block the
loop that is to answer it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from .. import client as awaiting
from ..core.host import current_host
from ..errors import BoundaryError, PerdureError
from ..runtime.attempt import current_attempt

T = TypeVar("T")


class Ask(Protocol):
    """Has the loop of a client do something, and waits for it."""

    def __call__(
        self,
        what: str,
        make: Callable[[awaiting.Client], Coroutine[Any, Any, T]],
        timeout: float | None = None,
    ) -> T: ...


class Life:
    """One opening: a thread, its loop, and the client that lives there."""

    def __init__(self, make: Callable[[], awaiting.Client]) -> None:
        self.process = os.getpid()
        self._make = make
        self._opened: Future[tuple[asyncio.AbstractEventLoop, awaiting.Client]] = Future()
        self._ending: Future[None] = Future()
        self._ended: Future[None] = Future()
        # A daemon: a thread that must be joined would keep a program from ending.
        self._thread = threading.Thread(target=self._live, name="perdure-loop", daemon=True)
        self._thread.start()

    @property
    def is_of_this_process(self) -> bool:
        return os.getpid() == self.process

    def _live(self) -> None:
        try:
            asyncio.run(self._be_open())
            self._ended.set_result(None)
        except BaseException as error:  # it is raised where somebody waits
            for future in (self._opened, self._ended):
                if not future.done():
                    future.set_exception(error)

    async def _be_open(self) -> None:
        async with self._make() as client:
            self._opened.set_result((asyncio.get_running_loop(), client))
            await asyncio.wrap_future(self._ending)

    def wait_until_open(self) -> None:
        """Raises what opening raises."""
        try:
            self._opened.result()
        except BaseException:
            self._ending.set_result(None)  # Ctrl-C: it may still open
            raise

    def submit(self, make: Callable[[awaiting.Client], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have the loop do it. Whoever calls sees to it that the end has not been asked for."""
        loop, client = self._opened.result()
        return asyncio.run_coroutine_threadsafe(make(client), loop)

    def end(self) -> None:
        """Close, and wait until that is done. Raises what closing raises."""
        # What was submitted has come to the loop before this, and is cancelled when the loop ends.
        self._ending.set_result(None)
        self._ended.result()
        self._thread.join()


def check_caller(what: str) -> None:
    """Raise where to wait would stop the loop that is to answer, or break a run's replay."""
    if current_host.get(None) is not None:
        raise BoundaryError(
            f"{what} was called by workflow code, which may not block.",
            hint="Await a child workflow or start_child(…), or move the call into a @step.",
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise PerdureError(
        f"{what} would block the event loop that runs in this thread.",
        hint="Use perdure.Engine or perdure.Client, and await; or asyncio.to_thread.",
    )


def check_step(what: str) -> None:
    """Raise where the commit that is to be waited for waits for the step that asks."""
    attempting = current_attempt.get(None)
    if attempting is not None and attempting.info().is_in_transaction:
        raise PerdureError(
            f"{what} was called by a step with transaction=True, for whose end all commits wait.",
            hint="Start runs with start_within(…); move anything else into another step.",
        )


async def itself(client: awaiting.Client) -> awaiting.Client:
    """The client, for what is done in the caller's own thread."""
    return client
