"""`Engine` and `Client` for code without asyncio: scripts, Flask, Django, threads.

    from perdure.sync import Engine

    with Engine("sqlite:///shop.db") as engine:
        run = engine.start(checkout(order), id="order-17")
        receipt = run.result(timeout=60)

Behind each stands the one that awaits, on an event loop in a thread of its own;
the methods hand it the work and block until it is done. They may be called from
any thread. The law: no call waits for a loop that is gone, and none is made from
where it would block the loop that is to answer it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import CancelledError, Future
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from . import client as awaiting
from . import engine as running
from .blocks.options import Seconds
from .blocks.signal import Signal
from .blocks.starting import refuse_awaited
from .blocks.state import State
from .blocks.update import Update
from .blocks.workflow import Workflow, WorkflowCall
from .client import OnConflict, Reuse
from .core.host import current_host
from .errors import BoundaryError, PerdureError
from .runtime.attempt import current_attempt
from .runtime.claims import CAPACITY
from .runtime.driver import RESIDENTS_KEPT
from .stores.opening import DEFAULT_URL, without_secret
from .views import RunPage, RunStatus, RunView

R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")

_NO_MORE: Any = object()


class _Ask(Protocol):
    """Has the loop of a client do something, and waits for it."""

    def __call__(
        self,
        what: str,
        make: Callable[[awaiting.Client], Coroutine[Any, Any, T]],
        timeout: float | None = None,
    ) -> T: ...


class Run(Generic[R]):
    """A handle on one run; making it asks nothing. `R` is what the workflow returns."""

    def __init__(self, ask: _Ask, run: awaiting.Run[R]) -> None:
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


class Client:
    """Reaches runs in a store, and runs nothing itself. Use it with `with`, or `open()` and `close()`.

    Everything it writes is on disk when the call returns.
    """

    def __init__(self, url: str = DEFAULT_URL, *, create: bool = True) -> None:
        """`url` names the store: `sqlite:///shop.db`. Without `create` it must be there."""
        self._url = url
        self.url = without_secret(url)
        self._create = create
        self._lock = threading.Lock()
        self._life: _Life | None = None

    def _make(self) -> awaiting.Client:
        return awaiting.Client(self._url, create=self._create)

    # -- opening and closing ---------------------------------------------------------------------

    def open(self) -> Self:
        """Open the store; for programs that have no `with` to stand in. Raises what opening raises."""
        _check_caller(f"{type(self).__name__}.open()")
        with self._lock:
            if self._life is not None and self._life.is_of_this_process:
                raise PerdureError(f"This {type(self).__name__} is open already.")
            life = _Life(self._make)
            life.wait_until_open()
            self._life = life
        return self

    def close(self) -> None:
        """Close the store. Whoever still waits in another thread hears of it. Closing twice is fine.

        In a process that was forked off this does nothing: it is the other's to close.
        """
        life = self._life
        if life is None or not life.is_of_this_process:
            return
        _check_caller(f"{type(self).__name__}.close()")
        with self._lock:
            if self._life is not life:
                return  # another thread closes it
            self._life = None
        life.end()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self,
        what: str,
        make: Callable[[awaiting.Client], Coroutine[Any, Any, T]],
        timeout: float | None = None,
        *,
        commits: bool = True,
    ) -> T:
        """Have the loop do something, and wait for it; `commits`: it may have to wait for a commit."""
        _check_caller(what)
        if commits:
            _check_step(what)
        name = type(self).__name__
        life = self._life
        if life is not None and not life.is_of_this_process:
            raise PerdureError(
                f"{what}: this {name} was opened in process {life.process}, and this is process "
                f"{os.getpid()}: a fork does not copy its threads, and must not use its files.",
                hint="Open it after the fork, in the process that uses it.",
            )
        with self._lock:
            life = self._life
            if life is None:
                raise PerdureError(
                    f"{what}: this {name} is not open.", hint=f"Use `with {name}(…)`, or open()."
                )
            future = life.submit(make)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                return future.result()  # it came at the last moment, or was its own error
            future.cancel()
            raise TimeoutError(
                f"{what} did not come within {timeout:g} s. The run goes on; ask again."
            ) from None
        except CancelledError:
            raise PerdureError(f"{what}: this {name} was closed before it was done.") from None
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for it any more
            raise

    # -- runs ------------------------------------------------------------------------------------

    def start(
        self,
        call: WorkflowCall[R],
        *,
        id: str | None = None,
        on_conflict: OnConflict = "return",
        reuse: Reuse = "never",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
        connection: Any = None,
    ) -> Run[R]:
        """Start a run; it is on disk when this returns. The options are those of the awaiting `start`.

        With a `connection`, which must be one that blocks, the run is written by it, in this thread.
        """
        if connection is not None:
            client = self._ask("start()", _itself, commits=False)
            started = client.start_within(
                connection, call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags
            )
            return Run(self._ask, client.uncommitted(refuse_awaited(started, connection), call))
        run = self._ask(
            "start()",
            lambda client: client.start(
                call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags
            ),
        )
        return Run(self._ask, run)

    def run(
        self,
        call: WorkflowCall[R],
        *,
        id: str | None = None,
        on_conflict: OnConflict = "return",
        reuse: Reuse = "never",
        timeout: Seconds | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> R:
        """Start a run and wait for its result; the options are those of `start`."""
        return self._ask(
            "run()",
            lambda client: client.run(
                call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags
            ),
        )

    @overload
    def get(self, id: str, workflow: None = None) -> Run[Any]: ...
    @overload
    def get(self, id: str, workflow: Workflow[Any, R]) -> Run[R]: ...
    def get(self, id: str, workflow: Workflow[Any, R] | None = None) -> Run[Any]:
        """A handle on the run of this id. With its `workflow` the result has its type.

        Raises RunNotFound.
        """
        if workflow is None:
            return Run(self._ask, self._ask("get()", lambda client: client.get(id)))
        return Run(self._ask, self._ask("get()", lambda client: client.get(id, workflow)))

    def send(self, id: str, signal: Signal[T], value: T, *, signal_id: str = "") -> None:
        """Send a signal to a run. See `Run.send`."""
        self._ask("send()", lambda client: client.send(id, signal, value, signal_id=signal_id))

    def update(self, id: str, update: Update[A, T], value: A) -> T:
        """Send an update to a run and return its answer. See `Run.update`."""
        return self._ask("update()", lambda client: client.update(id, update, value))

    def cancel(self, id: str, reason: str = "") -> None:
        """Ask a run to stop; on disk when this returns. Does nothing to a run that has ended."""
        self._ask("cancel()", lambda client: client.cancel(id, reason))

    def terminate(self, id: str, reason: str = "") -> None:
        """End a run at once, with no clean-up. Does nothing to a run that has ended."""
        self._ask("terminate()", lambda client: client.terminate(id, reason))

    def resume(self, id: str) -> None:
        """Go on with a parked run. Does nothing to one that is running; raises RunClosed if it has ended."""
        self._ask("resume()", lambda client: client.resume(id))

    def info(self, id: str) -> RunView:
        """A run as it stands. Raises RunNotFound."""
        return self._ask("info()", lambda client: client.info(id))

    def list(
        self,
        *,
        workflow: Workflow[Any, Any] | str | None = None,
        status: RunStatus | Sequence[RunStatus] = (),
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        id_prefix: str = "",
        limit: int = 100,
        before: int | None = None,
    ) -> RunPage:
        """Runs, newest first, a page at a time. The filters are those of the awaiting `list`."""
        return self._ask(
            "list()",
            lambda client: client.list(
                workflow=workflow,
                status=status,
                created_after=created_after,
                created_before=created_before,
                tags=tags,
                id_prefix=id_prefix,
                limit=limit,
                before=before,
            ),
        )


class Engine(Client):
    """Runs workflows in this process, on a thread of its own, kept in one store.

    It is a worker and a client in one, as `perdure.Engine` is. A program that ends
    without closing it closes it then.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        workflows: Iterable[Workflow[Any, Any]] | None = None,
        residents_kept: int = RESIDENTS_KEPT,
        capacity: int = CAPACITY,
        tags: Iterable[str] = (),
    ) -> None:
        """`url` names the store. `workflows`: run only these; by default all that are defined.

        `residents_kept`: how many waiting runs stay in memory. `capacity`: with so many
        steps under way it takes up no more of the runs that wait for a worker. `tags`: as `Engine` has it.
        """
        super().__init__(url)
        self._workflows = None if workflows is None else tuple(workflows)
        self._residents_kept = residents_kept
        self._capacity = capacity
        self._tags = frozenset([tags] if isinstance(tags, str) else tags)

    def _make(self) -> awaiting.Client:
        return running.Engine(
            self._url,
            workflows=self._workflows,
            residents_kept=self._residents_kept,
            capacity=self._capacity,
            tags=self._tags,
        )

    def drain(self, seconds: float = 10.0) -> None:
        """Take up and begin nothing more, and wait until no step runs, so many seconds at most."""

        async def drain(client: awaiting.Client) -> None:
            assert isinstance(client, running.Engine)
            await client.drain(seconds)

        self._ask("drain()", drain)

    def open(self) -> Self:
        """Open the store, take the lease, and go on with what was interrupted.

        Raises StoreInUse if the file has four workers already.
        """
        super().open()
        atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Cancel steps under way, write what is done, and close the store. Runs go on at the next opening.

        Whoever still waits in another thread hears of it. Closing twice is fine. In a
        process that was forked off this does nothing.
        """
        atexit.unregister(self._close_at_exit)
        super().close()

    def _close_at_exit(self) -> None:
        # The interpreter starts no threads any more: what the loop wants of its own may fail.
        with contextlib.suppress(RuntimeError):
            self.close()


class _Life:
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


def _check_step(what: str) -> None:
    """Raise where the commit that is to be waited for waits for the step that asks."""
    attempting = current_attempt.get(None)
    if attempting is not None and attempting.info().is_in_transaction:
        raise PerdureError(
            f"{what} was called by a step with transaction=True, for whose end all commits wait.",
            hint="Start runs with start_within(…); move anything else into another step.",
        )


async def _itself(client: awaiting.Client) -> awaiting.Client:
    return client


async def _next(values: AsyncIterator[T]) -> T:
    return await anext(values, _NO_MORE)


def _check_caller(what: str) -> None:
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
