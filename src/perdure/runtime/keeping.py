"""Letting go of events that streams need not keep any more, in the background, some at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from ..core.standing import KeepRule
from .clock import Armed, Clock
from .committer import Committer

_log = logging.getLogger("perdure")

_LOOK_EVERY_MS = 60_000
_GO_ON_MS = 25
_AT_ONCE = 1_000
"""So many go in one transaction: other commits wait some milliseconds for it, and then have a turn."""


class Keeping:
    """Sees to it that each stream keeps what its rule says."""

    def __init__(self, clock: Clock, committer: Committer, rules: Callable[[], Sequence[KeepRule]]) -> None:
        """`rules` gives those of the streams that this process knows by now."""
        self._clock = clock
        self._committer = committer
        self._rules = rules
        self._armed: Armed | None = None
        self._turns: deque[KeepRule] = deque()
        """Rules that are still to be looked at; one that has more to let go comes again after the others."""

    def start(self) -> None:
        """Look from now on."""
        self._arm(_LOOK_EVERY_MS)

    def stop(self) -> None:
        """Look no more."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self, wait_ms: int) -> None:
        self._armed = self._clock.arm(self._clock.now_ms() + wait_ms, self._look, background=True)

    def _look(self) -> None:
        self._turns = self._turns or deque(self._rules())
        if self._turns:
            rule, now_ms = self._turns.popleft(), self._clock.now_ms()
            self._committer.ask_between(
                lambda store: store.streams.let_go(rule, now_ms=now_ms, limit=_AT_ONCE),
                partial(self._looked, rule),
            )
        else:
            self._arm(_LOOK_EVERY_MS)

    def _looked(self, rule: KeepRule, count: int | Exception) -> None:
        if isinstance(count, Exception):
            _log.warning("Stream %r could not let go of old events: %s", rule.stream, count)
        elif count == _AT_ONCE:
            self._turns.append(rule)
        if self._armed is not None:
            self._arm(_GO_ON_MS if self._turns else _LOOK_EVERY_MS)
