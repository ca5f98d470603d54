"""`@step`: a function that touches the world. Its result is recorded once."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Container, Coroutine, Generator
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload
from weakref import WeakValueDictionary

from ..codec.arguments import Arguments
from ..codec.json import encode
from ..core.host import current_host
from ..core.retry import Retry, check_retry
from ..errors import DefinitionError, OutsideRun
from ..runtime.attempt import PlainAttempt, StepInfo, current_attempt
from ..runtime.clock import SystemSource
from ..runtime.definitions import Place
from .call import Call
from .options import Seconds, dress, refuse_method, to_ms

P = ParamSpec("P")
R = TypeVar("R")


class StepCall(Call[R]):
    """A call of a step. Awaiting it in a run gives the recorded result; outside, it calls the function."""

    __slots__ = ("data", "definition", "is_stale")

    def __init__(self, definition: Step[Any, R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Written out, and not left to the base class: this is made for every step of every run.
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self.data = b""
        self.is_stale = False
        self._begun = False
        self._iterator = None
        self._host = host = current_host.get(None)
        if host is None:
            definition.arguments.bind(args, kwargs)
            return
        try:
            self.data = definition.arguments.encode(args, kwargs)  # binds them too
            self.is_stale = host.replaying  # most calls of a replay never run
            if not host.replaying:
                self.renew()
        except BaseException:
            self._begun = True
            raise

    def __await__(self) -> Generator[Any, Any, R]:
        self._begun = True
        definition = self.definition
        host = self._host
        if host is None:
            host = current_host.get(None)
            if host is None:
                return definition.call_plainly(self.args, self.kwargs).__await__()
            self.data = definition.arguments.encode(self.args, self.kwargs)  # made before the run began
        return host.call_step(
            definition.name, zlib.crc32(self.data), definition.decode_result, self
        ).__await__()

    def renew(self) -> None:
        """Give the step what is encoded, and not the caller's objects: each attempt a copy of its own.

        Raises NotDecodable for an argument that its hint does not fit.
        """
        self.args, self.kwargs = self.definition.arguments.copy(self.args, self.kwargs, self.data)
        self.is_stale = False

    def describe(self) -> str:
        return self.definition.arguments.describe(self.args, self.kwargs)


class Step(Generic[P, R]):
    """A step's definition; calling it makes a call.

    In a run, the result of the awaited call is recorded once and never computed
    again. If the worker dies before the result is on disk, the function runs
    again with the same idempotency key.
    """

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Seconds | None = None,
        deadline: Seconds | None = None,
        heartbeat: Seconds | None = None,
        on: Literal["process"] | None = None,
        transaction: bool = False,
        worker: str | None = None,
    ) -> None:
        dress(self, function)
        self.fn = function
        self.name = name or function.__name__
        check_retry(retry, f"@step {self.name}")
        self.retry = retry or Retry()
        self.timeout_ms = to_ms(timeout, f"@step {self.name}: timeout")
        self.deadline_ms = to_ms(deadline, f"@step {self.name}: deadline")
        self.heartbeat_ms = to_ms(heartbeat, f"@step {self.name}: heartbeat")
        self.guarded = bool(self.timeout_ms or self.deadline_ms or self.heartbeat_ms)
        self.place: Place = _place(function, on, self.name)
        self.worker = worker
        if worker is not None:
            _check_worker(self, transaction=transaction)
        if transaction:
            _check_transaction(self)
            self.place = "transaction"
        self.arguments = Arguments(function, name=self.name)
        self.decode_result = self.arguments.read_result  # bound once, and not for each call
        _defined[self.source] = self

    @property
    def source(self) -> str:
        """`module:qualname` of the function."""
        return f"{self.fn.__module__}:{self.fn.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StepCall[R]:
        """Make a call: await it. Raises TypeError for wrong arguments, NotSerialisable in a run."""
        return StepCall(self, args, kwargs)

    async def call_plainly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        """Just call the function: what awaiting means outside a run."""
        before = current_attempt.set(PlainAttempt(self.name, SystemSource().bytes(16)))
        try:
            value = self.fn(*args, **kwargs)
            return cast(R, await value if inspect.isawaitable(value) else value)
        finally:
            current_attempt.reset(before)

    def settle(self, value: Any) -> tuple[bytes, Any]:
        """The result as it is recorded, and as the workflow will see it, live as in a replay."""
        data = encode(value, self._where_result)
        return data, self.arguments.copy_result(value, data)

    def read_arguments(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, from how they are encoded. Raises NotDecodable."""
        return self.arguments.decode(data)

    def _where_result(self) -> str:
        return f"result of {self.name}()"

    def __set_name__(self, owner: type, name: str) -> None:
        refuse_method(owner, name, "step")

    def __repr__(self) -> str:
        return f"<step {self.name}>"


_defined: WeakValueDictionary[str, Step[..., Any]] = WeakValueDictionary()


def steps_for(tags: Container[str]) -> list[Step[..., Any]]:
    """The steps that are defined in this process and ask for a worker with one of these tags."""
    return [known for known in list(_defined.values()) if known.worker is not None and known.worker in tags]


def find_steps(name: str) -> list[Step[..., Any]]:
    """The steps of this name that are defined in this process; for a home that knows a step by its name."""
    return [known for known in list(_defined.values()) if known.name == name]


def _place(function: Callable[..., Any], on: str | None, name: str) -> Place:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"@step {name}: a generator has no single result.", hint="Return a list.")
    is_async = inspect.iscoroutinefunction(function)
    if on == "process":
        if is_async or "<locals>" in function.__qualname__ or "<lambda>" in function.__qualname__:
            raise DefinitionError(
                f"@step {name}: on='process' needs a plain function at the top of a module, "
                "which the other process can import.",
                hint="Move it to the top of a module, and make it `def`.",
            )
        return "process"
    if on is not None:
        raise DefinitionError(
            f"@step {name}: on={on!r} is not a place.", hint="Leave it out, or use on='process'."
        )
    return "loop" if is_async else "thread"


def _check_worker(step: Step[..., Any], *, transaction: bool) -> None:
    if not isinstance(step.worker, str) or not step.worker:
        raise DefinitionError(
            f"@step {step.name}: worker={step.worker!r} is not a tag.",
            hint="Write worker='gpu', and start a worker with that tag.",
        )
    if transaction:
        raise DefinitionError(
            f"@step {step.name}: worker= and transaction=True do not go together: the result is written by "
            "the worker that has the run, and the step's own writes would be made by another.",
            hint="Make it two: one with worker= that works, and one with transaction=True that writes.",
        )


def _check_transaction(step: Step[..., Any]) -> None:
    if step.place != "thread":
        raise DefinitionError(
            f"@step {step.name}: transaction=True needs a plain function, on the worker itself.",
            hint="Write `def`, without on=; it does no more than a few statements on step_info().connection.",
        )
    if step.guarded:
        raise DefinitionError(
            f"@step {step.name}: a step in a transaction has no timeout, deadline or heartbeat: it cannot be "
            "interrupted from outside.",
            hint="Limit its statements: on PostgreSQL by SET LOCAL statement_timeout.",
        )


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Seconds | None = None,
    deadline: Seconds | None = None,
    heartbeat: Seconds | None = None,
    on: Literal["process"] | None = None,
    transaction: bool = False,
    worker: str | None = None,
) -> _StepDecorator: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step: it may touch the world, it is retried, its result is recorded once.

    An async function runs on the engine's event loop, a plain one on a thread of
    a bounded pool, and with `on="process"` (CPU-bound work) in a process of its
    own. Calling the step gives a typed call to await.

    - `retry`: a `Retry`; the default tries 10 times with growing delays.
    - `timeout`: seconds (or timedelta) for each attempt; `deadline`: over all attempts,
      counted from when the workflow asked. A thread cannot be stopped: past its limit its
      attempt counts as failed and what it still returns is ignored.
    - `heartbeat`: an attempt that does not call `step_info().heartbeat()` that often has failed.
    - `transaction`: the function writes to the store's own database by
      `step_info().connection`, and its writes are committed together with its result:
      exactly once, whatever crashes. It holds up the worker's other commits, so it should
      be a few statements and nothing else. Its function may be called more than once; what
      it wrote before is undone.
    - `worker`: a tag. The function runs only on workers that carry it (`Engine(tags=…)`,
      `perdure worker --tag …`), wherever its run is. Where the run's own worker does not,
      the call is queued in the store, and what it comes to is sent back. All else is as with any
      step. While no worker carries the tag the run waits.
    - `name`: what the journal calls it; by default the function's name. Runs that are
      under way know the step by this name.

    Raises DefinitionError for a definition that cannot work.
    """
    if fn is not None:
        made: Step[..., Any] = Step(fn)
        return made
    return _StepDecorator(options)


class _StepDecorator:
    """`@step(…)` with options."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[..., Any]:
        return Step(fn, **self._options)


def step_info() -> StepInfo:
    """What the running step may know of itself: run id, attempt, idempotency key, heartbeat.

    A step that is awaited outside a run, as in a unit test, has an empty run id and
    an idempotency key of its own. Raises OutsideRun where no step runs at all.
    """
    attempting = current_attempt.get(None)
    if attempting is None:
        raise OutsideRun(
            "step_info() was called where no step runs.",
            hint="Call it in the function of a @step, and await the step; `step.fn(…)` is the bare function.",
        )
    return attempting.info()
