"""Event time in a lane: the watermark, and which times cannot be. Pure.

The watermark says up to where event time is complete. It follows the latest event at
a distance; when no later one comes for long, it goes on with the clock. It never goes back.
Silence is measured from one append to the next, so that who reads the lane, and when, changes nothing.
Who finds out before the next append takes it to what is due, and no further.

Times are Unix milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LATE = "late"
"""Its window is closed."""
FUTURE = "future"
"""It is further ahead of its append than clocks may be."""
UNSET = "unset"
"""It is of 1970: a clock that was never set, or seconds that were read as milliseconds."""
MISSING = "missing"
"""It has no time."""
KEYLESS = "keyless"
"""It has no key, and windows are kept by key."""

_DAY_MS = 86_400_000
_UNSET_MS = (-_DAY_MS, 365 * _DAY_MS)


@dataclass(frozen=True, slots=True)
class TimeRules:
    """How long is waited for events."""

    out_of_order_ms: int
    """How much later than one that happened after it an event may come."""
    idle_after_ms: int | None
    """After so long without a later event the watermark goes on with the clock. None: never."""
    future_ms: int
    """How far ahead of its append an event may have happened."""


class LaneTime(NamedTuple):
    """How far event time is in a lane, as it is kept."""

    latest_ms: int | None = None
    """When the latest event happened. None: there was none."""
    latest_at_ms: int = 0
    """When that was appended."""
    watermark_ms: int | None = None
    late: int = 0
    """How many events were too late for a window of theirs."""
    misdated: int = 0
    """How many had no time that can be."""
    cursor: int = 0
    """Of the other stream of a join: up to which position its events have been taken."""


class EventClock:
    """How far event time is in a lane."""

    def __init__(self, rules: TimeRules, time: LaneTime) -> None:
        self._rules = rules
        self._latest_ms = time.latest_ms
        self._latest_at_ms = time.latest_at_ms
        self.watermark_ms = time.watermark_ms
        self.late = time.late
        self._misdated = time.misdated

    @property
    def time(self) -> LaneTime:
        """The same as it is kept."""
        return LaneTime(self._latest_ms, self._latest_at_ms, self.watermark_ms, self.late, self._misdated)

    def refuse(self, key: str, time_ms: int | None, at_ms: int) -> str:
        """Why an event has no place in time, which is counted; empty if it has one."""
        wrong = self._wrong(key, time_ms, at_ms)
        self._misdated += bool(wrong)
        return wrong

    def _wrong(self, key: str, time_ms: int | None, at_ms: int) -> str:
        if time_ms is None:
            return MISSING
        if _UNSET_MS[0] <= time_ms < _UNSET_MS[1]:
            return UNSET
        if time_ms > at_ms + self._rules.future_ms:
            return FUTURE
        return "" if key else KEYLESS

    def is_past(self, moment_ms: int) -> bool:
        """Whether the watermark is there, or further."""
        return self.watermark_ms is not None and moment_ms <= self.watermark_ms

    def follow(self, time_ms: int, at_ms: int) -> bool:
        """An event has come: whether the watermark has moved."""
        if self._latest_ms is not None and time_ms <= self._latest_ms:
            return False
        self._latest_ms, self._latest_at_ms = time_ms, at_ms
        return self._advance(time_ms - self._rules.out_of_order_ms)

    def pass_time(self, at_ms: int) -> bool:
        """Nothing else was appended until the next event, at that time: whether the watermark has moved."""
        reached_ms = self._silence_reaches(at_ms)
        return reached_ms is not None and self._advance(reached_ms)

    def pass_time_to(self, moment_ms: int, now_ms: int) -> bool:
        """Nothing was appended until now: whether silence has taken the watermark to that moment.

        It stays there, though it may be later: who looks, and when, is to change nothing but what is due.
        """
        if self.is_past(moment_ms):
            return True
        reached_ms = self._silence_reaches(now_ms)
        return reached_ms is not None and moment_ms <= reached_ms and self._advance(moment_ms)

    def _silence_reaches(self, now_ms: int) -> int | None:
        idle_ms = self._rules.idle_after_ms
        if idle_ms is None or self._latest_ms is None:
            return None
        silent_ms = now_ms - self._latest_at_ms
        return None if silent_ms < idle_ms else self._latest_ms + silent_ms - self._rules.out_of_order_ms

    def silence_until_ms(self, moment_ms: int) -> int | None:
        """When silence will have taken the watermark to a moment; None if it never will."""
        idle_ms = self._rules.idle_after_ms
        if idle_ms is None or self._latest_ms is None:
            return None
        until_ms = moment_ms + self._rules.out_of_order_ms - self._latest_ms
        return self._latest_at_ms + max(idle_ms, until_ms)

    def _advance(self, watermark_ms: int) -> bool:
        if self.is_past(watermark_ms):
            return False
        self.watermark_ms = watermark_ms
        return True
