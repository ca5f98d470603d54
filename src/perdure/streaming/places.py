"""Which place in a stream a person means: its beginning or end, a position, a time or an event."""

from __future__ import annotations

from datetime import datetime

from ..blocks.event import milliseconds
from ..core.positions import place_at, position_text
from ..doors import Door
from ..errors import PerdureError, PositionGone, StreamError


async def place_before(
    door: Door, stream: str, to: str | datetime, *, event: str | None = None, source: str = ""
) -> int:
    """The place that stands before the event that is meant; see `Subscription.seek`.

    Raises PositionGone for a place whose events were let go, StreamError for one that is not there.
    """
    if (event is None) is (to == ""):
        raise PerdureError("It needs one of them: a place, or an event's id.")
    if event is not None:
        found = await door.read(lambda store: store.streams.find(stream, source=source, id=event))
        if found is None:
            raise StreamError(
                f"Stream {stream!r} keeps no event that was given id {event!r} by source {source!r}.",
                hint="Ids that were drawn cannot be looked for: name a position, or a time.",
            )
        return found - 1
    at_ms = milliseconds(to) if isinstance(to, datetime) else 0
    span = await door.read(lambda store: store.streams.span(stream, since_ms=at_ms))
    if to == "earliest":
        return span.earliest
    if to == "latest":
        return span.last
    place = _named_place(to) - 1 if isinstance(to, str) else span.since
    if place < span.gone or (isinstance(to, datetime) and span.gone and place == span.earliest):
        raise gone_at(stream, place, span.earliest)
    if place > span.last:
        raise StreamError(
            f"Stream {stream!r} has no position {to} yet: its last is {position_text(span.last)}.",
            hint="Use 'latest'.",
        )
    return place


def gone_at(stream: str, place: int, gone: int) -> PositionGone:
    """The error for a place whose events were let go."""
    position, first = position_text(place + 1), position_text(gone + 1)
    return PositionGone(
        f"Stream {stream!r} has let go of events there: the first that it keeps is at {first}.",
        position=position,
        first=first,
        hint="Use 'earliest', to go on with that.",
    )


def _named_place(to: str) -> int:
    try:
        return place_at(to)
    except StreamError as error:
        raise StreamError(
            f"{to!r} is no place in a stream.",
            hint="It is 'earliest', 'latest', a datetime, or a position of 13 letters and digits.",
        ) from error
