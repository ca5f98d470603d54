"""What the runtime needs to know of a step and of a workflow; the blocks provide it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from ..core.retry import Retry

Place = Literal["loop", "thread", "process", "transaction"]


class StepDefinition(Protocol):
    """A function that touches the world, and how it is to be run."""

    name: str
    fn: Callable[..., Any]
    place: Place
    worker: str | None
    """Which tag a worker must carry to run it; None: any worker may."""
    retry: Retry
    timeout_ms: int | None
    deadline_ms: int | None
    heartbeat_ms: int | None
    guarded: bool
    """Whether any of the three time limits is set."""

    def settle(self, value: Any) -> tuple[bytes, Any]:
        """The result as it is recorded, and as the workflow will see it.

        Raises NotSerialisable, or NotDecodable when it does not fit the return hint.
        """
        ...

    @property
    def source(self) -> str:
        """`module:qualname` of the function."""
        ...

    def read_arguments(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, from how they are encoded. Raises NotDecodable."""
        ...

    @property
    def decode_result(self) -> Callable[[bytes], Any]:
        """Reads a recorded result."""
        ...


class StepCallLike(Protocol):
    """One call of a step."""

    definition: StepDefinition
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    data: bytes
    is_stale: bool
    """Whether the arguments must be renewed before the step may have them."""
    """The encoded arguments."""

    def renew(self) -> None:
        """Take the arguments anew from `data`: a failed attempt may have changed them."""
        ...

    def describe(self) -> str:
        """`charge(Order(id='17', …))`."""
        ...


class WorkflowDefinition(Protocol):
    """A function that decides what happens next."""

    name: str
    source: str
    """`module:qualname`."""
    fn: Callable[..., Coroutine[Any, Any, Any]]
    timeout_ms: int | None

    def body(self, data: bytes) -> Coroutine[Any, Any, Any]:
        """The coroutine of a run with this stored input. Raises NotDecodable."""
        ...

    def encode_result(self, value: Any) -> bytes:
        """As it is stored. Raises NotSerialisable."""
        ...

    @property
    def decode_result(self) -> Callable[[bytes], Any]:
        """Reads a stored result."""
        ...


class WorkflowCallLike(Protocol):
    """One call of a workflow."""

    definition: WorkflowDefinition

    def input(self) -> bytes:
        """The encoded arguments. Raises NotSerialisable."""
        ...

    def describe(self) -> str:
        """`checkout(Order(id='17', …))`."""
        ...
