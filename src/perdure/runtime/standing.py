"""How a subscription stands, as a worker sees it: it goes on, is suspended, or is stopped.

The subscription's row says it to all workers, and to people. A worker whose attempts fail for
the most part suspends it: then each worker tries one event every half minute, and the first
one that succeeds lets all go on. What is tried meanwhile does not count against the events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.events import Standing, SubscriptionRow, SubscriptionStanding
from .breaker import Breaker

if TYPE_CHECKING:
    from .clock import Armed
    from .driver import Driver

_log = logging.getLogger("perdure")

_PROBE_EVERY_MS = 30_000


class Stand:
    """Says how many events may be handled at once, and what an attempt's end means for that."""

    def __init__(self, driver: Driver, row: SubscriptionRow, changed: Callable[[], None]) -> None:
        """`changed` is called when it stands otherwise, or a probe is due."""
        self._driver = driver
        self._row = row
        self._changed = changed
        self._breaker = Breaker()
        self._status = Standing.ACTIVE
        self._writes = 0
        """Changes of ours that are not on disk yet: what is read meanwhile is older."""
        self._is_probe_due = False
        self._probe = 0
        """The position of the event that is tried while it is suspended."""
        self._armed: Armed | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._writes

    def most(self, concurrency: int) -> int:
        """How many events may be in hand."""
        if self._status == Standing.ACTIVE:
            return concurrency
        return int(self._status == Standing.SUSPENDED and self._is_probe_due and not self._probe)

    def begins(self, position: int) -> None:
        """An attempt begins."""
        if self._status == Standing.SUSPENDED:
            self._probe, self._is_probe_due = position, False

    def ended(self, position: int, *, failed: bool, why: str = "") -> bool:
        """An attempt has ended; `failed`: in a way that may pass. Whether it counts against the event."""
        was_probe = position == self._probe
        if was_probe:
            self._probe = 0
        if self._status == Standing.SUSPENDED:
            if was_probe and failed:
                self._probe_at(self._driver.clock.now_ms() + _PROBE_EVERY_MS)
            elif was_probe:
                self._change((Standing.SUSPENDED,), Standing.ACTIVE, "")
            return not failed
        self._breaker.note(position, failed=failed)
        if self._status == Standing.ACTIVE and failed and self._breaker.is_tripped:
            self._change(
                (Standing.ACTIVE,), Standing.SUSPENDED, f"{self._breaker.text()}, the last with {why}"
            )
            return False
        return True

    def undone(self, position: int) -> None:
        """An attempt came to nothing: the event is another worker's. If it was the probe, another may be."""
        if position == self._probe:
            self._probe, self._is_probe_due = 0, True

    def stop(self, reason: str) -> None:
        """Handle nothing more, on any worker, until a person resumes it."""
        if self._status != Standing.STOPPED:
            self._change((Standing.ACTIVE, Standing.SUSPENDED), Standing.STOPPED, reason)

    def learn(self, stands: SubscriptionStanding) -> None:
        """The row says so."""
        if not self._writes and stands.status != self._status:
            self._become(Standing(stands.status), stands.at_ms)

    def _change(self, before: Sequence[Standing], after: Standing, reason: str) -> None:
        driver, row = self._driver, self._row
        now_ms = driver.clock.now_ms()
        name = f"{row.name}() of stream {row.stream!r}"
        if after == Standing.SUSPENDED:
            _log.warning(
                "Handler %s is suspended: %s. Nothing is parked; one event is tried every %d s.",
                name, reason, _PROBE_EVERY_MS // 1000,
            )  # fmt: skip
        elif after == Standing.STOPPED:
            _log.error("Handler %s is stopped until somebody resumes it: %s", name, reason)
        else:
            _log.warning("Handler %s goes on.", name)
        self._writes += 1
        driver.committer.ask_between(
            lambda store: store.streams.dead.change_standing(
                row.number, before, after, reason=reason, at_ms=now_ms
            ),
            self._written,
        )
        self._become(after, now_ms)

    def _written(self, found: bool | Exception) -> None:
        self._writes -= 1
        if isinstance(found, Exception):
            self._driver.complain(found, f"writing how subscription {self._row.name!r} stands")

    def _become(self, status: Standing, at_ms: int) -> None:
        self._status = status
        self._breaker.reset()
        self._is_probe_due, self._probe = False, 0
        if self._armed is not None:
            self._armed.cancel()
        if status == Standing.SUSPENDED:
            self._probe_at(at_ms + _PROBE_EVERY_MS)
        self._changed()

    def _probe_at(self, at_ms: int) -> None:
        self._armed = self._driver.clock.arm(at_ms, self._let_probe)

    def _let_probe(self) -> None:
        if self._status == Standing.SUSPENDED:
            self._is_probe_due = True
            self._changed()

    def end(self) -> None:
        """Probe no more."""
        if self._armed is not None:
            self._armed.cancel()
