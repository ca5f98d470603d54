"""How far behind a handler is, and whether it gets on: lag in events and in seconds, rates, and a status.

The status of a lane comes from its last ten marks, by the rules of Burrow, LinkedIn's monitor of Kafka's
consumers: there is no threshold to tune. A mark is what a commit writes of a lane; two that are kept are a
second apart at least.

What is parked is counted apart: it waits for a person, and not for the handler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from ..core.events import LanePast, Standing, SubscriptionRow, SubscriptionStanding
from ..core.positions import gone_below, position_text
from ..core.standing import LaneStand, SubscriptionStand
from ..doors import Door

_WINDOW = 10
_RATES_OVER_MS = 60_000
_SILENCE_MIN_MS = 30_000
_SILENCE_MAX_MS = 300_000


class LagStatus(Enum):
    """Whether a handler gets on; of a subscription, that of its worst lane."""

    OK = "ok"
    """It has done all, or had at some time of late, or comes nearer to the end of the stream."""
    WARN = "warn"
    """It gets on, and the end of the stream has not come nearer for ten marks: it is too slow."""
    REWIND = "rewind"
    """It was sent back, and has not come again to where it was."""
    STALL = "stall"
    """For ten marks it has done events, but not its first one: that is tried again and again, or hangs."""
    STOP = "stop"
    """It has something to do, and does nothing: it has no worker, or its handlers hang.

    That is, nothing was marked for longer than the last ten marks took, half a minute at least and
    five minutes at most.
    """


_RANKS = {status: rank for rank, status in enumerate(LagStatus)}


@dataclass(frozen=True, slots=True)
class LaneLag:
    """How far behind one lane of a subscription is."""

    lane: int
    """From 0. Events are dealt out to lanes by their keys."""
    status: LagStatus
    events: int
    """How many are not done."""
    seconds: float
    """Since the first one that is not done was appended; 0 when all are."""
    worker: str
    """Whose it is; empty: no worker serves it."""
    position: str
    """All that is at or below is done, or parked; of a join, in its first stream."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind a handler is in its stream."""

    stream: str
    handler: str
    status: LagStatus
    events: int
    """How many are not done, without those that are parked."""
    is_exact: bool
    """Whether they were counted: of more than 10,000 the rest is estimated."""
    seconds: float
    """Since the oldest that is not done was appended; 0 when all are done."""
    event_seconds: float
    """Since that one happened, by its own `time`."""
    in_per_second: float
    """Events that were appended, over the last minute."""
    out_per_second: float
    """Events that were done or parked, over the last minute, or the last ten marks."""
    drain_seconds: float | None
    """When it will have done all, if both rates stay; None: never."""
    parked: int
    parked_seconds: float
    """Since the oldest of them was parked."""
    problem: str
    """Why it is not served though it has workers; empty when nothing is wrong."""
    lanes: tuple[LaneLag, ...]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number for a metrics exporter."""

    name: str
    labels: Mapping[str, str]
    value: float


class Measured(ABC):
    """The part of a subscription that says how far it is."""

    _door: Callable[[], Door]

    @abstractmethod
    async def _row(self) -> SubscriptionRow:
        """Raises SubscriptionNotFound."""

    async def lag(self) -> Lag:
        """How far the handler is behind, and whether it gets on; also while no worker runs.

        Reads what has been committed, and writes nothing. Raises SubscriptionNotFound.
        """
        row = await self._row()
        found = await read_lag(self._door(), row)
        return found or await self.lag()  # removed in between: said by `_row`


async def read_lag(door: Door, row: SubscriptionRow) -> Lag | None:
    """The lag of a subscription; None if it is not there any more."""
    now_ms = door.clock.now_ms()
    since_ms = now_ms - _RATES_OVER_MS
    stand, standings = await door.read(
        lambda store: (
            store.streams.stand(row.number, since_ms=since_ms), store.streams.dead.standings()
        )
    )  # fmt: skip
    if stand is None:
        return None
    lag = lag_of(stand, now_ms=now_ms)
    stands = next((one for one in standings if one.subscription == row.number), None)
    return lag if lag.problem or stands is None else replace(lag, problem=_why_idle(lag, stands))


def _why_idle(lag: Lag, stands: SubscriptionStanding) -> str:
    """Why a handler begins nothing, or hardly anything, though a worker has it."""
    name = f"{lag.stream}/{lag.handler}"
    if stands.status == Standing.STOPPED:
        return f"{name} is stopped: {stands.reason}. To have it go on: perdure dead resume {name}"
    if stands.status == Standing.SUSPENDED:
        return f"{name} is suspended, and goes on by itself when an event succeeds: {stands.reason}"
    return ""


def lag_of(stand: SubscriptionStand, *, now_ms: int) -> Lag:
    """What a subscription's stand comes to."""
    is_join = bool(stand.row.other)
    lanes = tuple(_lag_of_lane(lane, now_ms, is_join=is_join) for lane in stand.lanes)
    events = sum(lane.events for lane in lanes)
    behind = [lane for lane in stand.lanes if lane.oldest_at_ms is not None]
    oldest = min(behind, key=lambda lane: (lane.cursor, lane.lane), default=None)
    rate_in = stand.appended / (_RATES_OVER_MS / 1000)
    rate_out = sum(_rate_out(lane.history, now_ms) for lane in stand.lanes)
    name = f"{stand.row.stream}/{stand.row.name}"
    return Lag(
        stream=stand.row.stream,
        handler=stand.row.name,
        status=max((lane.status for lane in lanes), key=_RANKS.__getitem__),
        events=events,
        is_exact=stand.is_exact,
        seconds=max((lane.seconds for lane in lanes), default=0.0),
        event_seconds=_seconds_since(None if oldest is None else oldest.oldest_time_ms, now_ms),
        in_per_second=rate_in,
        out_per_second=rate_out,
        drain_seconds=0.0 if not events else events / (rate_out - rate_in) if rate_out > rate_in else None,
        parked=stand.parked,
        parked_seconds=_seconds_since(stand.parked_at_ms, now_ms),
        problem=_problem(name, stand, min(lane.cursor for lane in stand.lanes)),
        lanes=lanes,
    )


def _problem(name: str, stand: SubscriptionStand, cursor: int) -> str:
    if cursor < stand.gone:
        return gone_below(name, cursor, stand.gone).what
    if 0 < stand.other_cursor < stand.other_gone:
        return gone_below(name, stand.other_cursor, stand.other_gone, stream=stand.row.other).what
    return ""


def gauges(lags: Iterable[Lag]) -> list[Gauge]:
    """Numbers for a metrics exporter: `perdure_subscription_…`, labelled by stream and handler."""
    return [gauge for lag in lags for gauge in _gauges_of(lag)]


def _gauges_of(lag: Lag) -> list[Gauge]:
    labels = {"stream": lag.stream, "handler": lag.handler}
    values = {
        "lag_events": lag.events,
        "lag_seconds": lag.seconds,
        "lag_event_seconds": lag.event_seconds,
        "in_per_second": lag.in_per_second,
        "out_per_second": lag.out_per_second,
        "drain_seconds": float("inf") if lag.drain_seconds is None else lag.drain_seconds,
        "parked_events": lag.parked,
        "parked_seconds": lag.parked_seconds,
    }
    found = [Gauge(f"perdure_subscription_{name}", labels, float(value)) for name, value in values.items()]
    for status in LagStatus:
        is_it = float(status is lag.status)
        found.append(Gauge("perdure_subscription_status", {**labels, "status": status.value}, is_it))
    for lane in lag.lanes:
        where = {**labels, "lane": str(lane.lane)}
        found.append(Gauge("perdure_lane_lag_events", where, float(lane.events)))
        found.append(Gauge("perdure_lane_lag_seconds", where, lane.seconds))
    return found


def _lag_of_lane(lane: LaneStand, now_ms: int, *, is_join: bool) -> LaneLag:
    return LaneLag(
        lane=lane.lane,
        status=status_of(lane, now_ms=now_ms, is_join=is_join),
        events=lane.behind,
        seconds=_seconds_since(lane.oldest_at_ms, now_ms),
        worker=lane.worker,
        position=position_text(lane.cursor),
    )


def status_of(lane: LaneStand, *, now_ms: int, is_join: bool = False) -> LagStatus:
    """Burrow's rules, in their order. A join runs no code that could stall; it may be at its second stream.

    Burrow takes a group for stopped when it has committed nothing for longer than its window is; here
    the time in which there was nothing to do does not count, nor does more than five minutes.
    """
    past = lane.history
    if not lane.behind or lane.oldest_at_ms is None:
        return LagStatus.OK
    marked_at_ms = past[-1].at_ms if past else 0
    span_ms = marked_at_ms - past[0].at_ms if past else 0
    patience_ms = min(_SILENCE_MAX_MS, max(_SILENCE_MIN_MS, span_ms))
    if now_ms - max(marked_at_ms, lane.oldest_at_ms) > patience_ms:
        return LagStatus.STOP
    cursors = [one.cursor for one in past]
    if any(after < before and lane.cursor < before for before, after in pairwise(cursors)):
        return LagStatus.REWIND
    if len(past) < _WINDOW or any(not one.behind for one in past):
        return LagStatus.OK
    if len({*cursors, lane.cursor}) == 1 and not is_join:
        return LagStatus.STALL
    if all(before.behind <= after.behind for before, after in pairwise(past)):
        return LagStatus.WARN
    return LagStatus.OK


def _rate_out(past: Sequence[LanePast], now_ms: int) -> float:
    """How many events a lane has done a second, of late."""
    since_ms = now_ms - _RATES_OVER_MS
    if not past or past[-1].at_ms < since_ms:
        return 0.0
    before = [one for one in past if one.at_ms < since_ms]
    if len(past) < _WINDOW and not before:
        return past[-1].handled / (_RATES_OVER_MS / 1000)  # all that it ever did
    base, last = before[-1] if before else past[0], past[-1]
    began_ms = max(since_ms, base.at_ms)
    # The time since the last mark counts only if the next one is overdue.
    is_late = now_ms - last.at_ms > (last.at_ms - began_ms) / _WINDOW + 1_000
    elapsed_ms = max(1_000, (now_ms if is_late or before else last.at_ms) - began_ms)
    return (last.handled - base.handled) / (elapsed_ms / 1000)


def _seconds_since(at_ms: int | None, now_ms: int) -> float:
    return 0.0 if at_ms is None else max(0, now_ms - at_ms) / 1000
