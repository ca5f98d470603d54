"""Silence that a look cannot tell: windows and joins wait for it, and do not look again and again."""

from __future__ import annotations

import asyncio
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


class HeldBack:
    """What no look at a stream is given until `end`: a transaction may put something before it."""

    def __init__(self, stream: Orders) -> None:
        self._stream = stream.name
        self._is_over = False
        self.looks = 0

    def see(self, stream: str, page: EventPage) -> EventPage:
        """What a look at this stream finds."""
        if stream != self._stream or self._is_over:
            return page
        self.looks += 1
        return page._replace(is_held_back=True)

    def end(self) -> None:
        self._is_over = True


@pytest.fixture
def hold_back(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Callable[[Orders], HeldBack]:
    """From now on there is something in a stream that is held back."""

    def begin(stream: Orders) -> HeldBack:
        held, streams = HeldBack(stream), type(harness.store.store.streams)
        read = streams.events

        def events(self: Any, of: str, *, after: int, limit: int) -> EventPage:
            return held.see(of, read(self, of, after=after, limit=limit))

        monkeypatch.setattr(streams, "events", events)
        return held

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


@pytest.mark.parametrize("make", [window, join])
async def test_what_is_held_back_is_waited_for_and_then_silence_does_what_it_does(
    harness: Harness,
    hold_back: Callable[[Orders], HeldBack],
    make: Callable[[Orders, Orders], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windower, "_HELD_BACK_FIRST_S", _NEVER_S)
    monkeypatch.setattr(windower, "_HELD_BACK_LONGEST_S", _NEVER_S)
    monkeypatch.setattr(joiner, "_HELD_BACK_S", _NEVER_S)
    orders, others = a_stream(), a_stream()
    made = make(orders, others)
    await harness.append(others, Placed("b"))
    await harness.append(orders, Placed("a"))
    await harness.settle()

    held = hold_back(orders)
    harness.clock.jump(7_200)
    await harness.append(others, Placed("b"))  # so that it is looked
    await harness.until(lambda: held.looks)
    for _ in range(_MANY):
        await harness.engine.list()  # which takes a while at a server
        await asyncio.sleep(0)  # and a turn of the loop on a file
    seen, before = held.looks, len(told(harness, made))
    held.end()
    await harness.append(orders, Placed("a"))
    await harness.until(lambda: len(told(harness, made)) > before)

    assert seen < _MANY / 4
