"""The deterministic event loop on which workflow code runs, one small loop a run.

It is a real `asyncio` loop to the code on it: gather, TaskGroup, timeout, Queue
and the rest work, because tasks and futures are asyncio's own. But it has no
clock and no I/O. Time is what the last recorded event says, callbacks run in
the order in which they were asked for, and whatever would reach outside is
refused. So the same events always lead to the same calls.

The laws it keeps:

- `pump` runs until nothing is ready; it is called once per event, from plain
  code and never from inside a task.
- `advance` moves time to the event's; timers that are due fire one by one in
  the order of their deadlines, each pumped to idle before the next.
- Tasks have a path (`0`, `0.1`, `0.1.3` …: which task made which) and a
  sequential hash: asyncio iterates sets of tasks when a TaskGroup aborts and in
  `wait`, and the order must not depend on addresses in memory.
- Cancellation of the run is level-triggered: a task that swallows it meets it
  again at its next await, unless it is still unwinding (in an `except` or
  `finally`), where cleaning up must be possible.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import Future
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn

from ..errors import BoundaryError, RunEvicted

# Deadlines are sums of floats; two that differ by less than this are the same.
_RESOLUTION_S = 1e-6
# Below the salt of the run: the order of a set of tasks is that of their numbers.
_SALT_SHIFT = 20
_SALT_MASK = (1 << 40) - 1


class Handle:
    """A callback that waits for its turn."""

    __slots__ = ("args", "callback", "context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        """Take the callback back; it will not run."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self.callback is None


class TimerHandle(Handle):
    """A callback that waits for a time."""

    __slots__ = ("_when",)

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self._when


class RunTask(asyncio.Task[Any]):
    """A task of a run: it knows its place in the tree of tasks."""

    __slots__ = ("calls", "doomed", "number", "path", "salted", "sheltered", "spawned")

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: RunLoop, path: str, context: Context | None = None
    ) -> None:
        loop.tasks_made += 1
        self.path = path
        self.calls = 0
        self.spawned = 0
        # asyncio keeps one WeakSet of all tasks of the process: without the salt
        # the first tasks of a hundred thousand runs would share one hash.
        self.salted = loop.salt + loop.tasks_made
        self.doomed = False
        self.sheltered = False
        loop.keep(self)
        super().__init__(coro, loop=loop, name=path, context=context)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return self.salted

    def __eq__(self, other: object) -> bool:
        return self is other

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel as asyncio does, and note that calls may have lost their waiter."""
        loop: RunLoop = self.get_loop()  # type: ignore[assignment]
        loop.cancels += 1
        if loop.cancelling and not self.sheltered:
            self.doomed = True
        return super().cancel(msg)


def _is_unwinding() -> bool:
    """Whether the code that runs now is handling a CancelledError: cleaning up after one."""
    error = sys.exc_info()[1]
    hops = 0
    while error is not None and hops < 100:
        if isinstance(error, asyncio.CancelledError):
            return True
        error = error.__context__
        hops += 1
    return False


def _close(coroutine: Any) -> None:
    # What user code raises while it is dropped has nobody to tell: the run goes on elsewhere.
    try:
        coroutine.close()
    except (Exception, RunEvicted, asyncio.CancelledError):
        pass


class RunLoop(asyncio.AbstractEventLoop):
    """The event loop of one run."""

    __slots__ = (
        "_purge_at", "_ready", "_sequence", "_time", "_timers", "_timers_cancelled", "cancelling", "cancels",
        "complaints", "dead", "salt", "spawned", "tasks", "tasks_made",
    )  # fmt: skip

    def __init__(self, *, time: float, salt: int, ready: deque[Handle]) -> None:
        """`ready` may be shared by all loops of a thread, since only one pumps, and pumps to idle."""
        self._ready = ready
        self._time = time
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._sequence = 0
        self.salt = (salt & _SALT_MASK) << _SALT_SHIFT
        self.tasks_made = 0
        self.spawned = 0
        self.tasks: list[RunTask] = []
        self._purge_at = 64
        self.cancels = 0
        self.cancelling = False
        self.dead = False
        self.complaints: list[dict[str, Any]] | None = None

    # -- driving ---------------------------------------------------------------------------------

    def pump(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is."""
        ready = self._ready
        outer = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        _set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._close_generator)
        try:
            while ready:
                handle = ready.popleft()
                callback = handle.callback
                if callback is not None:
                    try:
                        handle.context.run(callback, *handle.args)
                    except Exception as error:  # a callback of the user's, by call_soon or call_later
                        self.call_exception_handler({"message": "a callback raised", "exception": error})
        finally:
            # Also on KeyboardInterrupt: what was ready belongs to this run alone.
            ready.clear()
            sys.set_asyncgen_hooks(*hooks)
            _set_running_loop(outer)

    def advance(self, time: float) -> None:
        """Move time on, firing the timers that are due in the order of their deadlines."""
        timers = self._timers
        self._time = time
        limit = time + _RESOLUTION_S
        while timers and timers[0][0] <= limit:
            handle = heappop(timers)[2]
            if handle.callback is not None:
                self._ready.append(handle)
                self.pump()

    def next_deadline(self) -> float | None:
        """When the next timer is due, in the loop's time; None without timers."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        return timers[0][0] if timers else None

    def keep(self, task: RunTask) -> None:
        """Hold a task until it is done: asyncio itself holds tasks only weakly."""
        tasks = self.tasks
        tasks.append(task)
        if len(tasks) >= self._purge_at:
            tasks[:] = [kept for kept in tasks if kept is task or not kept.done()]
            self._purge_at = max(64, 2 * len(tasks))

    def kill(self, context: Context) -> None:
        """Refuse everything from now on, and let every suspended coroutine vanish.

        Their `finally` blocks run, because Python knows no other way; but the
        loop is dead, so no call, timer or task can leave. They are closed here,
        in the run's context, and not left to the collector, which would run
        them anywhere, perhaps where a step call is a plain function call.
        """
        self.dead = True
        self._ready = deque(maxlen=0)
        self._timers.clear()
        outer = _get_running_loop()
        _set_running_loop(self)
        try:
            for task in self.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    context.run(_close, task.get_coro())
        finally:
            self.tasks.clear()
            _set_running_loop(outer)

    # -- what asyncio asks of a loop -------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, context if context is not None else copy_context())
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        if self.dead:
            raise RunEvicted
        if when != when:
            raise ValueError("a timer needs a time, and this is not a number (NaN)")
        handle = TimerHandle(when, callback, args, context if context is not None else copy_context())
        timers = self._timers
        if len(timers) > 64 and len(timers) & 63 == 0:
            self._drop_cancelled_timers()
        self._sequence += 1
        heappush(timers, (when, self._sequence, handle))
        return handle

    def _drop_cancelled_timers(self) -> None:
        # Timeouts that did not fire stay in the heap until they are due: a run that
        # guards ten thousand steps by a day each would keep them all.
        alive = [timer for timer in self._timers if timer[2].callback is not None]
        if len(alive) < len(self._timers) // 2:
            self._timers[:] = alive
            heapify(self._timers)

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def create_future(self) -> Future[Any]:
        if self.cancelling:
            self._cancel_again()
        return Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> RunTask:
        if self.dead:
            coro.close()
            raise RunEvicted
        parent = asyncio.current_task(self)
        if isinstance(parent, RunTask):
            parent.spawned += 1
            path = f"{parent.path}.{parent.spawned}"
        else:
            self.spawned += 1
            path = f"c{self.spawned}"
        task = RunTask(coro, loop=self, path=path, context=context)
        if name is not None:
            task.set_name(name)
        if self.cancelling and isinstance(parent, RunTask):
            self._cancel_again()
            task.sheltered = parent.sheltered or _is_unwinding()
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio complains of; the execution looks at it after each pump."""
        if self.dead:
            return
        if self.complaints is None:
            self.complaints = []
        self.complaints.append(context)

    # -- cancellation ----------------------------------------------------------------------------

    def _cancel_again(self) -> None:
        task = asyncio.current_task(self)
        if isinstance(task, RunTask) and task.doomed and not task.sheltered and not _is_unwinding():
            task.cancel()

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Collected before it ended: its `finally` still has to run, on this loop.
        if not self.dead:
            self.create_task(generator.aclose())  # type: ignore[arg-type]

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators end with their run."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there is no executor."""


_REFUSED = {
    "run_in_executor": "a thread or process pool",
    "set_default_executor": "a thread or process pool",
    "call_soon_threadsafe": "another thread",
    "getaddrinfo": "the network",
    "getnameinfo": "the network",
    "create_connection": "the network",
    "create_server": "the network",
    "create_datagram_endpoint": "the network",
    "create_unix_connection": "a socket",
    "create_unix_server": "a socket",
    "connect_accepted_socket": "a socket",
    "start_tls": "the network",
    "sendfile": "a file",
    "sock_recv": "a socket",
    "sock_recv_into": "a socket",
    "sock_recvfrom": "a socket",
    "sock_recvfrom_into": "a socket",
    "sock_sendall": "a socket",
    "sock_sendto": "a socket",
    "sock_connect": "a socket",
    "sock_accept": "a socket",
    "sock_sendfile": "a socket",
    "connect_read_pipe": "a pipe",
    "connect_write_pipe": "a pipe",
    "subprocess_exec": "a subprocess",
    "subprocess_shell": "a subprocess",
    "add_reader": "a file descriptor",
    "remove_reader": "a file descriptor",
    "add_writer": "a file descriptor",
    "remove_writer": "a file descriptor",
    "add_signal_handler": "the process's signals",
    "remove_signal_handler": "the process's signals",
    "run_forever": "running the loop",
    "run_until_complete": "running the loop",
    "stop": "stopping the loop",
    "close": "closing the loop",
}


def _refusal(name: str, what: str) -> Callable[..., NoReturn]:
    def refuse(self: RunLoop, *args: object, **kwargs: object) -> NoReturn:
        raise BoundaryError(
            f"Workflow code asked for {what} (loop.{name}). It would not replay the same, so it is refused.",
            hint="Move this into a function with @step and await it.",
        )

    refuse.__name__ = name
    return refuse


for _name, _what in _REFUSED.items():
    setattr(RunLoop, _name, _refusal(_name, _what))
