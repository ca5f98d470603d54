"""Messages: sent and read, and how it is known that none comes later at a lower position.

A position is made of the number of the transaction that sends. A message can
still turn up only if its transaction is running, and the server knows the oldest that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from ...core.records import Message, MessageKind
from ..base import DROPPED, KNOWN, Lease, MessagePage
from .arrays import numbers, payloads, texts
from .connection import Database
from .link import Link

_MESSAGES_MAX = 2**20 - 1
"""Of one transaction: what a position has room for."""


class Sent:
    """Messages on their way to runs that are open; what their senders say of requests is not looked at."""

    def __init__(self, link: Link, messages: Sequence[Message], *, lease: int) -> None:
        """Send them, under a lease; in a pipeline, as part of it. There is at least one."""
        first = link.messages_sent + 1
        link.messages_sent += len(messages)
        assert link.messages_sent <= _MESSAGES_MAX, (
            f"{link.messages_sent} messages are too many for one batch"
        )
        self._link = link
        self._places = range(first, first + len(messages))
        _, runs, kinds, names, contents, requests, times = zip(*messages, strict=True)
        ends_jobs = MessageKind.STEP_ENDED in kinds
        self._kept = link.run(
            "insert_outcomes" if ends_jobs else "insert_messages", numbers(self._places), numbers(runs),
            numbers(kinds), texts(names), payloads(contents), texts(requests), numbers(times),
            *[lease] * ends_jobs,
        )  # fmt: skip

    def finish(self) -> tuple[list[int], set[int]]:
        """The position of each, or `DROPPED`; and the leases that have their runs."""
        rows = self._kept.fetchall()
        kept = {position for position, _ in rows}
        base = self._link.transaction_number << 20
        positions = [base + place if base + place in kept else DROPPED for place in self._places]
        return positions, {lease for _, lease in rows}


def send_messages(link: Link, messages: Sequence[Message], *, lease: int) -> tuple[list[int], set[int]]:
    """Keep each message until it is taken; what `Committed.messages` holds, and the leases of their runs.

    `lease` sends them.
    """
    asking = [(place, message) for place, message in enumerate(messages) if message.request]
    fates = _note_requests(link, asking) if asking else {}
    sent = [place for place in range(len(messages)) if place not in fates]
    if not sent:
        return [fates[place] for place in range(len(messages))], set()
    kept, leases = Sent(link, [messages[place] for place in sent], lease=lease).finish()
    fates.update(zip(sent, kept, strict=True))
    noted = next((message for place, message in asking if fates[place] > 0), None)
    if noted is not None and link.witness is None:
        link.witness = ("witness_request", noted.run, noted.request)
    return [fates[place] for place in range(len(messages))], leases


def _note_requests(link: Link, asking: Sequence[tuple[int, Message]]) -> dict[int, int]:
    """Note the request of each message, and say of those which are not to be sent why."""
    fates: dict[int, int] = {}
    first: dict[tuple[int, str], int] = {}
    for place, message in asking:
        if first.setdefault((message.run, message.request), place) != place:
            fates[place] = KNOWN
    signals = [(place, m) for place, m in asking if m.kind == MessageKind.SIGNAL and place not in fates]
    if signals:
        had = link.rows(
            "had_requests", numbers(place for place, _ in signals), numbers(m.run for _, m in signals),
            texts(m.request for _, m in signals),
        )  # fmt: skip
        fates.update((place, KNOWN) for (place,) in had)
    new = {pair: place for pair, place in first.items() if place not in fates}
    bindings = numbers(run for run, _ in new), texts(request for _, request in new)
    noted = {(run, request) for run, request in link.rows("note_requests", *bindings)}
    if len(noted) < len(new):
        known = {(run, request) for run, request in link.rows("known_requests", *bindings)}
        for pair, place in new.items():
            if pair not in noted:
                fates[place] = KNOWN if pair in known else DROPPED
    for place, message in asking:  # twice in the batch, and its run has ended
        pair = (message.run, message.request)
        if first[pair] != place and fates.get(first[pair]) == DROPPED:
            fates[place] = DROPPED
    return fates


class MessageReader:
    """Reads what was sent to the runs of a lease."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._floors: WeakKeyDictionary[Link, tuple[int, int, int]] = WeakKeyDictionary()
        """Of which lease was asked after which position, and up to which there was nothing.

        By connection, as these end when the server crashes: it may then give numbers of transactions, and
        so positions, a second time.
        """

    def page(self, lease: Lease, *, after: int, limit: int) -> MessagePage:
        """See `Store.messages`."""
        return self._database.read(lambda link: self._read(link, lease, after, limit))

    def _read(self, link: Link, lease: Lease, after: int, limit: int) -> MessagePage:
        number, asked, floor = self._floors.get(link, (0, 0, 0))
        start = floor if (number, asked) == (lease.number, after) else after
        # The horizon first: it must not be newer than what is found.
        horizon, rows = _look(link, lease, start, limit)
        if len(rows) == limit and rows[-1][0] > horizon:
            # What is not settled is given again each time: there must be room for something new beside it.
            horizon, rows = _look(link, lease, start, None)
        if not rows:
            if not link.is_pooled:  # a pooler's connection to the server may be another each time
                self._floors[link] = lease.number, after, max(start, horizon)
            return MessagePage([], after)
        return MessagePage([Message._make(row) for row in rows], max(after, min(horizon, rows[-1][0])))


def _look(link: Link, lease: Lease, after: int, limit: int | None) -> tuple[int, list[tuple[int, ...]]]:
    with link.sending():
        horizon = link.run("horizon")
        found = link.run("messages", after, lease.number, limit)
    ((settled,),) = horizon.fetchall()
    return settled, found.fetchall()
