"""Dead letters in the database: what is parked, what people do to it, and lanes whose workers died.

Law: see `stores.dead`. Whoever puts events in line shares a lock on the subscription's row, and a verb
of people's has it alone: so no event is parked behind one that was redriven meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
    LaneMark,
    LaneWatch,
    Redriven,
    Standing,
    SubscriptionStanding,
    count_crash,
)
from .arrays import numbers, payloads, texts
from .connection import Database
from .gate import Gate
from .link import Link

_ALL: Final = 1 << 62
_DRY: Final = -1


class DeadLetters:
    """See `DeadStore`."""

    def __init__(self, database: Database, gate: Gate) -> None:
        self._database = database
        self._gate = gate

    def events(self, subscription: int, wanted: DeadFilter, *, after: int = 0, limit: int) -> list[DeadEvent]:
        """See `DeadStore.events`."""
        rows = self._database.rows("dead_events", subscription, after, limit, *_bindings(wanted))
        return [DeadEvent._make(row) for row in rows]

    def counts(self, subscription: int) -> dict[int, int]:
        """See `DeadStore.counts`."""
        rows: Any = self._database.rows("dead_counts", subscription)
        return dict(rows)

    def discarded(self, subscription: int) -> list[int]:
        """See `DeadStore.discarded`."""
        return [place for (place,) in self._database.rows("discarded", subscription)]

    def event(self, subscription: int, place: int) -> EventRow | None:
        """See `DeadStore.event`."""
        rows = self._database.rows("event_at", subscription, place)
        return EventRow(*rows[0]) if rows else None

    def notes(self, subscription: int, place: int) -> list[DeadNote]:
        """See `DeadStore.notes`."""
        return [DeadNote._make(row) for row in self._database.rows("notes_of", subscription, place)]

    def edit(self, subscription: int, place: int, payload: bytes, author: Author) -> bool:
        """See `DeadStore.edit`."""

        def work(link: Link) -> bool:
            self._begin(link, subscription)
            is_parked = bool(_parked(link, subscription, DeadFilter((place,))))
            if is_parked:
                _write_notes(link, subscription, [place], Deed.EDITED, author, payload)
            return is_parked

        return self._database.write(work)

    def discard(self, subscription: int, wanted: DeadFilter, author: Author) -> list[int]:
        """See `DeadStore.discard`."""

        def work(link: Link) -> list[int]:
            self._begin(link, subscription)
            places = _parked(link, subscription, wanted)
            if places:
                clear_dead(link, [(subscription, place) for place in places])
                _write_notes(link, subscription, places, Deed.DISCARDED, author)
            return places

        return self._database.write(work, tell=bool)

    def begin_redrive(self, subscription: int) -> int:
        """See `DeadStore.begin_redrive`."""
        return self._database.write(lambda link: self._begin(link, subscription))

    def redrive(
        self, subscription: int, redrive: int, wanted: DeadFilter, author: Author | None, *, limit: int
    ) -> Redriven:
        """See `DeadStore.redrive`."""
        chosen = (subscription, redrive if author else _DRY, limit, *_bindings(wanted))
        if author is None:
            return Redriven([place for (place,) in self._database.rows("redrivable", *chosen)], 0, 0)

        def work(link: Link) -> Redriven:
            self._begin(link, subscription)
            places: list[int] = [place for (place,) in link.rows("redrivable", *chosen)]
            if places:
                link.run("redrive_dead", subscription, numbers(places), redrive)
                _write_notes(link, subscription, places, Deed.REDRIVEN, author)
            (stands,) = link.rows("redrive_stands", subscription, redrive)
            return Redriven(places, *stands)

        return self._database.write(work, tell=lambda done: bool(done.places))

    def held(self, subscription: int) -> list[tuple[int, str, bool]]:
        """See `DeadStore.held`."""
        rows: Any = self._database.rows("held_keys", subscription)
        return list(rows)

    def due(self, subscription: int, lane: int, key: str, *, limit: int) -> DueEvents:
        """See `DeadStore.due`."""
        found, ((is_left,),) = self._database.snapshot(
            ("due_events", subscription, lane, key, limit), ("holding", subscription, lane, key)
        )
        return DueEvents([_as_delivered(row) for row in found], is_left)

    def standings(self) -> list[SubscriptionStanding]:
        """See `DeadStore.standings`."""
        return [SubscriptionStanding._make(row) for row in self._database.rows("standings")]

    def change_standing(
        self, subscription: int, before: Sequence[Standing], after: Standing, *, reason: str, at_ms: int
    ) -> bool:
        """See `DeadStore.change_standing`."""
        wanted = numbers(int(standing) for standing in before)

        def work(link: Link) -> bool:
            self._pass_gate(link)
            return bool(link.rows("change_standing", subscription, int(after), at_ms, reason, wanted))

        return self._database.write(work, tell=bool)

    def _begin(self, link: Link, subscription: int) -> int:
        """Begin a transaction that has the subscription alone; gives its new edition."""
        self._pass_gate(link)
        ((edition,),) = link.rows("bump_edition", subscription)
        return edition

    def _pass_gate(self, link: Link) -> None:
        with link.transaction():
            asked = self._gate.ask(link)
        self._gate.check(asked)


def write_dead(link: Link, events: Sequence[DeadEvent], marks: Sequence[LaneMark], *, lease: int) -> None:
    """Send events that are parked, or put in line; what was due behind one that holds is parked, too.

    But for those of lanes whose marks are refused.
    """
    known = {(mark.subscription, mark.lane): mark.generation for mark in marks}
    last = {(one.subscription, one.position): one for one in events}
    behind = [one for one in last.values() if one.kind == DeadKind.BEHIND]
    failed = [one for one in last.values() if one.kind != DeadKind.BEHIND]
    link.run("share_editions", numbers(sorted({one.subscription for one in events})))
    if failed:
        link.run("insert_dead", *_columns(failed, known), lease)
        link.run("halt_keys", *_columns(failed, known), lease)
    if behind:
        link.run("insert_behind", *_columns(behind, known), lease)


def clear_dead(link: Link, places: Sequence[tuple[int, int]]) -> None:
    """Send (subscription, position) of events that are done, or discarded."""
    subscriptions, positions = zip(*places, strict=True)
    link.run("clear_dead", numbers(subscriptions), numbers(positions))


def is_due(link: Link, subscription: int, position: int) -> bool:
    """Whether an event waits on disk for its turn."""
    return bool(link.rows("waits_due", subscription, position))


def write_watches(link: Link, watches: Sequence[LaneWatch], *, lease: int) -> None:
    """Send what is known of lanes whose workers died; a lane that is another's now is left alone."""
    last = {(watch.subscription, watch.lane): watch for watch in watches}
    known = texts(_encode(watch) if watch.crashes else None for watch in last.values())
    subscriptions, lanes = zip(*last, strict=True)
    link.run("mark_watches", known, numbers(subscriptions), numbers(lanes), lease)


def count_crashes(
    link: Link, claimed: Sequence[tuple[int, int, str | None, bool]], *, lease: int
) -> dict[tuple[int, int], LaneWatch]:
    """Of lanes that were claimed now (subscription, lane, watch, whether its worker died): what is known."""
    if not any(known or crashed for _, _, known, crashed in claimed):
        return {}
    last: Any = dict(link.rows("last_events", numbers({row[0] for row in claimed})))  # pyright: ignore[reportArgumentType]
    watches: dict[tuple[int, int], LaneWatch] = {}
    for subscription, lane, known, crashed in claimed:
        watch = None if known is None else msgspec.json.decode(known, type=LaneWatch)
        if crashed:
            watch = count_crash(watch, subscription, lane, until=last[subscription])
        elif watch is not None:
            watch = watch._replace(begun=())  # whoever had them let them go in good order
        if watch is not None:
            watches[subscription, lane] = watch
    write_watches(link, list(watches.values()), lease=lease)
    return watches


def _columns(events: Sequence[DeadEvent], known: dict[tuple[int, int], int]) -> tuple[Any, ...]:
    of, places, lanes, keys, kinds, attempts, failures, at_ms, holds, *_ = zip(*events, strict=True)
    return (
        numbers(of), numbers(places), numbers(lanes), texts(keys), numbers(kinds), numbers(attempts),
        payloads(failures), numbers(at_ms), numbers(holds),
        numbers(known.get((one.subscription, one.lane)) for one in events),
    )  # fmt: skip


def _parked(link: Link, subscription: int, wanted: DeadFilter) -> list[int]:
    rows = link.rows("dead_events", subscription, 0, _ALL, *_bindings(wanted))
    return [row[1] for row in rows]


def _write_notes(
    link: Link,
    subscription: int,
    places: Sequence[int],
    deed: Deed,
    author: Author,
    payload: bytes | None = None,
) -> None:
    what = int(deed), author.at_ms, author.who, author.reason, payload
    link.run("insert_notes", subscription, numbers(places), *what)


def _as_delivered(row: tuple[Any, ...]) -> EventRow:
    if row[1] is None:
        return EventRow(
            row[0], "", "", "", 0, "", 0, 0, "", b"", f"The event at {row[0]} is not kept any more."
        )
    return EventRow(*row)


def _bindings(wanted: DeadFilter) -> tuple[Any, ...]:
    return numbers(wanted.places) if wanted.places else None, wanted.key, wanted.kind


def _encode(watch: LaneWatch) -> str:
    return msgspec.json.encode(watch).decode()
