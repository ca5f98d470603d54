"""`start_child`: a child run that lives beside its parent's own code."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Generator, Mapping
from typing import Any, Generic, Literal, TypeVar, cast

from ..core.host import Decode, Host
from ..errors import DefinitionError
from ..runtime.children import ChildOptions
from .options import Seconds, as_tags, as_text, to_ms
from .signal import standing_host
from .workflow import WorkflowCall

R = TypeVar("R")


class Child(Generic[R]):
    """A child run that was started apart; await it for its result."""

    def __init__(self, host: Host, key: str, run_id: str, decode: Decode) -> None:
        self._host = host
        self._key = key
        self._decode = decode
        self._end: asyncio.Future[Any] | None = None
        self.id = run_id
        """The child's run id."""

    def __await__(self) -> Generator[Any, Any, R]:
        if self._end is None:
            self._end = self._host.child_result(self._key, self._decode)
        # Shielded: whoever stops waiting leaves the child, and other waiters, alone.
        return cast(Generator[Any, Any, R], asyncio.shield(self._end).__await__())

    def __repr__(self) -> str:
        return f"<child {self.id}>"


async def start_child(
    call: WorkflowCall[R],
    *,
    id: str | None = None,
    on_parent_close: Literal["cancel", "abandon"] = "cancel",
    timeout: Seconds | None = None,
    tags: Mapping[str, str] | None = None,
) -> Child[R]:
    """Start a child run and return once it is on disk; await the child for its result.

    Without `id` the child's id is made from the parent's and the call's place.
    When the parent ends, a child that is still open is cancelled, or with
    `on_parent_close="abandon"` left to itself. Raises ConflictError if the id
    belongs to another run.
    """
    host = standing_host("start_child()")
    call.claim()  # also one that is refused below: its error is told here, and not as a call left lying
    if on_parent_close not in ("cancel", "abandon"):
        raise DefinitionError(f"on_parent_close={on_parent_close!r} is neither 'cancel' nor 'abandon'.")
    options = ChildOptions(
        id if id is None else as_text(id, "start_child: id"),
        on_parent_close,
        to_ms(timeout, "start_child: timeout"),
        as_tags(tags, "start_child"),
    )
    data = call.input()
    key, started = host.call_child(
        call.definition.name, zlib.crc32(data), _decode_id, call, apart=True, options=options
    )
    run_id: str = await started
    return Child(host, key, run_id, call.definition.decode_result)


def _decode_id(data: bytes) -> str:
    return data.decode()[1:-1]
