"""`EventTime`: how far the time of events is in the windows of a stream, as people who run it see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..blocks.event import moment
from ..core.event_time import LaneTime


@dataclass(frozen=True, slots=True)
class EventTime:
    """How far event time is in a subscription by `Stream.window`, as of its last commit."""

    watermark: datetime | None
    """Up to where windows have closed: in the lane that is least far, of those with open windows; if there
    are none, in the one that is furthest. None before the first event."""
    latest: datetime | None
    """When the latest event happened."""
    open_windows: int
    """How many windows have events that no result has told of. Of a join: how many events wait that have
    been in no pair."""
    late: int
    """How many events came too late for a window of theirs."""
    misdated: int
    """How many had a time that cannot be, or no key."""


def event_time(lanes: Sequence[tuple[LaneTime, int]]) -> EventTime:
    """Of lanes, each with the number of its open windows."""
    waiting = [time.watermark_ms for time, windows in lanes if windows and time.watermark_ms is not None]
    reached = [time.watermark_ms for time, _ in lanes if time.watermark_ms is not None]
    latest = [time.latest_ms for time, _ in lanes if time.latest_ms is not None]
    watermark_ms = min(waiting) if waiting else max(reached, default=None)
    return EventTime(
        watermark=None if watermark_ms is None else moment(watermark_ms),
        latest=moment(max(latest)) if latest else None,
        open_windows=sum(windows for _, windows in lanes),
        late=sum(time.late for time, _ in lanes),
        misdated=sum(time.misdated for time, _ in lanes),
    )
