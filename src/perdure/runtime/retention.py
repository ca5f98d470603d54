"""Removing runs that ended long ago, in the background, a few at a time."""

from __future__ import annotations

import logging

from .clock import Armed, Clock
from .committer import Committer

_log = logging.getLogger("perdure")

KEPT_MS = 30 * 24 * 3_600_000
_FIRST_LOOK_MS = 60_000
_LOOK_EVERY_MS = 3_600_000
_GO_ON_MS = 1_000
_AT_ONCE = 200
"""So many go in one transaction: other commits wait some milliseconds for it, and not seconds."""


class Retention:
    """Removes runs 30 days after their end, with all that is theirs."""

    def __init__(self, clock: Clock, committer: Committer) -> None:
        self._clock = clock
        self._committer = committer
        self._armed: Armed | None = None

    def start(self) -> None:
        """Look from now on."""
        self._arm(_FIRST_LOOK_MS)

    def stop(self) -> None:
        """Look no more."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self, wait_ms: int) -> None:
        self._armed = self._clock.arm(self._clock.now_ms() + wait_ms, self._look, background=True)

    def _look(self) -> None:
        before_ms = self._clock.now_ms() - KEPT_MS
        self._committer.ask_between(
            lambda store: store.remove_ended(before_ms=before_ms, limit=_AT_ONCE), self._removed
        )

    def _removed(self, count: int | Exception) -> None:
        if isinstance(count, Exception):
            _log.warning("Runs that ended long ago could not be removed: %s", count)
        if self._armed is not None:
            self._arm(_GO_ON_MS if count == _AT_ONCE else _LOOK_EVERY_MS)
