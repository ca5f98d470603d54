"""Who of a worker's handlers may run now: all of them, or one suspect alone.

A suspect is an event that workers died of, perhaps. Were others handled beside it, it would
not be known which one killed the worker: so it runs when nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable


class Floor:
    """Counts what runs, over all subscriptions of a worker."""

    def __init__(self) -> None:
        self._running = 0
        self._is_alone = False
        self._guests: list[tuple[Callable[[], bool], Callable[[], None]]] = []

    def join(self, has_suspect: Callable[[], bool], pump: Callable[[], None]) -> None:
        """Another subscription. `has_suspect`: whether it would begin one; `pump` begins what may begin."""
        self._guests.append((has_suspect, pump))

    @property
    def is_tense(self) -> bool:
        """Whether a suspect runs, or is to come next: nothing else may begin."""
        return self._is_alone or any(has_suspect() for has_suspect, _ in self._guests)

    @property
    def is_empty(self) -> bool:
        return not self._running

    def enter(self, *, alone: bool = False) -> None:
        """An event begins."""
        self._running += 1
        self._is_alone = self._is_alone or alone

    def leave(self) -> None:
        """One has ended."""
        self._running -= 1
        if self._running:
            return
        was_alone, self._is_alone = self._is_alone, False
        if was_alone or self.is_tense:
            self.let_on()

    def let_on(self) -> None:
        """Have all begin what may begin now."""
        for _, pump in self._guests:
            pump()
