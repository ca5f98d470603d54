"""The events of a subscription that are in memory, and where each of them stands.

One of a key is begun: it is ready, or runs, or rests until its next attempt. The others of the key
wait behind it. So whoever is begun and does not run can be forgotten with all that wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..core.events import EventRow
from .behind import Line
from .handlers import Order


class Memory:
    """Counts them, too: memory is bounded."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.count = 0
        """How many there are, with those that are done, and of which that is not on disk yet."""
        self.queues: dict[str, deque[EventRow]] = {}
        """By key, what waits for the event of that key that is in hand."""
        self.ready: deque[EventRow] = deque()
        self.suspects: deque[EventRow] = deque()
        """The same, of events that workers may have died of: each is handled alone."""
        self.resting: dict[int, EventRow] = {}
        """By position, what waits for its next attempt."""
        self.attempts: dict[int, int] = {}
        """By position, the number of the next attempt, where it is not the first."""
        self.begun: set[int] = set()
        """Positions of events that were begun: the next ones of their keys wait for them."""
        self.from_disk: dict[int, Line] = {}
        """Positions of events that are not read along, but from their line on disk."""

    def key_of(self, event: EventRow) -> str:
        """Events for which this is the same are handled one after another."""
        if self._order == "stream":
            return ""
        return event.key if event.key and self._order == "key" else f"\0{event.position}"

    def forget(self, is_leaving: Callable[[EventRow], bool]) -> None:
        """What waits, and does not run, of lanes that leave: it is for the worker that comes next."""
        for event in [*self.ready, *self.suspects, *self.resting.values()]:
            if is_leaving(event):
                self._forget_begun(event)
        self.ready = deque(event for event in self.ready if event.position in self.begun)
        self.suspects = deque(event for event in self.suspects if event.position in self.begun)
        for queue in self.queues.values():
            for event in [event for event in queue if is_leaving(event)]:
                queue.remove(event)
                self._forget(event)

    def _forget_begun(self, event: EventRow) -> None:
        self._forget(event)
        self.begun.discard(event.position)
        self.resting.pop(event.position, None)
        self.attempts.pop(event.position, None)
        for waiting in self.queues.pop(self.key_of(event)):
            self._forget(waiting)

    def _forget(self, event: EventRow) -> None:
        self.count -= 1
        self.from_disk.pop(event.position, None)
