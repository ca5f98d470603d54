"""Silence that a look cannot tell: windows and joins wait for it, and do not look again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from perdure import Event, Stream
from perdure.core.events import EventPage, EventRow
from perdure.runtime import joiner, windower
from perdure.testing import Harness

numbers = count(1)
_IDLE_S = 300
_MANY = 40
_NEVER_S = 3_600


@dataclass(frozen=True)
class Placed:
    order: str


Orders = Stream[Placed]
Makes = Callable[[Orders, Orders], Any]


class Looks:
    """At one stream, of which they find something else than there is."""

    def __init__(self, stream: Orders, change: Callable[[EventPage], EventPage]) -> None:
        self._stream = stream.name
        self._change = change
        self._is_over = False
        self.count = 0

    def see(self, stream: str, page: EventPage) -> EventPage:
        """What a look at this stream finds."""
        if stream != self._stream or self._is_over:
            return page
        self.count += 1
        return self._change(page)

    def end(self) -> None:
        """From now on they find what there is."""
        self._is_over = True


See = Callable[[Orders, Callable[[EventPage], EventPage]], Looks]


@pytest.fixture
def see(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> See:
    """From now on looks at this stream find its pages changed so."""

    def begin(stream: Orders, change: Callable[[EventPage], EventPage]) -> Looks:
        looks, streams = Looks(stream, change), type(harness.store.store.streams)
        read = streams.events

        def events(self: Any, of: str, *, after: int, limit: int) -> EventPage:
            return looks.see(of, read(self, of, after=after, limit=limit))

        monkeypatch.setattr(streams, "events", events)
        return looks

    return begin


def a_stream() -> Orders:
    return Stream(f"silent-{next(numbers)}", Placed, key=lambda one: one.order)


def count_one(total: int, event: Event[Placed]) -> int:
    return total + 1


def window(orders: Orders, others: Orders) -> Any:
    return orders.window(tumbling=3_600, initial=0, idle_after=_IDLE_S)(count_one)


def join(orders: Orders, others: Orders) -> Any:
    return others.join(Placed, orders, Placed, name="both", within=60, unmatched="both", idle_after=_IDLE_S)


def told(harness: Harness, made: Any) -> list[EventRow]:
    return harness.store.store.streams.events(made.results.name, after=0, limit=100).events


def hold_back(page: EventPage) -> EventPage:
    return page._replace(is_held_back=True)


@pytest.mark.parametrize("make", [window, join])
async def test_what_is_held_back_is_waited_for_and_then_silence_does_what_it_does(
    harness: Harness, see: See, make: Makes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windower, "_HELD_BACK_FIRST_S", _NEVER_S)
    monkeypatch.setattr(windower, "_HELD_BACK_LONGEST_S", _NEVER_S)
    monkeypatch.setattr(joiner, "_HELD_BACK_S", _NEVER_S)
    orders, others = a_stream(), a_stream()
    made = make(orders, others)
    await harness.append(others, Placed("b"))
    await harness.append(orders, Placed("a"))
    await harness.settle()

    looks = see(orders, hold_back)
    harness.clock.jump(7_200)
    await harness.append(others, Placed("b"))  # so that it is looked
    await harness.until(lambda: looks.count)
    for _ in range(_MANY):
        await harness.engine.list()
    seen, before = looks.count, len(told(harness, made))
    looks.end()
    await harness.append(orders, Placed("a"))
    await harness.until(lambda: len(told(harness, made)) > before)

    assert seen < _MANY / 4
