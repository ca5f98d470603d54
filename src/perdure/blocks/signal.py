"""`Signal`: a typed message into a run, kept in order until it is received."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar, cast, get_args

from ..codec.json import decoder, encode
from ..core.host import Host, current_host
from ..core.mailbox import Mailbox
from ..errors import NotSerialisable, OutsideRun
from .options import as_text

T = TypeVar("T")


def standing_host(what: str) -> Host:
    """The run that the calling code stands in. Raises OutsideRun."""
    host = current_host.get(None)
    if host is None:
        raise OutsideRun(
            f"{what} was called outside a run.", hint="Call it in a @workflow that an engine runs."
        )
    return host


class Named(Generic[T]):
    """Something declared once by name and type, and used by both sides."""

    def __init__(self, name: str) -> None:
        """`name` is what the journal calls it."""
        self.name = as_text(name, f"A {type(self).__name__.lower()}'s name")

    @property
    def hint(self) -> Any:
        """The type of its values; Any where it does not say."""
        # `Signal[str]("approval")` leaves its type here after __init__.
        args = get_args(getattr(self, "__orig_class__", None))
        return args[0] if args else Any

    def _decode(self, data: bytes) -> Any:
        return decoder(self.hint, f"{type(self).__name__.lower()} {self.name!r}")(data)

    def encode(self, value: T) -> bytes:
        """The value as it is sent. Raises NotSerialisable, also for one that its type does not fit."""
        where = f"{type(self).__name__.lower()} {self.name!r}"
        data = encode(value, where)
        try:
            self._decode(data)
        except Exception as error:
            raise NotSerialisable(where, f"the value does not fit its type: {error}") from error
        return data

    def decode(self, data: bytes) -> T:
        """Read what was sent. Raises NotDecodable."""
        return cast(T, self._decode(data))

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"


class Signal(Named[T]):
    """A typed message into a run: `approval = Signal[str]("approval")`.

    Sent with `run.send(approval, value)`, it is on disk when `send` returns, and
    is received once, in the order of sending, even if it came before the run asked.
    """

    async def receive(self) -> T:
        """The next value; waits for one. Several receivers are served in the order of asking."""
        return cast(T, await self._mailbox("receive").get())

    def __aiter__(self) -> AsyncIterator[T]:
        """`async for value in approval:` receives for ever."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[T]:
        while True:
            yield await self.receive()

    def handle(self, handler: Callable[[T], Any]) -> None:
        """Call `handler` for each value from now on, those that already wait first.

        A plain function is called at once, in order. An async one gets a task for
        each value; the tasks begin in order and may overlap.
        """
        mailbox = self._mailbox("handle")
        if inspect.iscoroutinefunction(handler):
            kept: set[asyncio.Task[Any]] = set()

            def spawn(value: T) -> None:
                task = asyncio.get_running_loop().create_task(handler(value))
                kept.add(task)
                task.add_done_callback(kept.discard)

            mailbox.handle(spawn)
        else:
            mailbox.handle(handler)

    def _mailbox(self, verb: str) -> Mailbox:
        host = standing_host(f"Signal {self.name!r}: {verb}()")
        return cast(Mailbox, host.mailbox(self.name, self._decode))
