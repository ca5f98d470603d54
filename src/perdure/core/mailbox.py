"""The signals of one name that wait to be received by a run."""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .host import Decode
from .loop import RunLoop


class Mailbox:
    """Values in the order of arrival; each goes to one receiver, in the order of asking.

    A receiver is only woken, and takes the value itself: a value can't be lost
    with a receiver that is cancelled just after it was woken.
    """

    __slots__ = ("_handler", "_items", "_loop", "_waiters", "decode", "owed")

    def __init__(self, loop: RunLoop) -> None:
        self._loop = loop
        self._items: deque[bytes] = deque()
        self._waiters: deque[Future[None]] = deque()
        self._handler: Callable[[Any], None] | None = None
        self.decode: Decode | None = None
        self.owed = 0
        """Values that receivers asked somebody for, and did not stay to take: the next ones need not ask."""

    def put(self, payload: bytes) -> None:
        """A signal has arrived."""
        if self._handler is not None and self.decode is not None:
            self._handler(self.decode(payload))
            return
        self._items.append(payload)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def get(self) -> Any:
        """The next value; waits for one."""
        while not self._items:
            waiter: Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._items:  # it was woken, and takes nothing: let the next one
                    self._wake_one()
                raise
        assert self.decode is not None  # set by whoever asked the host for this mailbox
        return self.decode(self._items.popleft())

    def get_nowait(self) -> Any:
        """The next value; raises IndexError without one."""
        assert self.decode is not None
        return self.decode(self._items.popleft())

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a value."""
        return not self._items and any(not waiter.done() for waiter in self._waiters)

    @property
    def items(self) -> Iterable[bytes]:
        """What nobody has received, in the order of arrival."""
        return self._items

    def handle(self, handler: Callable[[Any], None]) -> None:
        """Give every value to `handler` from now on, those that wait already first."""
        self._handler = handler
        while self._items:
            handler(self.get_nowait())


def unreceived(mailboxes: Mapping[str, Mailbox]) -> tuple[tuple[str, bytes], ...]:
    """What nobody has received, by the signal's name."""
    return tuple((name, payload) for name, mailbox in mailboxes.items() for payload in mailbox.items)
