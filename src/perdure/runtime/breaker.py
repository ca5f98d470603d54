"""A circuit breaker: tells an outage from a few bad events. Pure.

It trips when more than half of the last 50 attempts, of 20 at least, failed in a way that
may pass. A single event that fails again and again does not make an outage: there must be
three that fail.
"""

from __future__ import annotations

from collections import deque

_LAST = 50
_ATTEMPTS_MIN = 20
_EVENTS_MIN = 3


class Breaker:
    """What became of the last attempts of a subscription."""

    def __init__(self) -> None:
        self._ends: deque[int] = deque(maxlen=_LAST)
        """For each attempt the position of the event if it failed, else 0."""

    def note(self, position: int, *, failed: bool) -> None:
        """An attempt has ended."""
        self._ends.append(position if failed else 0)

    @property
    def is_tripped(self) -> bool:
        """Whether this looks like an outage."""
        if len(self._ends) < _ATTEMPTS_MIN:
            return False
        failed = [position for position in self._ends if position]
        return 2 * len(failed) > len(self._ends) and len(set(failed)) >= _EVENTS_MIN

    def text(self) -> str:
        """What was seen: `34 of the last 50 attempts failed`."""
        failed = sum(1 for position in self._ends if position)
        return f"{failed} of the last {len(self._ends)} attempts failed"

    def reset(self) -> None:
        """Begin anew."""
        self._ends.clear()
