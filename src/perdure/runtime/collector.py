"""How often Python's garbage collector looks while a worker runs.

A run in memory is some thirty small objects that live for long, and a step a
dozen that live until its commit. With Python's own setting the collector looks
through them after every 700 new ones, finds nothing (they go when they are done,
with no collector), and takes a third of the worker's time for it; with tens of
thousands of runs a look at all of them stops the event loop for a third of a
second. So while an engine is open the collector waits for as many objects as
10,000 runs have, which is what stays in memory: it looks when a worker grows
beyond that, for less than 0.1 s, and hardly ever in between. It stays on, and a
program that has set its own thresholds keeps them.
"""

from __future__ import annotations

import gc

_PYTHONS_OWN = 2_000
"""The largest first threshold that a Python of ours starts with (700; 2,000 from 3.13 on)."""
_THRESHOLDS = (500_000, 2, 50)


class Collector:
    """The process's collector, shared by all workers in it."""

    def __init__(self) -> None:
        self._workers = 0
        self._before = gc.get_threshold()

    def relax(self) -> None:
        """A worker starts."""
        self._workers += 1
        if self._workers == 1 and gc.get_threshold()[0] <= _PYTHONS_OWN:
            self._before = gc.get_threshold()
            gc.set_threshold(*_THRESHOLDS)

    def restore(self) -> None:
        """A worker has stopped; after the last one the collector is as it was."""
        self._workers -= 1
        if self._workers == 0 and gc.get_threshold() == _THRESHOLDS:
            gc.set_threshold(*self._before)


collector = Collector()
