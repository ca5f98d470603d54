"""Event streams in a simulation: who appends, who handles, and how all of it must stand in the end.

Facts come from outside and from runs. Handlers of each order, one with `transaction=True`, one that starts
runs and a window take them; some fail, and some of these for good, until a person has mended what is wrong
and redrives what was parked.

The laws: each fact that was acknowledged is in the stream, once; of each handler appended = done + parked +
discarded, and nothing is left; what is done on disk is not handled again, and the next of a key is not begun
before; what is written in a transaction is there once; an event starts one run;
windows are those of a plain computation from all facts that were not told of as late, and so are the pairs
of a join with what the transactions have appended.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from perdure import Client, Event, NonRetryable, Retry, StoreError, Stream, workflow
from perdure.blocks.event import moment
from perdure.blocks.handler import Handler
from perdure.blocks.serving import _defined
from perdure.core.events import EventRow
from perdure.core.positions import place_at, position_text
from perdure.core.records import Status
from perdure.errors import PerdureError
from perdure.stores.base import Store
from perdure.testing.crashing.conserving import accounts, events_of
from perdure.testing.crashing.delivering import Deliveries

from .programs import Stage, play, work
from .witness import Witness

_KEYS = "abcde"
_FOR_GOOD = 99
_STARTS_EVERY = 4
_WINDOW_MS = 30_000
_WITHIN_MS = 20_000


@dataclass(frozen=True)
class Fact:
    key: str
    number: int
    failures: int
    """How often in a row a handler fails at it; each handler by itself."""
    seconds: float
    """How long it takes."""


@dataclass(frozen=True)
class Echo:
    key: str
    number: int


class Life:
    """One worker, as its handlers know it."""

    is_zombie = False
    """Whether it was stopped for too long: what it has in hand may be done once more."""


@workflow
async def report(facts: list[Fact]) -> int:
    """Append facts from a run, with steps in between."""
    for fact in facts:
        await work(f"report {fact.number}", 0, 0.0)
        await Stage.flow.facts.append(fact, id=f"{fact.number}", source="outside")
    return len(facts)


class Flow:
    """The streams of one simulation."""

    def __init__(self, chance: Random, witness: Witness, store: Store) -> None:
        self._chance = chance
        self._witness = witness
        self.deliveries = witness.deliveries = Deliveries(store)
        self._failed = Counter[tuple[str, int]]()
        self.is_mended = False
        """Whether what was wrong is put right: no handler fails any more."""
        self._returned: dict[str, set[int]] = defaultdict(set)
        self._keys: dict[str, tuple[str, int]] = {}
        self.acknowledged: set[int] = set()
        self.handled = 0
        self.facts: Stream[Fact] = Stream("facts", Fact, key=lambda one: one.key)
        self.echoes: Stream[Echo] = Stream("echoes", Echo, key=lambda one: one.key)
        on = self.facts.on
        retry = Retry(attempts=3, delay=1.0)
        self._plain: list[Handler[Any]] = [
            on(name="by_key", retry=retry)(_nothing),
            on(name="in_order", order="stream", retry=retry, on_exhausted="park_event")(_nothing),
            on(name="any_order", order="none", retry=retry)(_nothing),
        ]
        self._ledger = on(name="ledger", transaction=True, retry=retry)(self._enter)
        self._starting = self.facts.start_on(name="starting", id=_run_of)(self._start)
        self.window = self.facts.window(
            initial=list[int](), tumbling=_WINDOW_MS / 1000, out_of_order=5, idle_after=60, name="window"
        )(self._add)  # fmt: skip
        self.join = self.facts.join(
            Fact, self.echoes, Echo, name="join", within=_WITHIN_MS / 1000, unmatched="both", out_of_order=5,
            idle_after=60,
        )  # fmt: skip
        for one in (*self._plain, self._ledger, self._starting, self.window, self.join):
            _defined._handlers.discard(one)  # engines of others are not to serve them
        Stage.flow = self

    @property
    def parking(self) -> list[Handler[Any]]:
        """Those that park what fails."""
        return [*self._plain, self._ledger, self._starting]

    def handlers(self, life: Life) -> list[Any]:
        """For the engine of one worker."""
        plain = [self._of(one, life) for one in self._plain]
        return [*plain, self._ledger, self._starting, self.window, self.join]

    def _of(self, handler: Handler[Any], life: Life) -> Handler[Any]:
        same = copy(handler)

        async def handle(event: Event[Fact]) -> None:
            await self._handle(handler, life, event)

        same.fn = handle
        return same

    # -- handlers ----------------------------------------------------------------------------------

    async def _handle(self, handler: Handler[Any], life: Life, event: Event[Fact]) -> None:
        fact = event.data
        self._begin(handler, event, is_zombie=life.is_zombie)
        if fact.seconds:
            await asyncio.sleep(fact.seconds)
        self._fail(handler.name, fact)
        self._witness.note("handled", handler.name, fact.number)
        self.handled += 1
        self._returned[handler.name].add(place_at(event.position))

    def _begin(self, handler: Handler[Any], event: Event[Fact], *, is_zombie: bool = False) -> None:
        self._witness.note("handling", handler.name, event.position, event.attempt, is_zombie)
        known = self._keys.setdefault(event.idempotency_key, (handler.name, event.data.number))
        if known != (handler.name, event.data.number):
            self._witness.breaks(
                f"I3: {handler.name} of {event.data.number} has the idempotency key of {known}"
            )
        self.deliveries.learn()
        wrong = "" if is_zombie else self.deliveries.wrong(handler, event)
        if wrong:
            self._witness.breaks(f"I8: {wrong}")

    def _fail(self, name: str, fact: Fact) -> None:
        if self.is_mended or self._failed[name, fact.number] >= fact.failures:
            return
        self._failed[name, fact.number] += 1
        if fact.failures == _FOR_GOOD and fact.number % 2:
            raise NonRetryable("never")
        raise OSError("not now")

    def _enter(self, event: Event[Fact], connection: Any) -> None:
        self._begin(self._ledger, event)
        connection.execute("CREATE TABLE IF NOT EXISTS ledger (number INTEGER)")
        connection.execute("INSERT INTO ledger VALUES (?)", (event.data.number,))
        self.echoes.append_within(Echo(event.key, event.data.number))
        self._fail("ledger", event.data)
        self.handled += 1

    def _start(self, event: Event[Fact]) -> Any:
        if event.data.number % _STARTS_EVERY:
            return None
        return play(["work", f"fact {event.data.number}", 0, event.data.seconds])

    @staticmethod
    def _add(state: list[int], event: Event[Fact]) -> list[int]:
        return [*state, event.data.number]

    # -- who appends -------------------------------------------------------------------------------

    def draw(self, numbers: range) -> list[Fact]:
        """Facts with these numbers."""
        chance = self._chance
        return [
            Fact(
                chance.choice(_KEYS),
                number,
                chance.choices((0, 1, 2, _FOR_GOOD), (80, 8, 4, 8))[0],
                chance.choices((0.0, 0.2, 3.0, 20.0), (60, 20, 15, 5))[0],
            )
            for number in numbers
        ]

    async def drive(self, insist: Callable[..., Any], facts: list[Fact], now: Callable[[], int]) -> None:
        """Append facts from outside, and again until it is sure that they are there."""
        for fact in facts:
            await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.1, 2.0, 15.0, 90.0)))
            time = moment(now() - round(self._chance.random() * 40_000))
            await insist(lambda client, fact=fact, time=time: self._append(client, fact, time))
            self.acknowledged.add(fact.number)

    async def _append(self, client: Client, fact: Fact, time: datetime) -> None:
        await client.append(self.facts, fact, id=f"{fact.number}", source="outside", time=time)

    async def tend(self, client: Client) -> None:
        """What a person does with what is parked: now and then, and with one event by mistake."""
        for handler in self.parking:
            subscription = client.subscription(handler)
            try:
                status = await subscription.status()
                if not status.parked:
                    continue
                if self._chance.random() < 0.1:
                    (first,) = await subscription.parked(limit=1)
                    await subscription.discard(first.position, reason="by mistake")
                else:
                    await subscription.redrive(max_failures=None, reason="mended")
            except (StoreError, PerdureError) as error:
                self._witness.note("not tended", handler.name, type(error).__name__)

    # -- how it must end ---------------------------------------------------------------------------

    def is_settled(self, store: Store) -> bool:
        """Whether nothing is under way, or parked."""
        if store.counts().get(Status.RUNNING):
            return False
        for row in store.streams.subscriptions():
            found = accounts(store, row)
            if found.pending or found.parked:
                return False
        rows = store.streams.subscriptions()
        return not any(count for row in rows for _, count in store.streams.open_windows(row.number))

    def look(self, store: Store) -> None:
        """Look at what is left."""
        breaks, events = self._witness.breaks, events_of(store, "facts")
        numbers = {event.position: self.facts.decode(event).number for event in events}
        if len(set(numbers.values())) < len(numbers) or not self.acknowledged <= set(numbers.values()):
            lost = sorted(self.acknowledged - set(numbers.values()))
            breaks(f"I1: facts {lost} are lost, or some are there twice")
        self._witness.note("facts", [(event.id, event.at_ms, event.time_ms) for event in events])
        for row in store.streams.subscriptions():
            events = events_of(store, row.stream)
            found = accounts(store, row)
            self._witness.note(row, sorted(found.done), sorted(found.discarded))
            if found.pending or found.parked or len(found.done) + len(found.discarded) != len(events):
                breaks(f"I8: not all facts are done or discarded by {row.name}: {found}")
            never = found.done - self._returned[row.name] if row.name in self._returned else set[int]()
            if never:
                breaks(f"I8: facts at {sorted(never)} are done on disk, and {row.name} never did them")
            if row.name == "ledger":
                self._look_at_ledger(store, sorted(numbers[place] for place in found.done))
            if row.name == "starting":
                self._look_at_runs(store, {numbers[place] for place in found.done})
        self._look_at_windows(store, events)
        self._look_at_join(store, events)

    def _look_at_ledger(self, store: Any, done: list[int]) -> None:
        has_any = store._database.query("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'", ())
        rows = store._database.query("SELECT number FROM ledger", ()) if has_any else []
        entered = sorted(number for (number,) in rows)
        echoed = sorted(self.echoes.decode(event).number for event in events_of(store, "echoes"))
        if not entered == echoed == done:
            self._witness.breaks(f"I8: done are {done}, in the ledger {entered}, and echoed {echoed}")

    def _look_at_runs(self, store: Store, done: set[int]) -> None:
        for number in done:
            row = store.run_by_id(f"fact-{number}")
            if (row is not None) == bool(number % _STARTS_EVERY):
                self._witness.breaks(f"I8: fact {number} has started {row}")

    def _look_at_windows(self, store: Store, events: list[EventRow]) -> None:
        late = [self.window.late.decode(event) for event in events_of(store, self.window.late.name)]
        aside = {one.id for one in late}
        expected: dict[tuple[str, int], list[int]] = defaultdict(list)
        for event in events:
            if event.id not in aside:
                expected[event.key, event.time_ms - event.time_ms % _WINDOW_MS].append(int(event.id))
        told = [self.window.results.decode(event) for event in events_of(store, self.window.results.name)]
        found = {(one.key, round(one.start.timestamp() * 1000)): one.value for one in told}
        self._witness.note("windows", sorted(found.items()), sorted(aside))
        if len(found) < len(told):
            self._witness.breaks("I8: a window was told twice")
        if found != expected:
            self._witness.breaks(f"I8: windows are {found}, and by a plain computation {dict(expected)}")

    def _look_at_join(self, store: Store, facts: list[EventRow]) -> None:
        """Each event is in pairs, or told alone, or aside; and all pairs of those in any are told, once."""
        breaks, late = self._witness.breaks, events_of(store, self.join.late.name)
        told = [self.join.results.decode(event) for event in events_of(store, self.join.results.name)]
        pairs = Counter((one.left and one.left.number, one.right and one.right.number) for one in told)
        self._witness.note("join", sorted(pairs.items(), key=repr), [(one.source, one.id) for one in late])
        if any(count > 1 for count in pairs.values()):
            breaks(f"I8: a pair was told twice: {pairs}")
        found = {pair for pair in pairs if None not in pair}
        sides: list[dict[int, EventRow]] = []
        streams: tuple[Stream[Any], ...] = (self.facts, self.echoes)
        for side, (stream, events) in enumerate(
            zip(streams, (facts, events_of(store, "echoes")), strict=True)
        ):
            aside = {
                self.join.late.decode(one).position for one in late if one.source == f"{stream.name}/join"
            }
            taken = {
                stream.decode(one).number: one for one in events if position_text(one.position) not in aside
            }
            paired = {pair[side] for pair in found}
            alone = {pair[side] for pair in pairs if pair[1 - side] is None}
            if paired & alone or paired | alone != taken.keys():
                breaks(f"I8: of {stream.name} {paired} are paired, {alone} alone, {aside} aside")
            sides.append({number: one for number, one in taken.items() if number in paired})
        expected = {
            (left, right)
            for left, one in sides[0].items()
            for right, other in sides[1].items()
            if one.key == other.key and abs(one.time_ms - other.time_ms) <= _WITHIN_MS
        }
        if found != expected:
            breaks(f"I8: pairs are {found}, and by a plain computation {expected}")


async def _nothing(event: Event[Fact]) -> None:
    """In the place of a function that each worker has of its own."""


def _run_of(event: Event[Fact]) -> str:
    return f"fact-{event.data.number}"
