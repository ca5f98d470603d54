"""Events that the tests of streams append, and a look at those that are parked."""

from __future__ import annotations

from dataclasses import dataclass

from perdure import event
from perdure.core.events import DeadKind
from perdure.testing import Harness


@event("order.placed")
@dataclass(frozen=True)
class Placed:
    order: str
    amount: int = 0


@event("order.paid", version=2)
@dataclass(frozen=True)
class Paid:
    order: str


async def parked(harness: Harness, stream: str, handler: str) -> list[tuple[int, DeadKind]]:
    """Which events of the stream, from 1, and why."""
    store = harness.store.store
    places = [event.position for event in store.streams.events(stream, after=0, limit=1_000).events]
    row = store.streams.subscribe(stream, handler, lanes=1, from_start=True)
    return [
        (places.index(dead.position) + 1, DeadKind(dead.kind))
        for dead in store.streams.dead_events(row.number, after=0, limit=100)
    ]
