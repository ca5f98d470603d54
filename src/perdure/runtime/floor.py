"""Who of a worker's handlers may run now: all of them, or one suspect alone.

A suspect is an event that workers died of, perhaps. Were others handled beside it, it would
not be known which one killed the worker: so it runs when nothing else does. But one that hangs
holds up the others no longer than a lease lasts: then they go on beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .clock import Armed, Clock
from .lease import LEASE_MS

_log = logging.getLogger("perdure")


class Floor:
    """Knows what runs, over all subscriptions of a worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: set[tuple[object, int]] = set()
        """By guest and position, without suspects that have been alone for long enough."""
        self._alone: tuple[object, int] | None = None
        self._armed: Armed | None = None
        self._guests: dict[object, tuple[Callable[[], bool], Callable[[], None]]] = {}

    def join(self, guest: object, has_suspect: Callable[[], bool], pump: Callable[[], None]) -> None:
        """Another subscription. `has_suspect`: whether it would begin one; `pump` begins what may begin."""
        self._guests[guest] = has_suspect, pump

    def part(self, guest: object) -> None:
        """A subscription goes, and whatever ran of it."""
        self._guests.pop(guest, None)
        for one, position in [who for who in self._running if who[0] is guest]:
            self.leave(one, position)

    @property
    def is_tense(self) -> bool:
        """Whether a suspect runs, or is to come next: nothing else may begin."""
        return self._alone is not None or any(has_suspect() for has_suspect, _ in self._guests.values())

    @property
    def is_empty(self) -> bool:
        return not self._running

    def is_alone(self, guest: object, position: int) -> bool:
        """Whether the others wait for this event."""
        return self._alone == (guest, position)

    def enter(self, guest: object, position: int, *, alone: str = "") -> None:
        """An event begins. `alone`: how a suspect is named, which the others wait for."""
        self._running.add((guest, position))
        if alone:
            self._alone = guest, position
            self._armed = self._clock.arm(self._clock.now_ms() + LEASE_MS, lambda: self._go_on(alone))

    def leave(self, guest: object, position: int) -> None:
        """One has ended."""
        self._running.discard((guest, position))
        if was_alone := self.is_alone(guest, position):
            self.end()
        if not self._running and (was_alone or self.is_tense):
            self.let_on()

    def _go_on(self, name: str) -> None:
        """A suspect has been alone for long, and killed nobody: it may hang."""
        if self._alone is not None:
            _log.warning(
                "Handled alone for %d s, since workers have died with it: %s. Others go on beside it now.",
                LEASE_MS // 1000, name,
            )  # fmt: skip
            self.leave(*self._alone)

    def let_on(self) -> None:
        """Have all begin what may begin now."""
        for _, pump in list(self._guests.values()):
            pump()

    def end(self) -> None:
        """Nobody is alone any more."""
        self._alone = None
        if self._armed is not None:
            self._armed.cancel()
