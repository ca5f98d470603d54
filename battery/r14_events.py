"""Row 14: events come twice, out of order, long after they happened or before, while workers die.

Producers append to one stream, one by one and in batches, and again what they appended before; some
reuse an id for something else. Three handlers follow the stream, in the order of keys, in its own, and
in none; some events fail once or a few times, some for good. Commits lose their answers and workers
die. The oracle is the list of the unique events, in the order in which they were first appended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from perdure import (
    DuplicateConflict,
    Event,
    Handler,
    NonRetryable,
    ParkedEvent,
    Retry,
    StoreUnavailable,
    Stream,
    event,
)
from perdure.blocks.event import position_text
from perdure.runtime.lanes import Lane
from perdure.stores.base import Batch
from perdure.stores.sqlite import streams
from perdure.testing import Harness
from perdure.testing.disk import FaultyDisk

from .planted import beginning_events_early, counting_events_as_done_early, first_caught, replaced
from .row import Control, Counted, Row, Trials, Work, chance

_KEYS = 5
_ACTIONS = 40
_ATTEMPTS = 4
_TRIALS_OF_A_CONTROL = 300
_SLOW_S = 0.003
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@event("moved")
@dataclass(frozen=True)
class Moved:
    key: str
    name: str
    failures: int
    """How many attempts fail; below 0: it is refused for good."""


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

    def begin(self, event: Event[Moved]) -> None:
        self.begun += 1
        self.tries[event.position] += 1
        self.keys.setdefault(event.position, set()).add(event.idempotency_key)
        order = self._order_of(event)
        latest = self._latest.get(order, "")
        if event.position < latest and not self.wrong:
            self.wrong = f"I7: {self._handler} was given {event.id} again after a later event of its order"
        self._latest[order] = event.position

    def end(self, event: Event[Moved]) -> None:
        self.done.setdefault(event.position, event.id)


class _Ledger:
    """What the handlers of one trial did."""

    def __init__(self) -> None:
        self.by_key = _Seen("by_key", lambda event: event.key)
        self.in_order = _Seen("in_order", lambda event: "")
        self.anyhow = _Seen("anyhow", lambda event: event.position)

    @property
    def all(self) -> dict[str, _Seen]:
        return {"by_key": self.by_key, "in_order": self.in_order, "anyhow": self.anyhow}


class _Play:
    """The stream and its handlers, which are the same in all trials: what they do goes to `ledger`."""

    def __init__(self) -> None:
        self.ledger = _Ledger()
        self.stream = Stream("moves", Moved, key=lambda moved: moved.key)
        retry = Retry(attempts=_ATTEMPTS, delay=1, jitter=False)
        on = self.stream.on

        async def by_key(event: Event[Moved]) -> None:
            await _handle(self.ledger.by_key, event)

        async def in_order(event: Event[Moved]) -> None:
            await _handle(self.ledger.in_order, event)

        async def anyhow(event: Event[Moved]) -> None:
            await _handle(self.ledger.anyhow, event)

        self.handlers: list[Handler[Moved]] = [
            on(retry=retry, concurrency=3)(by_key),
            on(retry=retry, order="stream")(in_order),
            on(retry=retry, order="none")(anyhow),
        ]


async def _handle(seen: _Seen, event: Event[Moved]) -> None:
    seen.begin(event)
    await asyncio.sleep(0)
    if event.data.failures < 0:
        raise NonRetryable("for good")
    if seen.tries[event.position] <= event.data.failures:  # attempts of an outage do not count: it must end
        raise RuntimeError("not yet")
    await asyncio.sleep(0)
    seen.end(event)


class _World:
    """Producers, and the lives of the engine."""

    def __init__(self, play: _Play, seed: int, folder: Path, totals: Counter[str]) -> None:
        self._play = play
        self._totals = totals
        self._draw: Random = chance(seed, "events")
        self._rate = self._draw.choice((0.0, 0.05, 0.2))
        """Of commits that fail: before they are written, or after, so that nobody can know."""
        self._harness = Harness(folder / "runs.db", seed=seed)
        self._kept: dict[str, tuple[Moved, datetime]] = {}
        """By id, in the order of their first append."""

    async def live(self) -> None:
        await self._harness.open()
        self._arm()
        for _ in range(_ACTIONS):
            await self._act()
        self._rate = 0.0
        for _ in range(3):  # each crash might be the one that shows what was not on disk
            await self._harness.advance(minutes=15)
            await self._harness.settle()
            await self._crash()
        await self._harness.advance(minutes=15)
        await self._harness.settle()
        await self._judge()
        await self._harness.stop()

    def _arm(self) -> None:
        self._harness.store.before_commit = self._maybe_fail

    def _maybe_fail(self, batch: Batch) -> None:
        if self._draw.random() < self._rate:
            self._totals["commits failed"] += 1
            if self._draw.random() < 0.5:
                time.sleep(_SLOW_S)  # so that the loop goes on meanwhile
                self._harness.store.fail_before_commit()
            else:
                self._harness.store.fail_after_commit()

    async def _act(self) -> None:
        draw = self._draw.random()
        if draw < 0.35:
            await self._append(self._new())
        elif draw < 0.5:
            for one in [self._new() for _ in range(self._draw.randrange(2, 6))]:
                await self._append(one)
        elif draw < 0.65 and self._kept:
            await self._append_again(self._draw.choice(list(self._kept)))
        elif draw < 0.7 and self._kept:
            await self._misuse(self._draw.choice(list(self._kept)))
        elif draw < 0.8:
            await self._crash()
        elif draw < 0.9:
            await self._harness.advance(self._draw.random() * 3)
        else:
            for _ in range(self._draw.randrange(20)):
                await asyncio.sleep(0)

    def _new(self) -> str:
        name = f"event-{len(self._kept)}"
        failures = self._draw.choices((0, 1, 2, _ATTEMPTS, -1), (30, 4, 2, 1, 1))[0]
        when = _EPOCH + timedelta(seconds=self._draw.choice((0, 1_700_000_000, 10_413_792_000)))
        moved = Moved(f"key-{self._draw.randrange(_KEYS)}", name, failures)
        self._kept[name] = (moved, when + timedelta(seconds=self._draw.randrange(7_200)))
        return name

    async def _append(self, name: str) -> None:
        moved, when = self._kept[name]
        while True:
            try:
                await self._harness.append(self._play.stream, moved, id=name, time=when)
            except StoreUnavailable:
                await self._take_over()
            else:
                return

    async def _append_again(self, name: str) -> None:
        self._totals["duplicates"] += 1
        before = len(await self._events())
        await self._append(name)
        assert len(await self._events()) == before, f"I7: {name} was appended, and became two events"

    async def _misuse(self, name: str) -> None:
        moved, when = self._kept[name]
        other = Moved(moved.key, f"not {name}", moved.failures)
        try:
            await self._harness.append(self._play.stream, other, id=name, time=when)
        except DuplicateConflict:
            self._totals["ids refused"] += 1
        except StoreUnavailable:
            await self._take_over()
        else:
            raise AssertionError(f"I7: the id of {name} was taken for another event")

    async def _crash(self) -> None:
        self._totals["crashes"] += 1
        if self._harness.engine.is_open:
            await self._harness.crash()
            self._arm()
        else:
            await self._take_over()

    async def _take_over(self) -> None:
        await self._harness.stop()
        await self._harness.open()
        self._arm()

    async def _events(self) -> Sequence[Any]:
        stream = self._play.stream.name
        return (
            await self._harness.door.read(lambda store: store.streams.events(stream, after=0, limit=10_000))
        ).events

    async def _judge(self) -> None:
        events = await self._events()
        names = [one.id for one in events]
        assert names == list(self._kept), "I7: the stream is not the list of the unique events, in order"
        self._totals["events"] += len(names)
        by_position = {position_text(one.position): one.id for one in events}
        for handler in self._play.handlers:
            dead = await self._harness.subscription(handler).parked(limit=10_000)
            self._judge_handler(handler, self._play.ledger.all[handler.name], dead, by_position)

    def _judge_handler(
        self, handler: Handler[Moved], seen: _Seen, dead: list[ParkedEvent], by_position: dict[str, str]
    ) -> None:
        assert not seen.wrong, seen.wrong
        parked = {one.position for one in dead}
        lost = len(by_position) - len(parked | set(seen.done))
        assert not lost, f"I8: {handler.name} was never given {lost} of {len(by_position)} events"
        twice = [one for one in dead if one.reason == "behind" and one.position in seen.done]
        assert not twice, f"I8: {handler.name} did an event and parked it behind another"
        first = dict[str, str]()
        for one in dead:
            first.setdefault(one.key, one.reason)
            failures = self._kept[by_position[one.position]][0].failures
            may_fail = failures < 0 or failures >= _ATTEMPTS
            assert may_fail or one.reason != "failed", f"I8: {handler.name} parked an event that can be done"
        astray = [key for key, reason in first.items() if reason == "behind"]
        assert not astray, f"I8: {handler.name} parked behind nothing: {astray}"
        loose = [keys for keys in seen.keys.values() if len(keys) != 1]
        assert not loose, f"I8: {handler.name} was given an event with two idempotency keys"
        self._totals["attempts"] += seen.begun
        self._totals["parked"] += len(parked)


def _trial(
    play: _Play,
    seed: int,
    folder: Path,
    totals: Counter[str],
    planted: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    play.ledger = _Ledger()
    with FaultyDisk(), planted():  # for speed: nothing is really synced
        asyncio.run(_World(play, seed, folder, totals).live())


def _run(work: Work) -> Counted:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # it tells of each attempt that fails
    play, totals = _Play(), Counter[str]()
    return work.counted(
        lambda seed, folder: _trial(play, seed, folder, totals),
        controls=lambda work: _controls(work, play),
        figures=totals,
    )


def _skipping_what_was_done_above() -> AbstractContextManager[object]:
    """The cursor goes to the last event that is done, over those that are not."""

    def mark(self: Lane, **at: Any) -> Any:
        self.cursor = max(self.cursor, self._highest)
        return kept(self, **at)

    kept = Lane.mark
    return replaced(Lane, mark=mark)


def _forgetting_ids() -> AbstractContextManager[object]:
    """What was appended before is not looked for."""
    return replaced(streams, _stored=_nothing_stored)


def _nothing_stored(*_: object, **_options: object) -> dict[tuple[str, str], Any]:
    return {}


def _giving_up_at_once() -> AbstractContextManager[object]:
    """An event is parked when it first fails."""

    def gives_up_on(self: Retry, error: BaseException) -> bool:
        return True

    return replaced(Retry, gives_up_on=gives_up_on)


_PLANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "an event counts as done when it is begun": counting_events_as_done_early,
    "the next event of a key does not wait for the disk": beginning_events_early,
    "the cursor passes over what is not done": _skipping_what_was_done_above,
    "an id is not looked for before it is appended again": _forgetting_ids,
    "an event is parked when it first fails": _giving_up_at_once,
}


def _controls(work: Work, play: _Play) -> Sequence[Control]:
    return [
        first_caught(
            work,
            name,
            lambda seed, folder, planted=planted: _trial(play, seed, folder, Counter(), planted),
            seeds=_TRIALS_OF_A_CONTROL,
        )
        for name, planted in _PLANTS.items()
    ]


ROW = Row(
    14,
    "duplicate, late and reordered events",
    fault="Events come twice, out of order, decades late or early; some fail, and workers die.",
    how="A real engine in virtual time; producers resend what they appended, and commits fail, or lose "
    "their answers.",
    holds=[
        "the stream is the list of the unique events, in the order in which they came first",
        "an id that stands for another event is refused",
        "each handler is done with each event; parked are those that fail for good, and those behind them",
        "after an event was begun, none that comes before it in its order is given again",
        "an event has one idempotency key for a handler, whatever crashes",
    ],
    trials=Trials(push=100, long=3_000, release=100_000),
    run=_run,
)
