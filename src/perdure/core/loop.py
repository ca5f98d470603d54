"""The deterministic event loop on which workflow code runs, one small loop a run.

It is a real `asyncio` loop to the code on it: gather, TaskGroup, timeout, Queue
and the rest work, because tasks and futures are asyncio's own. But it has no
clock and no I/O. Time is what the last recorded event says, callbacks run in
the order in which they were asked for, and whatever would reach outside is
refused. So the same events always lead to the same calls.

The laws it keeps:

- `pump` runs until nothing is ready; it is called once per event, from plain
  code and never from inside a task.
- `advance` moves time to the event's, never back; timers that are due fire one
  by one in the order of their deadlines, each pumped to idle before the next.
  All see the event's time: a worker that was down past several deadlines fires
  them together, when it is back. A timer made on the way fires on a later event.
- Tasks have a path (`0`, `0.1`, `0.1.3` …: which task made which) and a
  sequential hash: asyncio iterates sets of tasks when a TaskGroup aborts and in
  `wait`, and the order must not depend on addresses in memory.
- Cancellation of the run is level-triggered: a task that swallows it meets it
  again at its next await, unless it is still unwinding (in an `except` or
  `finally`), where cleaning up must be possible.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import Future
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from math import ceil, isnan
from typing import Any, ClassVar, cast

from ..errors import BoundaryError, RunEvicted
from .dropping import close_coroutine, part_from_waiter
from .host import current_host
from .ready import NOWHERE, Handle, Ready, TimerHandle
from .refused import refuse_the_world

# Deadlines are sums of floats; one that is this little past a millisecond belongs to it.
_RESOLUTION_MS = 1e-3
# The year 10000: what is due later is never due. `sleep(math.inf)` is a way to say so.
_NEVER_S = 253_402_300_800.0
# How often code that is dropped is told to stop before its awaits suspend it, so that it can be closed again.
_REFUSALS_MAX = 1000
# How often in one event a task that swallows the run's cancel meets it again.
_AGAIN_MAX = 20
# In 3.11 `asyncio.current_task` is Python, and each call of a step asks.
_current_task: Callable[[Any], asyncio.Task[Any] | None] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
)
_ASYNCIO_TASKS = vars(sys.modules["asyncio.tasks"])
# Below the salt of the run: the order of a set of tasks is that of their numbers.
_SALT_SHIFT = 20
_SALT_MASK = (1 << 40) - 1


class RunTask(asyncio.Task[Any]):
    """A task of a run: it knows its place in the tree of tasks."""

    __slots__ = ("again", "again_in", "calls", "doomed", "path", "salted", "sheltered", "spawned")

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
        self.again_in = 0
        super().__init__(coro, loop=loop, name=path, context=context)  # type: ignore[arg-type]
        loop.keep(self)

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

    def __await__(self) -> Generator[Any, None, Any]:
        loop: RunLoop = self.get_loop()  # type: ignore[assignment]
        if loop.cancelling:
            loop.cancel_again()
        return super().__await__()


def _is_unwinding(outer: BaseException | None) -> bool:
    """Whether the code that runs now is handling a CancelledError: cleaning up after one.

    `outer` is what the worker's own code was handling when it pumped: not the run's.
    """
    error = sys.exc_info()[1]
    hops = 0
    while error is not None and error is not outer and hops < 100:
        if isinstance(error, asyncio.CancelledError):
            return True
        error = error.__context__
        hops += 1
    return False


def _given_to_as_completed() -> Any:
    """What `asyncio.as_completed` was given, if it is about to make a task; else None.

    It makes a set of it, and the order of a set of coroutines is that of their
    addresses in memory.
    """
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    if frame.f_globals is not _ASYNCIO_TASKS:
        return None
    for _ in range(4):
        caller = frame.f_back
        if caller is None or caller.f_globals is not _ASYNCIO_TASKS:
            break
        frame = caller
    # Each look at a frame's code is told to the process's audit hooks: one is enough.
    return frame.f_locals["fs"] if frame.f_code.co_name == "as_completed" else None


class RunLoop(asyncio.AbstractEventLoop):
    """The event loop of one run."""

    collecting_in: ClassVar[object] = None
    __slots__ = (
        "_made_ahead", "_outer_error", "_pumps", "_purge_at", "_ready", "_refusals", "_sequence", "_time",
        "_timers", "cancelling", "cancels", "complaints", "dead", "salt", "spawned", "tasks", "tasks_made",
    )  # fmt: skip

    def __init__(self, *, time: float, salt: int, ready: Ready) -> None:
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
        self._made_ahead: dict[Any, RunTask] | None = None
        self._outer_error: BaseException | None = None
        self._refusals = 0
        self._pumps = 0

    # -- driving ---------------------------------------------------------------------------------

    def pump(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is. Inside `with ready:`."""
        ready = self._ready
        assert ready._depth, "a run is pumped inside `with ready:`"  # pyright: ignore[reportPrivateUsage]
        if ready.set_for is not self:  # a replay pumps one loop again and again
            _set_running_loop(self)
            sys.set_asyncgen_hooks(None, self._close_generator)
            ready.set_for = self
        if self.cancelling:
            self._outer_error = sys.exc_info()[1]
            self._pumps += 1
        ready.pumping = self
        while ready:
            handle = ready.popleft()
            callback = handle.callback
            if callback is not None:
                try:
                    handle.context.run(callback, *handle.args)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # a callback of the user's, by call_soon or call_later
                    self.call_exception_handler({"message": "a callback raised", "exception": error})
        ready.pumping = None
        self._outer_error = None

    def advance(self, at_ms: int) -> None:
        """Move time on, firing the timers that are due in the order of their deadlines."""
        time = at_ms / 1000
        if time > self._time:  # noqa: PLR1730 (max() costs more than the whole line)
            self._time = time
        timers = self._timers
        if not timers or timers[0][0] * 1000 - _RESOLUTION_MS > at_ms:
            return
        # Taken out first: a timer made on the way that is due at once waits for the next
        # event, or code that polls with tiny sleeps would never let go of the thread.
        due: list[TimerHandle] = []
        while timers and timers[0][0] * 1000 - _RESOLUTION_MS <= at_ms:
            due.append(heappop(timers)[2])
        for handle in due:
            if handle.callback is not None:
                self._ready.append(handle)
                self.pump()

    def next_deadline_ms(self) -> int | None:
        """The time to advance to for the next timer to fire; None without timers."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if not timers or timers[0][0] >= _NEVER_S:
            return None
        return ceil(timers[0][0] * 1000 - _RESOLUTION_MS) if timers[0][0] > 0 else 0

    def look(self, context: Context, function: Callable[..., object], *args: Any) -> None:
        """Call a function of the user's that may only look: with no loop running it can make no task."""
        outer = _get_running_loop()
        _set_running_loop(None)
        try:
            context.run(function, *args)
        finally:
            _set_running_loop(outer)

    def current_task(self) -> RunTask | None:
        """The task of this loop that runs now, in this thread; None in a callback or in another thread."""
        if _get_running_loop() is not self:
            return None
        task = _current_task(self)
        return task if isinstance(task, RunTask) else None

    def keep(self, task: RunTask) -> None:
        """Hold a task until it is done: asyncio itself holds tasks only weakly."""
        tasks = self.tasks
        tasks.append(task)
        if len(tasks) >= self._purge_at:
            tasks[:] = [kept for kept in tasks if not kept.done()]
            self._purge_at = max(64, 2 * len(tasks))

    def kill(self, context: Context) -> None:
        """Refuse everything from now on, and let every suspended coroutine vanish.

        Their `finally` blocks run, because Python knows no other way; but the
        loop is dead, so no call, timer or task can leave. They are closed here,
        in the run's context, and not left to the collector, which would run
        them anywhere, perhaps where a step call is a plain function call.
        """
        self.dead = True
        self._ready = NOWHERE
        self._timers.clear()
        if all(task.done() for task in self.tasks):
            self.tasks.clear()
            return
        outer = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        _set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._close_generator)
        try:
            for task in self.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    context.run(close_coroutine, task.get_coro())
                    part_from_waiter(task)
        finally:
            self.tasks.clear()
            sys.set_asyncgen_hooks(*hooks)
            _set_running_loop(outer)

    def refuse(self) -> Future[Any]:
        """Stop code that still unwinds in a dead loop. Raises RunEvicted.

        Code that catches even that, again and again, gets a future that is never
        done, so that it lets go of the thread.
        """
        self._refusals += 1
        if self._refusals < _REFUSALS_MAX:
            raise RunEvicted
        return Future(loop=self)

    # -- what asyncio asks of a loop -------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
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
        if isnan(when):
            raise ValueError("a timer needs a time, and this is not a number (NaN)")
        handle = TimerHandle(when, callback, args, context if context is not None else copy_context())
        if self.dead:
            self.refuse()
            return handle
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
        if self.dead:
            return self.refuse()
        if self.cancelling:
            self.cancel_again()
        return Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> RunTask:
        if self.dead:
            coro.close()
            return self.refuse()  # type: ignore[return-value]
        if self._made_ahead and coro in self._made_ahead:
            return self._made_ahead.pop(coro)
        given = _given_to_as_completed()
        if given is not None:
            return self._make_in_order(coro, given)
        task = self._make_task(coro, context)
        if name is not None:
            task.set_name(name)
        return task

    def _make_task(self, coro: Coroutine[Any, Any, Any], context: Context | None) -> RunTask:
        parent = asyncio.current_task(self)
        if isinstance(parent, RunTask):
            parent.spawned += 1
            path = f"{parent.path}.{parent.spawned}"
        else:
            self.spawned += 1
            path = f"c{self.spawned}"
        if context is not None and current_host not in context and current_host in copy_context():
            # In a context of the user's own, steps would be plain function calls.
            context.run(current_host.set, current_host.get())
        task = RunTask(coro, loop=self, path=path, context=context)
        if self.cancelling and isinstance(parent, RunTask):
            self.cancel_again()
            task.sheltered = parent.sheltered or _is_unwinding(self._outer_error)
        return task

    def _make_in_order(self, coro: Coroutine[Any, Any, Any], given: Any) -> RunTask:
        """The task for one of several coroutines that stand in a set; all are made, in the order given."""
        # The types of what is inside cannot be told, and any will do.
        together = list(cast("Sequence[Any]", given)) if isinstance(given, list | tuple) else []
        coroutines = dict.fromkeys(one for one in together if not isinstance(one, Future))
        if coro not in coroutines:
            raise BoundaryError(
                "asyncio.as_completed was given coroutines in something that is not a list, or objects that "
                "are not coroutines. It puts them in a set, whose order would not replay the same.",
                hint="Give it tasks: as_completed([asyncio.ensure_future(one) for one in …]).",
            )
        made = {one: self._make_task(one, None) for one in coroutines}
        task = made.pop(coro)
        self._made_ahead = made
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio complains of; the execution looks at it after each pump."""
        if self.dead:
            return
        if self.complaints is None:
            self.complaints = []
        self.complaints.append(context)

    # -- cancellation ----------------------------------------------------------------------------

    def cancel_again(self) -> None:
        """The task that runs now is about to wait: if it has swallowed the run's cancel, cancel it again."""
        task = asyncio.current_task(self)
        if not isinstance(task, RunTask) or not task.doomed or task.sheltered:
            return
        if _is_unwinding(self._outer_error):
            return
        if task.again_in != self._pumps:
            task.again, task.again_in = 0, self._pumps
        task.again += 1
        # TaskGroup and Condition swallow it while they wait for others to clean up, and
        # wait again: without an end to this they would never let those others get on.
        if task.again <= _AGAIN_MAX:
            task.cancel()

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Dropped before it ended: its `finally` still has to run, on this loop. One that was
        # not dropped but collected, at a time that chance decides, never runs it.
        if self._ready.pumping is self and RunLoop.collecting_in is not self:
            self._make_task(generator.aclose(), None)  # type: ignore[arg-type]

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators end with their run."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there is no executor."""


def _note_collection(phase: str, _: object) -> None:
    # The running loop is the thread's own: a collection in another thread is not meant.
    RunLoop.collecting_in = _get_running_loop() if phase == "start" else None


gc.callbacks.append(_note_collection)
refuse_the_world(RunLoop)
