"""`Update`: a request to a run that is answered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast, get_args

from ..codec.json import decoder, encode
from ..core.updates import UpdateHandler
from ..errors import DefinitionError
from .signal import Named, standing_host

T = TypeVar("T")
R = TypeVar("R")


class Update(Named[T], Generic[T, R]):
    """A typed request and its answer: `move = Update[Address, str]("move")`.

    Sent with `await run.update(move, address)`, which returns the handler's result.
    A request that the validator refuses leaves no record.
    """

    def handle(
        self, handler: Callable[[T], Coroutine[Any, Any, R]], *, validate: Callable[[T], None] | None = None
    ) -> None:
        """Answer requests with the async `handler` from now on; it may await steps.

        `validate` sees the value first and may only look and raise: what it raises
        reaches the sender as UpdateRefused, and nothing is recorded. Raises DefinitionError
        for a handler that is no `async def`.
        """
        if not inspect.iscoroutinefunction(handler):
            raise DefinitionError(
                f"Update {self.name!r}: handle({getattr(handler, '__qualname__', handler)}): a handler is an "
                "`async def` function.",
                hint="Write `async def`; it may answer at once.",
            )
        host = standing_host(f"Update {self.name!r}: handle()")
        host.handle_updates(self.name, UpdateHandler(handler, validate, self._decode, self._encode_result))

    def _result_hint(self) -> Any:
        args = get_args(getattr(self, "__orig_class__", None))
        return args[1] if len(args) > 1 else Any

    def _encode_result(self, value: Any) -> bytes:
        data = encode(value, f"answer to update {self.name!r}")
        self.decode_result(data)
        return data

    def decode_result(self, data: bytes) -> R:
        """Read an answer."""
        return cast(R, decoder(self._result_hint(), f"answer to update {self.name!r}")(data))
