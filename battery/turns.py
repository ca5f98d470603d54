"""Threads that take turns: one runs at a time, and chance says which goes on.

A thread gives its turn away wherever it calls `pass_on`. With the same seed the
threads take the same turns, so an interleaving that breaks something comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from random import Random

_PATIENCE_S = 20.0


class Abandoned(Exception):
    """Another thread has failed: this one need not go on."""


class Turns:
    """Runs functions side by side, a turn at a time."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._going: dict[int, threading.Semaphore] = {}
        """The threads that are not at their end, by number, and what each waits at."""
        self._mine = threading.local()
        self._error: BaseException | None = None
        self.taken = 0
        """How many turns were taken."""

    def run(self, functions: Sequence[Callable[[], object]]) -> None:
        """Run all to their ends. Raises what the first one raised that did."""
        self._going = {number: threading.Semaphore(0) for number in range(len(functions))}
        threads = [
            threading.Thread(target=self._run_one, args=(number, function))
            for number, function in enumerate(functions)
        ]
        for thread in threads:
            thread.start()
        self._going[0].release()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def pass_on(self) -> None:
        """Let another go first, or go on. Does nothing in a thread that takes no turns."""
        me = getattr(self._mine, "number", None)
        if me is None:
            return
        self.taken += 1
        chosen = self._chance.choice(list(self._going))
        if chosen != me:
            self._going[chosen].release()
            self._wait(me)

    def _run_one(self, number: int, function: Callable[[], object]) -> None:
        try:
            self._wait(number)
            self._mine.number = number
            function()
        except Abandoned:
            pass
        except BaseException as error:
            self._error = self._error or error
        self._mine.number = None
        del self._going[number]
        if self._going:
            self._going[self._chance.choice(list(self._going))].release()

    def _wait(self, me: int) -> None:
        if not self._going[me].acquire(timeout=_PATIENCE_S):
            raise AssertionError(f"no turn came for {_PATIENCE_S:g} s: a thread holds what another waits for")
        if self._error is not None:
            self._mine.number = None
            raise Abandoned
