"""Where each event is in the end: appended = done + parked + discarded + pending, and nothing is pending.

What there is to compare of streams, beside runs: the events of each, and what each handler has parked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ...core.events import DeadFilter, DeadKind, EventRow, Standing, SubscriptionRow
from ...core.stretches import covers
from ...stores.base import Store
from ...stores.streams import lane_of

_ALL = 1 << 62
_SHOWN = 200
Returned = Callable[[SubscriptionRow, EventRow], bool]


class Kept(tuple[str, ...]):
    """Something that a crash must not change and that is no run: its parts, in no order."""

    __slots__ = ()


class Accounts(NamedTuple):
    """Positions of a stream's events, by where one subscription has them."""

    done: set[int]
    parked: set[int]
    discarded: set[int]
    pending: set[int]


def events_of(store: Store, stream: str) -> list[EventRow]:
    """All of a stream, in order."""
    return store.streams.events(stream, after=0, limit=_ALL).events


def accounts(store: Store, row: SubscriptionRow) -> Accounts:
    """By what is on disk."""
    letters = store.streams.dead
    parked = {one.position for one in letters.events(row.number, DeadFilter(), limit=_ALL)}
    due = {
        event.position
        for lane, key, is_due in letters.held(row.number)
        if is_due
        for event in letters.due(row.number, lane, key, limit=_ALL).events
    }
    discarded = set(letters.discarded(row.number))
    lanes = {one.lane: one for one in store.streams.lanes(row.number)}
    passed, left = set[int](), set[int]()
    for event in events_of(store, row.stream):
        lane = lanes[lane_of(event, row.lanes)]
        is_passed = event.position <= lane.cursor or covers(lane.done, event.position)
        (passed if is_passed else left).add(event.position)
    return Accounts(passed - parked - due - discarded, parked, discarded, left | due)


def not_conserved(store: Store, served: list[SubscriptionRow], was_handled: Returned) -> str:
    """Which event is nowhere, or still waits, in a sentence; empty when each is in its place.

    `was_handled`: whether a function has come to its end with an event; true where that is not known.
    """
    stands = {one.subscription: one.status for one in store.streams.dead.standings()}
    for row in served:
        found, name = accounts(store, row), f"{row.name}() of stream {row.stream!r}"
        lost = (found.parked | found.discarded) & found.pending
        if lost:
            return f"events {sorted(lost)} are given up by {name}, and wait for it"
        if found.pending and stands.get(row.number) != Standing.STOPPED:
            return f"events {sorted(found.pending)} were left: neither done nor parked by {name}"
        for event in events_of(store, row.stream):
            if event.position in found.done and not was_handled(row, event):
                return f"event {event.position} is done on disk, and was never handled by {name}"
    return ""


def picture_of_streams(store: Store, streams: Iterable[str]) -> Iterator[tuple[str, Kept]]:
    """What there is to compare; of windows and joins, what they have told."""
    for stream in streams:
        told = [_told(event) for event in events_of(store, stream)]
        yield f"stream {stream!r}", Kept(sorted(told))
    for row in store.streams.subscriptions():
        events = {event.position: event for event in events_of(store, row.stream)}
        parked = store.streams.dead.events(row.number, DeadFilter(), limit=_ALL)
        told = [f"{DeadKind(one.kind).name.lower()}: {_told(events[one.position])}" for one in parked]
        yield f"what {row.name}() of stream {row.stream!r} has parked", Kept(sorted(told))


def _told(event: EventRow) -> str:
    return f"{event.type} of {event.key!r} {event.payload.decode(errors='replace')}"


def differ(name: str, before: Kept, after: Kept) -> str:
    """How the second differs from the first."""
    more = (Counter(after) - Counter(before)).elements()
    less = (Counter(before) - Counter(after)).elements()
    told = [f"has {one}, which it has not without a crash" for one in more]
    told += [f"lacks {one}, which it has without a crash" for one in less]
    return f"{name} {told[0]}"[:_SHOWN] + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")
