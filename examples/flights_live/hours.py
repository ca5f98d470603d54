"""What is made of the feed: the delays of each hour at each airport, and one alert for each storm."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perdure import Engine, Event, Handler, Stream, Window, step, workflow

from ..flights.domain import STORM_DELAY_MIN, STORM_FLIGHTS, STORM_SHARE


@dataclass(frozen=True, slots=True)
class Departed:
    """A flight that has left, or was cancelled."""

    airport: str
    flight: str
    late_min: int
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Delays:
    """An hour at an airport."""

    flights: int = 0
    cancelled: int = 0
    minutes: int = 0
    hit: int = 0
    """Those that were cancelled, or left very late."""


def add(delays: Delays, departed: Departed) -> Delays:
    """One flight more."""
    hit = departed.cancelled or departed.late_min >= STORM_DELAY_MIN
    return Delays(
        delays.flights + 1,
        delays.cancelled + departed.cancelled,
        delays.minutes + max(departed.late_min, 0),
        delays.hit + hit,
    )


departures = Stream("departures", Departed, key=lambda departed: departed.airport)


@departures.window(
    Departed,
    tumbling=timedelta(hours=1),
    initial=Delays(),
    out_of_order=timedelta(minutes=30),
    late="update",
    lateness=timedelta(hours=12),
)
def hourly_delays(delays: Delays, event: Event[Departed]) -> Delays:
    return add(delays, event.data)


def storm_of(window: Window[Delays]) -> tuple[str, str] | None:
    """The airport and the day, if this was a stormy hour."""
    delays = window.value
    is_storm = delays.flights >= STORM_FLIGHTS and delays.hit / delays.flights >= STORM_SHARE
    return (window.key, f"{window.start:%Y-%m-%d}") if is_storm else None


def storm_run(airport: str, day: str) -> str:
    return f"storm-{airport}-{day}"


@step
def send_alert(airport: str, day: str) -> str:
    return f"storm at {airport} on {day}"


@workflow
async def alert(airport: str, day: str) -> str:
    return await send_alert(airport, day)


def alert_by(engine: Engine) -> Handler[Any]:
    """Starts one run for each storm, however many of its hours are told, and however often."""

    @hourly_delays.results.on(name="alert")
    async def alert_of_storms(event: Event[Window[Delays]]) -> None:
        storm = storm_of(event.data)
        if storm is not None:
            await engine.start(alert(*storm), id=storm_run(*storm))

    return alert_of_storms
