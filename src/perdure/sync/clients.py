"""`Client` and `Engine` for code without asyncio."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import CancelledError
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from .. import client as awaiting
from .. import engine as running
from ..blocks.handler import Handler
from ..blocks.options import Seconds
from ..blocks.signal import Signal
from ..blocks.starting import refuse_awaited
from ..blocks.update import Update
from ..blocks.workflow import Workflow, WorkflowCall
from ..client import OnConflict, Reuse
from ..errors import PerdureError
from ..runtime.claims import CAPACITY
from ..runtime.driver import RESIDENTS_KEPT
from ..stores.opening import DEFAULT_URL, without_secret
from ..views import RunPage, RunStatus, RunView
from .life import Life, check_caller, check_step, itself
from .runs import Run
from .streams import Streaming

R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")


class Client(Streaming):
    """Reaches runs in a store, and runs nothing itself. Use it with `with`, or `open()` and `close()`.

    Everything it writes is on disk when the call returns.
    """

    def __init__(self, url: str = DEFAULT_URL, *, create: bool = True) -> None:
        """`url` names the store: `sqlite:///shop.db`. Without `create` it must be there."""
        self._url = url
        self.url = without_secret(url)
        self._create = create
        self._lock = threading.Lock()
        self._life: Life | None = None

    def _make(self) -> awaiting.Client:
        return awaiting.Client(self._url, create=self._create)

    # -- opening and closing ---------------------------------------------------------------------

    def open(self) -> Self:
        """Open the store; for programs that have no `with` to stand in. Raises what opening raises."""
        check_caller(f"{type(self).__name__}.open()")
        with self._lock:
            if self._life is not None and self._life.is_of_this_process:
                raise PerdureError(f"This {type(self).__name__} is open already.")
            life = Life(self._make)
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
        check_caller(f"{type(self).__name__}.close()")
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
        check_caller(what)
        if commits:
            check_step(what)
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
            client = self._ask("start()", itself, commits=False)
            started = client.start_within(
                connection, call, id=id, on_conflict=on_conflict, reuse=reuse, timeout=timeout, tags=tags
            )
            return Run(self._ask, client.uncommitted(refuse_awaited(started, connection, "start()"), call))
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
        handlers: Iterable[Handler[Any]] | None = None,
        residents_kept: int = RESIDENTS_KEPT,
        capacity: int = CAPACITY,
        tags: Iterable[str] = (),
    ) -> None:
        """`url` names the store. `workflows`: run only these; by default all that are defined;
        `handlers` of events the same.

        `residents_kept`: how many waiting runs stay in memory. `capacity`: with so many
        steps under way it takes up no more of the runs that wait for a worker. `tags`: as `Engine` has it.
        """
        super().__init__(url)
        self._workflows = None if workflows is None else tuple(workflows)
        self._handlers = None if handlers is None else tuple(handlers)
        self._residents_kept = residents_kept
        self._capacity = capacity
        self._tags = frozenset([tags] if isinstance(tags, str) else tags)

    def _make(self) -> awaiting.Client:
        return running.Engine(
            self._url,
            workflows=self._workflows,
            handlers=self._handlers,
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
