"""Runs that wait for events: what they ask for, and who is given which event.

Law: a run is given each event that fits once, in their order. No append and no run that asks
looks at the other, or waits for it: a run adds what it asks for, and one worker at a time (it has
the correlation's row locked) compares that with the events up to the horizon. Below that
nothing can come any more, so it need not look back; what it has not compared yet, it finds the next time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from ...core.events import EventRow
from ...core.records import Message, MessageKind
from ...errors import StoreError
from ..base import Lease
from ..correlation import Given, Wanted, event_as_text, value_of
from .arrays import numbers, texts
from .connection import Database
from .lease import Leases
from .link import Link
from .messages import send_messages
from .pipeline import Row

ENTERED_AT_ONCE: Final = 1_000
"""So many events are read, and entered, at once; and so many questions taken."""
_GIVEN_AT_ONCE: Final = 1_000

_Key = tuple[int, int, str]
"""A run, a correlation and a value."""


class Entry(NamedTuple):
    """What is next to be done for one correlation."""

    correlation: int
    entered: int
    """Up to here its events were entered when this was read."""
    until: int
    """Up to here they are after this."""
    values: Sequence[tuple[int, str]]
    """The position of each event of the type, and what stands in its fields."""


class News(NamedTuple):
    """What there is to compare."""

    entries: Sequence[Entry]
    is_held_back: bool
    """Whether there are events that may not be read yet."""


class Awaiting:
    """The events that runs of one store wait for."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._database = database
        self._leases = leases
        self._known: set[int] = set()
        self.any = False
        """Whether any run has ever waited, as far as is known."""

    def prepare(self, stream: int, wanted: Wanted) -> int:
        """Make the row of the correlation, in a transaction of its own: nobody waits for it. Its number."""
        number = correlation_number(wanted.stream, wanted.type, wanted.fields)
        if number not in self._known:
            given = (stream, wanted.type, wanted.fields)
            self._database.rows("insert_correlation", number, *given)
            if self._database.rows("correlation_of", number) not in ([given], []):
                raise StoreError(
                    f"No run can wait for events of type {wanted.type!r} of stream {wanted.stream!r} by "
                    f"{wanted.fields} in store '{self._database.url}': another such wait has the same hash.",
                    hint="Wait by other fields.",
                )
            self._known.add(number)
        return number

    def ask(self, link: Link, correlation: int, wanted: Wanted, run_id: str) -> None:
        """Ask for the next event that a run was not given, in the transaction that its step has open."""
        link.run("ask_for_event", correlation, run_id, wanted.value, wanted.signal)
        self.any = True

    def look(self) -> News | None:
        """What there is to compare; None when there is nothing."""
        rows = self._database.rows("correlations")
        self.any = bool(rows)
        if not any(is_asked or has_more for *_, is_asked, has_more in rows):
            return None
        return self._database.read(lambda link: _read_news(link, rows))

    def give(self, lease: Lease, news: News) -> Given:
        """Compare, and send to runs what they wait for. Raises LeaseLost."""
        fence = self._leases.fence(lease)

        def work(link: Link) -> tuple[Given, set[int]]:
            with link.transaction(fence):
                asked = link.run("lock_correlations", numbers(entry.correlation for entry in news.entries))
            return _compare(link, news, dict(asked.fetchall()), lease=lease.number)

        given, _ = self._database.write(work, tell=lambda done: bool(done[1] - {lease.number}))
        return given


def correlation_number(stream: str, type: str, fields: str) -> int:
    """The number of a correlation: a hash of what it is."""
    name = json.dumps((stream, type, fields)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1


def _read_news(link: Link, rows: Sequence[tuple[int, int, str, str, int, bool, bool]]) -> News:
    with link.sending():
        pages = [
            link.run("events_to_enter", stream, entered, kind, ENTERED_AT_ONCE) if has_more else None
            for _, stream, kind, _, entered, _, has_more in rows
        ]
    entries: list[Entry] = []
    is_held_back = False
    for (number, _, _, fields, entered, is_asked, _), page in zip(rows, pages, strict=True):
        events = [] if page is None else page.fetchall()
        is_held_back = is_held_back or (page is not None and not events)
        if events or is_asked:
            names = json.loads(fields)
            values = [(pos, value_of(payload, names)) for pos, payload in events if payload is not None]
            entries.append(Entry(number, entered, events[-1][0] if events else entered, values))
    return News(entries, is_held_back)


def _compare(link: Link, news: News, locked: dict[int, int], *, lease: int) -> tuple[Given, set[int]]:
    """What was given, and the leases of those who were."""
    ours = [entry for entry in news.entries if locked.get(entry.correlation) == entry.entered]
    is_held_back = news.is_held_back or len(ours) < len(news.entries)
    entered = [(entry.correlation, value, pos) for entry in ours for pos, value in entry.values]
    with link.sending():
        if entered:
            correlations, values, places = zip(*entered, strict=True)
            link.run("enter_events", numbers(correlations), texts(values), numbers(places))
        moved = {entry.correlation: entry.until for entry in ours if entry.until > entry.entered}
        if moved:
            link.run("move_correlations", numbers(moved), numbers(moved.values()))
        taken = link.run("take_asking", numbers(locked), ENTERED_AT_ONCE)
    asked = taken.fetchall()
    if asked:
        _want(link, asked)
    fresh = dict.fromkeys((correlation, value) for correlation, value, _ in entered)
    sent, leases = _give(link, list(fresh), [row[:3] for row in asked], lease=lease)
    # Behind the events that were read, others may have settled since.
    is_more = bool(moved) or len(asked) == ENTERED_AT_ONCE
    return Given(sent, is_more, is_held_back), leases


def _want(link: Link, asked: Sequence[tuple[int, int, str, str]]) -> None:
    wanted = Counter(asked)
    runs, correlations, values, signals = zip(*wanted, strict=True)
    link.run(
        "want_events", numbers(runs), numbers(correlations), texts(values), texts(signals),
        numbers(wanted.values()),
    )  # fmt: skip


def _give(
    link: Link, entered: Sequence[tuple[int, str]], asked: Sequence[_Key], *, lease: int
) -> tuple[list[Message], set[int]]:
    """What was sent to runs, and the leases that have them."""
    if not (entered or asked):
        return [], set()
    of_entered = numbers(number for number, _ in entered), texts(value for _, value in entered)
    keys = sorted(set(asked))
    runs, correlations, values = zip(*keys, strict=True) if keys else ((), (), ())
    of_asked = numbers(runs), numbers(correlations), texts(values)
    sent: list[Message] = []
    leases: set[int] = set()
    while True:
        rows = link.rows("events_to_give", *of_entered, *of_asked, _GIVEN_AT_ONCE)
        if rows:
            more, holders = _send(link, rows, lease=lease)
            sent += more
            leases |= holders
        if len(rows) < _GIVEN_AT_ONCE:
            return sent, leases


def _send(link: Link, rows: Sequence[Row], *, lease: int) -> tuple[list[Message], set[int]]:
    """Send events to their runs, and note what each was given last."""
    messages: list[Message] = []
    for run, _, _, signal, *columns in rows:
        event = EventRow(*columns)
        told = event_as_text(event).encode()
        messages.append(Message(0, run, MessageKind.SIGNAL, signal, told, "", event.at_ms))
    positions, leases = send_messages(link, messages, lease=lease)
    sent: list[Message] = []
    last: dict[_Key, tuple[int, int]] = {}
    for row, message, position in zip(rows, messages, positions, strict=True):
        if position > 0:  # else the run has just ended: the event is for the one that continues it
            run, correlation, value, _, place, *_ = row
            _, before = last.get((run, correlation, value), (0, 0))
            last[run, correlation, value] = place, before + 1
            sent.append(message._replace(pos=position))
    if last:
        runs, correlations, values = zip(*last, strict=True)
        places, counts = zip(*last.values(), strict=True)
        link.run(
            "give_awaited", numbers(runs), numbers(correlations), texts(values), numbers(places),
            numbers(counts),
        )  # fmt: skip
    return sent, leases
