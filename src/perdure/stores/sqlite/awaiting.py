"""Runs that wait for events: for which, and who hears of one in the transaction that appends it.

Law: a run is given each event that fits once, in their order, those that came before it asked
as those that come later; the giving is part of the transaction of the step that asks, or of
the append. An append looks nothing up but the values of its own events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import apsw

from ...core.events import EventRow, NewEvent
from ...core.records import Message, MessageKind, Status
from ..base import RunEnd
from ..correlation import Found, Wanted, event_as_text, value_of
from .connection import Row
from .messages import send_messages
from .statements import SQL

_OF_STREAM = SQL["correlations_of"]
_CORRELATION = SQL["correlation_of"]
_INSERT_CORRELATION = SQL["insert_correlation"]
_ENTERED = SQL["enter_correlation"]
_ENTER = SQL["enter_event"]
_WAITING = SQL["waiting_for"]
_GIVE = SQL["give_awaited"]
_RUN = SQL["number_of_run"]
_AFTER = SQL["after_of_run"]
_AFTER_BEFORE = SQL["after_of_generations"]
_INSERT = SQL["insert_awaiting"]
_NEXT = SQL["next_correlated"]
_TAKE = SQL["take_awaited"]
_WANT = SQL["want_awaited"]
_WANT_NO_MORE = SQL["want_no_more"]
_REMOVE = SQL["remove_awaiting"]

ENTERED_AT_ONCE: Final = 2_000
"""So many events that were there before are entered in one transaction."""


class Correlation(NamedTuple):
    """By which fields runs wait for a type of event; all events of that type are entered."""

    number: int
    type: str
    fields: tuple[str, ...]


def correlations_of(connection: apsw.Connection, stream: int) -> list[Correlation]:
    """By what runs wait for events of a stream."""
    rows: Any = connection.execute(_OF_STREAM, (stream,)).fetchall()
    return [Correlation(number, kind, tuple(json.loads(fields))) for number, kind, fields in rows]


def tell_waiting(
    connection: apsw.Connection,
    correlations: Sequence[Correlation],
    events: Sequence[tuple[int, NewEvent]],
    *,
    base: int,
) -> None:
    """Enter events that were just appended, by their `pos`; send them to the runs that wait for them."""
    for pos, event in events:
        for correlation in correlations:
            if correlation.type != event.type:
                continue
            value = value_of(event.payload, correlation.fields)
            connection.execute(_ENTER, (pos, correlation.number, value))
            waiting: Any = connection.execute(_WAITING, (correlation.number, value)).fetchall()
            if waiting:
                told = event_as_text(EventRow(pos - base, *event[:9])).encode()
                messages = [
                    Message(0, run, MessageKind.SIGNAL, signal, told, "", event.at_ms)
                    for run, signal in waiting
                ]
                send_messages(connection, messages, lease=0)
                given = [(run, correlation.number, value, pos - base) for run, _ in waiting]
                connection.executemany(_GIVE, given)


class Asked(Protocol):
    """The stream that a run asks for an event of, in the transaction that asks."""

    stream: int
    base: int

    def events(self, *, after: int, limit: int) -> list[EventRow]:
        """Those above a place, in order."""
        ...

    def event_at(self, pos: int) -> EventRow | None:
        """The event; None if it is not there any more, or damaged."""
        ...


def ask_for(connection: apsw.Connection, wanted: Wanted, run_id: str, asked: Asked) -> Found:
    """Give a run the first event that fits and that it has not been given; or have it sent when it comes."""
    number = _correlate(connection, wanted, asked)
    if number is None:
        return Found(is_partial=True)
    found: Any = connection.execute(_RUN, (run_id,)).fetchone()
    run, generation = found
    place = (run, number, wanted.value)
    after: Any = connection.execute(_AFTER, place).get
    if after is None:
        before = (run_id, generation, number, wanted.value)
        found = connection.execute(_AFTER_BEFORE, before).get
        after = found or 0
        connection.execute(_INSERT, (*place, wanted.signal, after))
    while True:
        pos: Any = connection.execute(_NEXT, (number, wanted.value, asked.base + after)).get
        if pos is None:
            connection.execute(_WANT, place)
            return Found()
        after = pos - asked.base
        connection.execute(_TAKE, (*place, after))
        event = asked.event_at(pos)
        if event is not None:
            return Found(event_as_text(event))


def _correlate(connection: apsw.Connection, wanted: Wanted, asked: Asked) -> int | None:
    """The number of the correlation; None while events that were there before are still to be entered."""
    found: Any = connection.execute(_CORRELATION, (asked.stream, wanted.type, wanted.fields)).fetchone()
    if found is None:
        made = connection.execute(_INSERT_CORRELATION, (asked.stream, wanted.type, wanted.fields)).get
        found = (made, 0)
    number, entered = found
    if entered is None:
        return number
    events = asked.events(after=entered, limit=ENTERED_AT_ONCE)
    fields = tuple(json.loads(wanted.fields))
    rows: list[Row] = [
        (asked.base + event.position, number, value_of(event.payload, fields))
        for event in events
        if event.type == wanted.type and not event.damage
    ]
    connection.executemany(_ENTER, rows)
    is_whole = len(events) < ENTERED_AT_ONCE
    connection.execute(_ENTERED, (number, None if is_whole else events[-1].position))
    return number if is_whole else None


def leave(connection: apsw.Connection, ends: Sequence[RunEnd]) -> None:
    """Runs that have ended wait for nothing. What one that continues as new was given, the next must know."""
    gone = [(end.run,) for end in ends if end.status > Status.PARKED and end.status != Status.CONTINUED]
    if gone:
        connection.executemany(_REMOVE, gone)
    continued = [(end.run,) for end in ends if end.status == Status.CONTINUED]
    if continued:
        connection.executemany(_WANT_NO_MORE, continued)
