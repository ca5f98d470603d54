"""Where every event of a stream is, as far as one handler goes: none is lost, and none is in two places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from perdure.blocks.handler import Handler
from perdure.core.events import DeadFilter
from perdure.stores.base import Store
from perdure.stores.streams import lane_of


@dataclass(frozen=True)
class Accounts:
    """Positions of a stream, by where a handler has them."""

    appended: set[int]
    done: set[int]
    parked: set[int]
    discarded: set[int]
    pending: set[int]
    """Not begun, in hand, or on their way again."""


def accounts(store: Store, handler: Handler[Any], *, handled: Iterable[int] | None = None) -> Accounts:
    """Count the events, by what is on disk. Raises AssertionError if one is lost, or is in two places.

    `handled`: positions of events for which the handler has returned, as the test has seen it; None: all.
    What the store says is done must be among them; what was handled may be handled again, if nothing says so.
    """
    row = next(
        one
        for one in store.streams.subscriptions()
        if (one.stream, one.name) == (handler.stream, handler.name)
    )
    dead = {one.position for one in store.streams.dead.events(row.number, DeadFilter(), limit=1 << 62)}
    due = _due(store, row.number)
    discarded = set(store.streams.dead.discarded(row.number))
    appended, passed = set[int](), set[int]()
    lanes = {one.lane: one for one in store.streams.lanes(row.number)}
    after = 0
    while page := store.streams.events(row.stream, after=after, limit=1_000).events:
        after = page[-1].position
        for event in page:
            lane = lanes[lane_of(event, row.lanes)]
            stretches = zip(lane.done[::2], lane.done[1::2], strict=True)
            appended.add(event.position)
            if event.position <= lane.cursor or any(a <= event.position <= b for a, b in stretches):
                passed.add(event.position)
    done = passed - dead - due - discarded
    assert dead | due | discarded <= passed, "an event is parked, and yet will be read along again"
    twice = dead & due | dead & discarded | due & discarded
    assert not twice, f"in two places: {sorted(twice)}"
    never = set[int]() if handled is None else done - set(handled)
    assert not never, f"done on disk, and never handled: {sorted(never)}"
    pending = (appended - passed) | due
    assert len(appended) == len(done) + len(dead) + len(discarded) + len(pending)
    return Accounts(appended, done, dead, discarded, pending)


def _due(store: Store, subscription: int) -> set[int]:
    places = set[int]()
    for lane, key, is_due in store.streams.dead.held(subscription):
        if is_due:
            places.update(
                event.position
                for event in store.streams.dead.due(subscription, lane, key, limit=1 << 30).events
            )
    return places
