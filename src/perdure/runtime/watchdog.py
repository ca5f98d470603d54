"""Says which line holds the engine's event loop, when one does for longer than a second.

All runs of an engine, its steps on the loop and often a web server share one
event loop: code that holds it stops them all. The watchdog is a thread that looks
a few times a second whether the loop has turned since. If it has not in four looks, it
finds out whose code the loop's thread is in, and logs one warning for each stall.

It counts looks and reads no clock: a machine that was suspended, or a process that
was stopped, is no stall. It cannot look while native code keeps Python's lock. It says
nothing when many share the blame, each with little: bringing back a thousand runs, say.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import NamedTuple

from .driver import Driver
from .lines import is_in_run, users_line

_log = logging.getLogger("perdure")

_LOOK_EVERY_S = 0.25
_LOOKS = 4
"""So many looks without a turn of the loop are a stall."""


_FOR_WORKFLOWS = "Move what takes long into a function with @step and await it."
_FOR_STEPS = (
    "Write the step with `def` and it runs on a thread; or use asyncio.to_thread; or, if it keeps the "
    'processor busy, @step(on="process").'
)
_FOR_OTHERS = "It is no workflow and no step: let it await, or give it to asyncio.to_thread."


class _Culprit(NamedTuple):
    """Who holds the loop."""

    who: str
    line: str
    hint: str


class Watchdog:
    """Watches the loop of one engine."""

    def __init__(self, driver: Driver, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        """On the loop that is to be watched."""
        self._driver = driver
        self._look_every_s = look_every_s
        self._loop = asyncio.get_running_loop()
        self._loops_thread = threading.get_ident()
        self._turns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()

    def _turn(self) -> None:
        self._turns += 1
        self._timer = self._loop.call_later(self._look_every_s, self._turn)

    # -- on the watchdog's thread ----------------------------------------------------------------

    def _watch(self) -> None:
        seen, looks = -1, 0
        before: _Culprit | None = None
        told = False
        while not self._stopped.wait(self._look_every_s):
            if self._turns != seen:
                seen, looks, before, told = self._turns, 0, None, False
                continue
            looks += 1
            if told or looks < _LOOKS - 1:
                continue
            culprit = self._find_culprit()
            if before is not None and culprit is not None and culprit.who == before.who:
                told = True
                self._tell(culprit, looks)
            before = culprit

    def _tell(self, culprit: _Culprit, looks: int) -> None:
        at = f" at {culprit.line}" if culprit.line else ""
        _log.warning(
            "%s has held the engine's event loop for %.1f s%s. Nothing else on it gets on meanwhile. %s",
            culprit.who, looks * self._look_every_s, at, culprit.hint,
        )  # fmt: skip

    def _find_culprit(self) -> _Culprit | None:
        frame = sys._current_frames().get(self._loops_thread)  # pyright: ignore[reportPrivateUsage]
        line = users_line(frame)
        if is_in_run(frame):
            return self._run_that_pumps(line)
        task = asyncio.current_task(self._loop)
        for resident in list(self._driver.residents.values()):
            for key, running in list(resident.in_flight.items()):
                if running is not None and running is task:
                    return _Culprit(f"Step {key!r} of run {resident.row.id!r}", line, _FOR_STEPS)
        # Without a line of the user's it is the engine's own work, of which nobody is guilty.
        return _Culprit("Code of this program", line, _FOR_OTHERS) if line else None

    def _run_that_pumps(self, line: str) -> _Culprit | None:
        pumping = self._driver.turn.pumping
        for resident in list(self._driver.residents.values()):
            if resident.execution.loop is pumping:
                doing = " (which is replayed)" if resident.execution.replaying else ""
                return _Culprit(f"Workflow code of run {resident.row.id!r}{doing}", line, _FOR_WORKFLOWS)
        return None
