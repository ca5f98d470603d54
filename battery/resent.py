"""Events that come twice, out of order, long after they happened or before, and what must hold of them.

Producers append to one stream, and again what they appended before; some reuse an id for something else.
Three handlers follow the stream, in the order of keys, in its own, and in none; some events fail once or
a few times, some for good. The oracle is the list of the unique events: an event whose append had
returned before that of another began comes before it. How they are appended, and what befalls those who
handle them, is the store's part: a `World` of its own.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from perdure import Appended, Event, Handler, NonRetryable, ParkedEvent, Retry, StoreCorrupt, Stream, event
from perdure.core.events import EventRow
from perdure.core.positions import position_text
from perdure.runtime.lanes import Lane
from perdure.stores.base import Store
from tests.streams.conservation import Accounts, accounts

from .planted import (
    beginning_events_early,
    counting_events_as_done_early,
    first_caught,
    overtaking_what_is_parked,
    replaced,
)
from .row import Control, Counted, Work

T = TypeVar("T")
Planted = Callable[[], AbstractContextManager[object]]
Trial = Callable[[int, Path, Counter[str], Planted], object]
"""A trial with this seed, in this folder, with this bug planted; what it counts goes to the totals."""

STREAM = "moves"
ALL = 10_000
_KEYS = 5
_ACTIONS = 40
_ATTEMPTS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

HOLDS = (
    "the stream is the list of the unique events, in the order in which they came first",
    "an id that stands for another event is refused",
    "each handler is done with each event; parked are those that fail for good, and those behind them",
    "what was appended is done or parked, and in one place only",
    "after an event was begun, none that comes before it in its order is given again",
    "an event has one idempotency key for a handler, whatever crashes",
)


@event("moved")
@dataclass(frozen=True)
class Moved:
    key: str
    name: str
    failures: int
    """How many attempts fail; below 0: it is refused for good."""


# -- who handles them ----------------------------------------------------------------------------


class _Seen:
    """What one handler did, and what of it may not be."""

    def __init__(self, handler: str, order_of: Callable[[Event[Moved]], str]) -> None:
        self._handler = handler
        self._order_of = order_of
        self._latest: dict[str, str] = {}
        """By what is ordered, the last event that was begun."""
        self.begun = 0
        self.tries = Counter[str]()
        """By position, also of other lives."""
        self.done: dict[str, str] = {}
        """By position, the event's id; in the order of first ends."""
        self.keys: dict[str, set[str]] = {}
        self.wrong = ""

    def begin(self, event: Event[Moved], *, is_judged: bool) -> None:
        self.begun += 1
        self.tries[event.position] += 1
        self.keys.setdefault(event.position, set()).add(event.idempotency_key)
        if not is_judged:
            return
        order = self._order_of(event)
        latest = self._latest.get(order, "")
        if event.position < latest and not self.wrong:
            self.wrong = f"I7: {self._handler} was given {event.id} again after a later event of its order"
        self._latest[order] = event.position

    def end(self, event: Event[Moved]) -> None:
        self.done.setdefault(event.position, event.id)


class Ledger:
    """What the handlers of one trial did, whichever worker ran them."""

    def __init__(self) -> None:
        by_key = _Seen("by_key", lambda event: event.key)
        in_order = _Seen("in_order", lambda event: "")
        anyhow = _Seen("anyhow", lambda event: event.position)
        self.all = {"by_key": by_key, "in_order": in_order, "anyhow": anyhow}


class Play:
    """The stream and its handlers, as one worker has them: what they do goes to `ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.has_lanes = True
        """Whether its worker may have lanes. One that has lost them does not know at once, and goes on with
        what it has in hand, in vain."""
        self.stream = Stream(STREAM, Moved, key=lambda moved: moved.key)
        retry = Retry(attempts=_ATTEMPTS, delay=1, jitter=False)
        on = self.stream.on

        async def by_key(event: Event[Moved]) -> None:
            await self._handle("by_key", event)

        async def in_order(event: Event[Moved]) -> None:
            await self._handle("in_order", event)

        async def anyhow(event: Event[Moved]) -> None:
            await self._handle("anyhow", event)

        self.handlers: list[Handler[Moved]] = [
            on(retry=retry, concurrency=3)(by_key),
            on(retry=retry, order="stream")(in_order),
            on(retry=retry, order="none")(anyhow),
        ]

    async def _handle(self, name: str, event: Event[Moved]) -> None:
        seen = self.ledger.all[name]
        seen.begin(event, is_judged=self.has_lanes)
        await asyncio.sleep(0)
        if event.data.failures < 0:
            raise NonRetryable("for good")
        # Attempts of an outage do not count: it must end.
        if seen.tries[event.position] <= event.data.failures:
            raise RuntimeError("not yet")
        await asyncio.sleep(0)
        seen.end(event)


# -- who appends them ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Append:
    """What is known of an event from those who append it. Moments are numbers that count on."""

    began: int
    ended: int = 0
    """When somebody was first told that it is there; 0: nobody was yet."""
    position: str = ""


class World(ABC):
    """Producers, and those who handle what they append, on one store."""

    def __init__(self, play: Play, draw: Random, totals: Counter[str]) -> None:
        self._play = play
        self.draw = draw
        self.totals = totals
        self.kept: dict[str, tuple[Moved, datetime]] = {}
        """By id, in the order in which they were made."""
        self._appends: dict[str, _Append] = {}
        self._moments = 0

    async def live(self) -> None:
        """The whole of a trial."""
        for _ in range(_ACTIONS):
            await self._act()
            self.look()
        await self.come_to_rest()
        await self._judge()

    # -- the store's part --------------------------------------------------------------------------

    @abstractmethod
    async def append(self, names: Sequence[str]) -> None:
        """Have these appended, as `kept` has them, until it is told that they are there."""

    @abstractmethod
    async def misuse(self, name: str, other: Moved, when: datetime) -> None:
        """Have another event appended under an id that is taken."""

    @abstractmethod
    async def crash(self) -> None:
        """Let a worker die, and another begin."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""

    @abstractmethod
    async def come_to_rest(self) -> None:
        """Have all of it appended and handled, as far as it comes."""

    @abstractmethod
    async def read(self, look: Callable[[Store], T]) -> T:
        """Look at the store."""

    # -- what is done ------------------------------------------------------------------------------

    async def _act(self) -> None:
        draw = self.draw.random()
        told = [name for name, append in self._appends.items() if append.ended]
        if draw < 0.35:
            await self.append([self.new()])
        elif draw < 0.5:
            await self.append([self.new() for _ in range(self.draw.randrange(2, 6))])
        elif draw < 0.65 and self.kept:
            self.totals["duplicates"] += 1
            await self.append([self.draw.choice(list(self.kept))])
        elif draw < 0.7 and told:
            name = self.draw.choice(told)
            moved, when = self.kept[name]
            await self.misuse(name, Moved(moved.key, f"not {name}", moved.failures), when)
        elif draw < 0.8:
            await self.crash()
        elif draw < 0.9:
            await self.pass_time(self.draw.random() * 3)
        else:
            for _ in range(self.draw.randrange(20)):
                await asyncio.sleep(0)

    def new(self) -> str:
        """Make an event that is yet to be appended."""
        name = f"event-{len(self.kept)}"
        failures = self.draw.choices((0, 1, 2, _ATTEMPTS, -1), (30, 4, 2, 1, 1))[0]
        when = _EPOCH + timedelta(seconds=self.draw.choice((0, 1_700_000_000, 10_413_792_000)))
        moved = Moved(f"key-{self.draw.randrange(_KEYS)}", name, failures)
        self.kept[name] = (moved, when + timedelta(seconds=self.draw.randrange(7_200)))
        return name

    def begin(self, name: str) -> None:
        """Somebody begins to append it, or the transaction in which that is done."""
        self._moments += 1
        self._appends.setdefault(name, _Append(self._moments))

    def told(self, name: str, appended: Appended) -> None:
        """Somebody was told that it is on disk."""
        append = self._appends[name]
        assert append.position in ("", appended.position), f"I7: {name} is at two positions"
        self._moments += 1
        append.position, append.ended = appended.position, append.ended or self._moments

    # -- what must hold ----------------------------------------------------------------------------

    def look(self) -> None:
        """What must hold at any time."""
        for seen in self._play.ledger.all.values():
            assert not seen.wrong, seen.wrong

    async def _judge(self) -> None:
        self.look()
        events = await self.read(lambda store: store.streams.events(STREAM, after=0, limit=ALL).events)
        self._judge_stream(events)
        self.totals["events"] += len(events)
        by_position = {position_text(one.position): one for one in events}
        for handler in self._play.handlers:
            await self._judge_handler(handler, self._play.ledger.all[handler.name], by_position)
        wrong = await self.read(lambda store: list(store.check()))
        assert not wrong, f"I12: {wrong}"

    def _judge_stream(self, events: Sequence[EventRow]) -> None:
        unlisted = "I7: the stream is not the list of the unique events"
        assert Counter(one.id for one in events) == Counter(self.kept.keys()), unlisted
        changed = [one.id for one in events if json.loads(one.payload)["name"] != one.id]
        assert not changed, f"I7: the ids of {changed} stand for other events"
        moved = [
            one.id
            for one in events
            if self._appends[one.id].position not in ("", position_text(one.position))
        ]
        assert not moved, f"I7: {moved} are not where they were said to be"
        latest = 0
        for one in events:  # the last moment at which one began to be appended that comes before
            append = self._appends[one.id]
            assert not 0 < append.ended < latest, f"{unlisted}, in order: {one.id}"
            latest = max(latest, append.began)

    async def _judge_handler(
        self, handler: Handler[Moved], seen: _Seen, by_position: dict[str, EventRow]
    ) -> None:
        dead = await self.parked(handler)
        parked = {one.position for one in dead}
        lost = len(by_position) - len(parked | set(seen.done))
        assert not lost, f"I8: {handler.name} was never given {lost} of {len(by_position)} events"
        twice = [one for one in dead if one.reason == "behind" and one.position in seen.done]
        assert not twice, f"I8: {handler.name} did an event and parked it behind another"
        first = dict[str, str]()
        for one in dead:
            first.setdefault(one.key, one.reason)
            failures = self.kept[by_position[one.position].id][0].failures
            may_fail = failures < 0 or failures >= _ATTEMPTS
            assert may_fail or one.reason != "failed", f"I8: {handler.name} parked an event that can be done"
        astray = [key for key, reason in first.items() if reason == "behind"]
        assert not astray, f"I8: {handler.name} parked behind nothing: {astray}"
        if handler.order != "none":
            halted = {one.key: one.position for one in reversed(dead) if one.reason != "behind"}
            over = [
                one.id for at, one in by_position.items() if at > halted.get(one.key, at) and at in seen.done
            ]
            assert not over, f"I7: {handler.name} did {over} though one of their key before them is parked"
        loose = [keys for keys in seen.keys.values() if len(keys) != 1]
        assert not loose, f"I8: {handler.name} was given an event with two idempotency keys"
        found = await self.accounts(handler)
        assert not found.pending, f"I8: {handler.name} has {len(found.pending)} events pending"
        assert found.parked == {by_position[one].position for one in parked}, f"I8: {found}"
        self.totals["attempts"] += seen.begun
        self.totals["parked"] += len(parked)

    @abstractmethod
    async def parked(self, handler: Handler[Moved]) -> list[ParkedEvent]:
        """What that handler was given in vain."""

    async def accounts(self, handler: Handler[Moved]) -> Accounts:
        """Where each event is for that handler; raises AssertionError where that is not in one place."""
        return await self.read(lambda store: self._accounts(store, handler))

    def _accounts(self, store: Store, handler: Handler[Moved]) -> Accounts:
        done = self._play.ledger.all[handler.name].done
        places = [one.position for one in store.streams.events(STREAM, after=0, limit=ALL).events]
        try:
            return accounts(store, handler, handled=[at for at in places if position_text(at) in done])
        except AssertionError as wrong:
            raise AssertionError(f"I8: {handler.name}: {wrong}") from wrong


# -- bugs that are planted -----------------------------------------------------------------------


def _skipping_what_was_done_above() -> AbstractContextManager[object]:
    """The cursor goes to the last event that is done, over those that are not."""

    def mark(self: Lane, **at: Any) -> Any:
        self.cursor = max(self.cursor, self._highest)
        return kept(self, **at)

    kept = Lane.mark
    return replaced(Lane, mark=mark)


def _giving_up_at_once() -> AbstractContextManager[object]:
    """An event is parked when it first fails."""

    def gives_up_on(self: Retry, error: BaseException) -> bool:
        return True

    return replaced(Retry, gives_up_on=gives_up_on)


PLANTS: dict[str, Planted] = {
    "an event counts as done when it is begun": counting_events_as_done_early,
    "the next event of a key does not wait for the disk": beginning_events_early,
    "the cursor passes over what is not done": _skipping_what_was_done_above,
    "an event is parked when it first fails": _giving_up_at_once,
    "later events of a key do not wait for a parked one": overtaking_what_is_parked,
}


def counted_worlds(
    work: Work, trial: Trial, *, plants: dict[str, Planted], seeds_of_a_control: int
) -> Counted:
    """The whole of a row. `plants` has its controls."""
    totals = Counter[str]()

    def controls(work: Work) -> Sequence[Control]:
        return [
            first_caught(work, name, partial(_play_planted, trial, planted), seeds=seeds_of_a_control)
            for name, planted in plants.items()
        ]

    return work.counted(
        lambda seed, folder: trial(seed, folder, totals, nullcontext), controls=controls, figures=totals
    )


def _play_planted(trial: Trial, planted: Planted, seed: int, folder: Path) -> None:
    try:
        trial(seed, folder, Counter(), planted)
    except AssertionError as broken:
        if not str(broken).startswith("I5"):  # that it takes long may be the machine's fault
            raise
    except StoreCorrupt as told:
        raise AssertionError(f"I1: the store missed what it had acknowledged: {told.code}") from told
