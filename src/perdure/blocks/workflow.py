"""`@workflow`: a function that decides what happens next. It survives because it is replayed."""

from __future__ import annotations

import inspect
import os
import zlib
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..codec.arguments import Arguments
from ..codec.json import encode
from ..core.host import current_host
from ..errors import DefinitionError, OutsideRun
from ..runtime.registry import register
from .call import Call
from .options import Seconds, dress, refuse_method, to_ms

P = ParamSpec("P")
R = TypeVar("R")


class WorkflowCall(Call[R]):
    """A call of a workflow: give it to `engine.start` or `engine.run`; in a run, await it as a child."""

    __slots__ = ("_data", "definition")

    def __init__(self, definition: Workflow[Any, R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self.definition = definition
        self._data: bytes | None = None

    def input(self) -> bytes:
        """The encoded arguments: the same bytes for the same values, however they were given.

        Raises NotSerialisable, or NotDecodable for a value that its hint does not fit.
        """
        self._begun = True
        if self._data is None:
            self._data = self.definition.arguments.encode_input(self.args, self.kwargs)
        return self._data

    def __await__(self) -> Generator[Any, Any, R]:
        self._begun = True
        host = current_host.get(None)
        if host is None:
            name = self.definition.name
            raise OutsideRun(
                f"Workflow {name!r} was awaited outside a run, where nothing would make it durable.",
                hint=f"Use engine.run({name}(…)) or engine.start({name}(…)); "
                f"`{name}.fn` is the bare function.",
            )
        digest = zlib.crc32(self.input())
        definition = self.definition
        _, result = host.call_child(definition.name, digest, definition.decode_result, self, apart=False)
        return result.__await__()

    def describe(self) -> str:
        return self.definition.arguments.describe(self.args, self.kwargs)


class Workflow(Generic[P, R]):
    """A workflow's definition; calling it makes a call."""

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        *,
        name: str | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        dress(self, function)
        self.fn = function
        """The bare function, for tests that need no engine."""
        self.name = name or function.__name__
        self.source = f"{function.__module__}:{function.__qualname__}"
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"@workflow {self.name}: a workflow is an `async def` function.",
                hint="Write `async def`; a plain function that does something is a @step.",
            )
        self.timeout_ms = to_ms(timeout, f"@workflow {self.name}: timeout")
        self.arguments = Arguments(function, name=self.name)
        # Bound once, and not for each run; and not to the definition, which would be a
        # circle: a definition that nobody holds must go at once (see runtime/registry).
        self.decode_result = self.arguments.read_result
        self.encode_result = partial(_encode_result, self.name, self.arguments)
        _check(function)
        register(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowCall[R]:
        """Make a call. Raises TypeError for wrong arguments."""
        self.arguments.bind(args, kwargs)
        return WorkflowCall(self, args, kwargs)

    def body(self, data: bytes) -> Coroutine[Any, Any, R]:
        """The coroutine of a run with this stored input."""
        args, kwargs = self.arguments.decode_object(data)
        return self.fn(*args, **kwargs)

    def call_from_json(self, data: bytes) -> WorkflowCall[R]:
        """A call from JSON that a person wrote: the one argument, or an object of names, or an array."""
        args, kwargs = self.arguments.from_json(data)
        return WorkflowCall(self, args, kwargs)

    def __set_name__(self, owner: type, name: str) -> None:
        refuse_method(owner, name, "workflow")

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


def _check(function: Callable[..., object]) -> None:
    """Warn of what would not replay the same, unless this is a start that is to be as quick as can be."""
    if __debug__ and os.environ.get("PERDURE_CHECK") != "off":
        from ..check.quick import warn

        warn(function)


def _encode_result(name: str, arguments: Arguments, value: Any) -> bytes:
    data = encode(value, f"result of {name}()")
    arguments.read_result(data)  # what nobody could read back is refused now
    return data


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None, timeout: Seconds | None = None) -> _WorkflowDecorator: ...
def workflow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make an `async def` a workflow: it decides, steps do.

    It is plain asyncio, and it is run again from its journal after a crash, so it
    must do the same each time: time, randomness and I/O belong into steps, or come
    from `now()`, `random()`, `uuid()`.

    What would surely not replay the same is warned of (DeterminismWarning) when the
    function is decorated, as far as its own module shows it; `perdure check` looks
    further. `PERDURE_CHECK=off` in the environment, or `python -O`, does without.

    - `name`: what the store calls it; by default the function's name.
    - `timeout`: seconds (or timedelta) for a whole run, unless `start` says otherwise;
      the run is then cancelled, may clean up, and ends as timed out.
    """
    if fn is not None:
        return Workflow(fn)
    return _WorkflowDecorator(options)


class _WorkflowDecorator:
    """`@workflow(…)` with options."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
        return Workflow(fn, **self._options)
