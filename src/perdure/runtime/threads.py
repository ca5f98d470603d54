"""The threads that plain functions of steps run on.

The standard pool waits at the program's exit for whatever still runs, so that one
step that never returns would keep a worker from ever ending. These threads are
daemons: a step under way when the program ends is interrupted, as by a crash, and
runs again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

_THREADS = 32

_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Threads:
    """Up to 32 threads, started as they are needed. What is over waits in line."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call the function on a thread. Not if the future is cancelled before its turn."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._line.put((function, future))
        if self._started < _THREADS and not self._idle.acquire(blocking=False):
            self._started += 1
            name = f"perdure-step-{self._started}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def stop(self) -> None:
        """Let the threads go when they are done. What waits in line is called no more."""
        for _ in range(self._started):
            self._line.put(None)

    def _work(self) -> None:
        while (work := self._line.get()) is not None:
            function, future = work
            if future.cancelled():
                self._idle.release()
            else:
                value, error = _outcome(function)
                self._idle.release()  # first: whoever is told may ask for the next at once
                try:
                    self._loop.call_soon_threadsafe(_settle, future, value, error)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more
                del value, error
            del function, future, work  # else what a step had in hand would stay until the next one


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except StopIteration as stopped:  # a future would not take it
        error = RuntimeError("The step raised StopIteration.")
        error.__cause__ = stopped
        return None, error
    except BaseException as error:  # also SystemExit: a step must not end the worker
        return None, error


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
