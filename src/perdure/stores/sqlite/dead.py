"""Dead letters in the file: what is parked, what people do to it, and lanes whose workers died.

Law: see `stores.dead`. Each verb is one transaction; what a person did is written in the
same one as a note. Payloads of edits have a checksum, as the events have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import apsw
import msgspec

from ...core.events import (
    Author,
    DeadEvent,
    DeadFilter,
    DeadKind,
    DeadNote,
    Deed,
    DueEvents,
    EventRow,
    LaneWatch,
    Redriven,
    Standing,
    SubscriptionStanding,
    count_crash,
)
from ...errors import StoreCorrupt
from ..moves import refuse_closed
from .checksums import checksum
from .connection import Database, Row
from .marks import read_mark
from .places import PLACES, read_or_name
from .statements import SQL

_INSERT = SQL["insert_dead"]
_HALT = SQL["halt_key"]
_CLEAR = SQL["clear_dead"]
_EVENTS = SQL["dead_events"]
_COUNTS = SQL["dead_counts"]
_HELD = SQL["held_keys"]
_DUE = SQL["due_places"]
_HOLDING = SQL["holding"]
_WAITS_DUE = SQL["waits_due"]
_EVENT_AT = SQL["event_at"]
_STREAM_OF = SQL["stream_of_subscription"]
_REDRIVABLE = SQL["redrivable"]
_REDRIVE = SQL["redrive_dead"]
_STANDS = SQL["redrive_stands"]
_NOTE = SQL["insert_note"]
_NOTES = SQL["notes_of"]
_LAST_EDIT = SQL["last_edit"]
_DISCARDED = SQL["discarded"]
_BUMP = SQL["bump_edition"]
_STANDINGS = SQL["standings"]
_CHANGE_STANDING = SQL["change_standing"]
_WATCHED = SQL["lanes_with_watch"]
_SET_WATCH = SQL["set_watch"]
_MARK_WATCH = SQL["mark_watch"]

_ALL: Final = 1 << 62
_DRY: Final = -1


class DeadLetters:
    """See `DeadStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(self, subscription: int, wanted: DeadFilter, *, after: int = 0, limit: int) -> list[DeadEvent]:
        """See `DeadStore.events`."""
        with self._database.snapshot() as connection:
            return _parked(connection, subscription, wanted, after=after, limit=limit)

    def counts(self, subscription: int) -> dict[int, int]:
        """See `DeadStore.counts`."""
        rows: Any = self._database.query(_COUNTS, (subscription,))
        return dict(rows)

    def discarded(self, subscription: int) -> list[int]:
        """See `DeadStore.discarded`."""
        rows: Any = self._database.query(_DISCARDED, (subscription,))
        return [place for (place,) in rows]

    def event(self, subscription: int, place: int) -> EventRow | None:
        """See `DeadStore.event`."""
        with self._database.snapshot() as connection:
            return self._event(connection, subscription, place)

    def notes(self, subscription: int, place: int) -> list[DeadNote]:
        """See `DeadStore.notes`."""
        rows = self._database.query(_NOTES, (subscription, place))
        return [_read_note(row, url=self._database.url) for row in rows]

    def edit(self, subscription: int, place: int, payload: bytes, author: Author) -> bool:
        """See `DeadStore.edit`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            if not _parked(connection, subscription, DeadFilter((place,)), limit=1):
                return False
            _write_notes(connection, subscription, [place], Deed.EDITED, author, payload)
        return True

    def discard(self, subscription: int, wanted: DeadFilter, author: Author) -> list[int]:
        """See `DeadStore.discard`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            places = [dead.position for dead in _parked(connection, subscription, wanted, limit=_ALL)]
            if places:
                clear_dead(connection, [(subscription, place) for place in places])
                _write_notes(connection, subscription, places, Deed.DISCARDED, author)
                connection.execute(_BUMP, (subscription,))
        return places

    def begin_redrive(self, subscription: int) -> int:
        """See `DeadStore.begin_redrive`."""
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            number: Any = connection.execute(_BUMP, (subscription,)).get
        return number

    def redrive(
        self, subscription: int, redrive: int, wanted: DeadFilter, author: Author | None, *, limit: int
    ) -> Redriven:
        """See `DeadStore.redrive`."""
        chosen = (subscription, redrive if author else _DRY, limit, *_bindings(wanted))
        if author is None:
            rows: Any = self._database.query(_REDRIVABLE, chosen)
            return Redriven([place for (place,) in rows], 0, 0)
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            rows = connection.execute(_REDRIVABLE, chosen).fetchall()
            places: list[int] = [place for (place,) in rows]
            if places:
                connection.executemany(_REDRIVE, [(subscription, place, redrive) for place in places])
                _write_notes(connection, subscription, places, Deed.REDRIVEN, author)
                connection.execute(_BUMP, (subscription,))
            stands: Any = connection.execute(_STANDS, (subscription, redrive)).fetchone()
        return Redriven(places, *stands)

    def held(self, subscription: int) -> list[tuple[int, str, bool]]:
        """See `DeadStore.held`."""
        rows: Any = self._database.query(_HELD, (subscription,))
        return [(lane, key, bool(due)) for lane, key, due in rows]

    def due(self, subscription: int, lane: int, key: str, *, limit: int) -> DueEvents:
        """See `DeadStore.due`."""
        with self._database.snapshot() as connection:
            rows: Any = connection.execute(_DUE, (subscription, lane, key, limit)).fetchall()
            events = [self._as_delivered(connection, subscription, place) for (place,) in rows]
            is_left = connection.execute(_HOLDING, (subscription, lane, key)).get is not None
        return DueEvents(events, is_left)

    def standings(self) -> list[SubscriptionStanding]:
        """See `DeadStore.standings`."""
        return [SubscriptionStanding._make(row) for row in self._database.query(_STANDINGS)]

    def change_standing(
        self, subscription: int, before: Sequence[Standing], after: Standing, *, reason: str, at_ms: int
    ) -> bool:
        """See `DeadStore.change_standing`."""
        wanted = json.dumps([int(standing) for standing in before])
        with self._database.transaction() as connection:
            refuse_closed(read_mark(connection), self._database.url)
            changed = connection.execute(
                _CHANGE_STANDING, (subscription, int(after), at_ms, reason, wanted)
            ).get
        return changed is not None

    def _event(self, connection: apsw.Connection, subscription: int, place: int) -> EventRow | None:
        stream: Any = connection.execute(_STREAM_OF, (subscription,)).get
        row = connection.execute(_EVENT_AT, (stream * PLACES + place,)).fetchone()
        if row is None:
            return None
        return read_or_name(connection, row, stream * PLACES, url=self._database.url)

    def _as_delivered(self, connection: apsw.Connection, subscription: int, place: int) -> EventRow:
        event = self._event(connection, subscription, place)
        if event is None:
            return EventRow(place, "", "", "", 0, "", 0, 0, "", b"", f"Event {place} is not kept any more.")
        row = connection.execute(_LAST_EDIT, (subscription, place)).fetchone()
        if row is None or event.damage:
            return event
        try:
            edit = _read_note(row, url=self._database.url)
        except StoreCorrupt as damage:
            return event._replace(damage=damage.what)
        assert edit.payload is not None, "an edit has a payload"
        return event._replace(payload=edit.payload)


def write_dead(connection: apsw.Connection, events: Sequence[DeadEvent]) -> None:
    """Park events, or put them in line behind others; what was due behind one that holds is parked, too."""
    for dead in events:
        connection.execute(_INSERT, dead[:9])
        if dead.holds and dead.kind != DeadKind.BEHIND:
            connection.execute(_HALT, (dead.subscription, dead.lane, dead.key, dead.position, dead.at_ms))


def clear_dead(connection: apsw.Connection, places: Sequence[tuple[int, int]]) -> None:
    """Remove (subscription, position): events that are done, or discarded."""
    connection.executemany(_CLEAR, places)


def is_due(connection: apsw.Connection, subscription: int, place: int) -> bool:
    """Whether an event waits on disk for its turn."""
    return connection.execute(_WAITS_DUE, (subscription, place)).get is not None


def write_watches(connection: apsw.Connection, watches: Sequence[LaneWatch], *, lease: int) -> None:
    """Keep what is known of lanes whose workers died; a lane that is another's now is left alone."""
    rows = [
        (_encode(watch) if watch.crashes else None, watch.subscription, watch.lane, lease)
        for watch in watches
    ]
    connection.executemany(_MARK_WATCH, rows)


def count_crashes(connection: apsw.Connection, subscription: int, limit: int) -> None:
    """Before so many free lanes are claimed: write down with which of them workers died."""
    rows: Any = connection.execute(_WATCHED, (subscription, limit)).fetchall()
    for lane, known, crashed, last in rows:
        watch = read_watch(known)
        if crashed:
            watch = count_crash(watch, subscription, lane, until=last)
        elif watch is not None:
            watch = watch._replace(begun=())  # whoever had them let them go in good order
        connection.execute(_SET_WATCH, (None if watch is None else _encode(watch), subscription, lane))


def read_watch(text: str | None) -> LaneWatch | None:
    """What is known of a lane, from its column."""
    return None if text is None else msgspec.json.decode(text, type=LaneWatch)


def wrong_note(row: Row, *, url: str) -> StoreCorrupt | None:
    """What is wrong with a note's row; None when nothing is."""
    *columns, crc = row
    if crc == checksum(columns):
        return None
    return StoreCorrupt(
        f"In store '{url}' a note on event {row[1]} of subscription number {row[0]} is damaged: it does not "
        "fit its checksum.",
        hint="Restore a backup of the file, or edit the event again.",
    )


def _read_note(row: Row, *, url: str) -> DeadNote:
    wrong = wrong_note(row, url=url)
    if wrong is not None:
        raise wrong
    return DeadNote._make(row[1:7])


def _write_notes(
    connection: apsw.Connection,
    subscription: int,
    places: Sequence[int],
    deed: Deed,
    author: Author,
    payload: bytes | None = None,
) -> None:
    rows: list[Row] = []
    for place in places:
        columns = (subscription, place, int(deed), author.at_ms, author.who, author.reason, payload)
        rows.append((*columns, checksum(columns)))
    connection.executemany(_NOTE, rows)


def _parked(
    connection: apsw.Connection, subscription: int, wanted: DeadFilter, *, after: int = 0, limit: int
) -> list[DeadEvent]:
    rows: Any = connection.execute(_EVENTS, (subscription, after, limit, *_bindings(wanted))).fetchall()
    return [DeadEvent._make(row) for row in rows]


def _bindings(wanted: DeadFilter) -> tuple[str | None, str | None, int | None]:
    places = json.dumps(wanted.places) if wanted.places else None
    return places, wanted.key, wanted.kind


def _encode(watch: LaneWatch) -> str:
    return msgspec.json.encode(watch).decode()
