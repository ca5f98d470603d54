"""Events that poison who handles them, beside events that are well: each kind of handler, on one store.

A trial has one poison and one kind of handler. Its worker is a fork, begun again whenever it dies; one that
cannot go on, since its loop or its writer stands still, is killed, as an operator would. What must come of
it: the poisoned event is parked, and what was appended of its key behind it; all else is handled, each
key in its order; every event is in one place. Then a person discards the poison, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from perdure import Engine, Event, Handler, Retry, Stream, WorkflowCall, event, step, workflow
from perdure.core.events import Append, Author, DeadFilter, DeadKind, NewEvent, SubscriptionRow
from perdure.stores.base import Batch, RunQuery, Store
from perdure.stores.dead import DEATHS_BEFORE_PARKING
from perdure.stores.opening import open_store
from tests.streams.conservation import Accounts, accounts

from . import poisons
from .lives import FAILED, Life, Notes, short_lease
from .planted import (
    caught_by,
    losing_what_is_given_up,
    overtaking_what_is_parked,
    parking_only_after_many_deaths,
)
from .row import Control, Counted, Work

_LEASE_MS = 1_500
_LOOK_S = 0.01
_STILL_S = 0.15
"""A worker that has begun the poison, and then has noted nothing for so long, stands still."""
_LIMIT_S = 0.05
_TWICE = Retry(attempts=2, delay=0.01)
_KEYS = ("a", "b", "c", "d")
_EACH = 3
"""So many events of each key."""
_POISONED = "poisoned"
_STREAM, _NAME = "drinks", "drinks"
_THEN_MS = 1_700_000_000_000
_LIMIT = 10_000

Planted = Callable[[], AbstractContextManager[object]]


@event("drink")
@dataclass(frozen=True)
class Drink:
    key: str
    number: int
    poison: str = ""


# -- what is poisonous -----------------------------------------------------------------------------


_POISONS: dict[str, Callable[[], None]] = {
    "raises": poisons.fail,
    "recurses": poisons.recurse,
    "exits": poisons.leave,
    "exits at once": poisons.leave_at_once,
    "crashes": poisons.crash,
    "hangs": poisons.hang,
    "spins": poisons.spin,
}
_DEADLY = ("exits at once", "crashes")
_ENDLESS = ("hangs", "spins", "waits for ever")
_UNREADABLE = "cannot be read"
_KINDS = ("on the loop", "on a thread", "in the transaction", "starting runs", "over windows")


@dataclass(frozen=True, slots=True)
class Case:
    """What one trial is about."""

    kind: str
    """Of handler."""
    poison: str

    @property
    def fate(self) -> DeadKind:
        """Why the poisoned event is parked."""
        if self.poison == _UNREADABLE:
            return DeadKind.UNREADABLE
        return DeadKind.CRASHED if self.poison in (*_DEADLY, *_ENDLESS) else DeadKind.FAILED

    @property
    def holds(self) -> bool:
        """Whether later events of the key are parked behind it."""
        return self.kind != "over windows"

    def __str__(self) -> str:
        return f"{self.kind}, {self.poison}"


CASES = [
    *(Case(kind, poison) for kind in _KINDS for poison in (*_POISONS, _UNREADABLE)),
    *(Case("on the loop", poison) for poison in ("waits too long", "waits for ever")),
]


# -- who handles it --------------------------------------------------------------------------------


@workflow
async def remember(key: str, number: int) -> str:
    return await recall(f"{key}/{number}")


@step
async def recall(name: str) -> str:
    return name


class _Bar:
    """The stream, and its one handler, which notes what it begins and what it has done."""

    def __init__(self, kind: str, ledger: Notes) -> None:
        self._ledger = ledger
        self.stream = Stream(_STREAM, Drink, key=lambda drink: drink.key)
        self.handler: Handler[Any] = self._make_handler(kind)

    def _make_handler(self, kind: str) -> Handler[Any]:
        on = self.stream.on
        match kind:
            case "on the loop":
                return on(retry=_TWICE, name=_NAME)(self._drink_on_the_loop)
            case "on a thread":
                return on(retry=_TWICE, name=_NAME)(self._drink)
            case "in the transaction":
                return on(retry=_TWICE, name=_NAME, transaction=True)(self._drink_in_transaction)
            case "starting runs":
                starts = self.stream.start_on(name=_NAME)(self._start)
                starts.retry = _TWICE  # its own is for half a minute
                return starts
            case _:
                return self.stream.window(initial=0, tumbling=3_600, name=_NAME)(self._count)

    async def _drink_on_the_loop(self, one: Event[Drink]) -> None:
        self._ledger.add("begun", one.key, one.data.number)
        if one.data.poison == "waits too long":
            async with asyncio.timeout(_LIMIT_S):
                await asyncio.Event().wait()
        elif one.data.poison == "waits for ever":
            await asyncio.Event().wait()
        self._drink(one)

    def _drink(self, one: Event[Drink]) -> None:
        self._ledger.add("begun", one.key, one.data.number)
        if one.data.poison:
            _POISONS[one.data.poison]()
        self._ledger.add("done", one.key, one.data.number)

    def _drink_in_transaction(self, one: Event[Drink], connection: Any) -> None:
        self._drink(one)

    def _start(self, one: Event[Drink]) -> WorkflowCall[str]:
        self._drink(one)
        return remember(one.key, one.data.number)

    def _count(self, state: int, one: Event[Drink]) -> int:
        self._drink(one)
        return state + 1


class _Place:
    """The store, as a trial looks at it and people act on it. None is open while a process is forked."""

    def __init__(self, url: str, case: Case) -> None:
        self.url = url
        self._case = case
        self.names: dict[int, tuple[str, int]] = {}
        """By position."""

    def append(self, *drinks: Drink) -> None:
        """As a client does, also of what no client could."""
        store = open_store(self.url)
        try:
            for drink in drinks:
                payload = b"[]" if drink.poison == _UNREADABLE else msgspec.json.encode(drink)
                name = f"{drink.key}/{drink.number}"
                new = NewEvent(name, "", "drink", 1, drink.key, _THEN_MS, _THEN_MS, "", payload, True)
                (placed,) = store.submit(Batch(appends=[Append(_STREAM, [new])])).appends
                assert isinstance(placed, list)
                self.names[placed[0].position] = (drink.key, drink.number)
        finally:
            store.close()

    def row(self, store: Store) -> SubscriptionRow | None:
        return next((row for row in store.streams.subscriptions() if row.name == _NAME), None)

    def parked(self, store: Store) -> dict[tuple[str, int], DeadKind]:
        row = self.row(store)
        dead = store.streams.dead.events(row.number, DeadFilter(), limit=_LIMIT) if row else []
        return {self.names[one.position]: DeadKind(one.kind) for one in dead}

    def wanted(self) -> dict[tuple[str, int], DeadKind]:
        """What is parked in the end."""
        behind = {name: DeadKind.BEHIND for name in self.names.values() if name[0] == _POISONED}
        return (behind if self._case.holds else {}) | {(_POISONED, 0): self._case.fate}

    def discard_and_redrive(self) -> None:
        """What a person does: the poison is given up, the rest of its key goes on."""
        store = open_store(self.url)
        try:
            dead, row = store.streams.dead, self.row(store)
            assert row is not None
            author = Author("battery", "poison", _THEN_MS)
            (place,) = (place for place, name in self.names.items() if name == (_POISONED, 0))
            dead.discard(row.number, DeadFilter((place,)), author)
            if self._case.holds:
                dead.redrive(row.number, dead.begin_redrive(row.number), DeadFilter(), author, limit=_LIMIT)
        finally:
            store.close()


class _Trial:
    """One store, its worker, and its operator."""

    def __init__(self, folder: Path, url: str, case: Case, planted: Planted, patience_s: float) -> None:
        self._case, self._planted = case, planted
        self._place = _Place(url, case)
        self._ledger = Notes(folder / "ledger")
        """["begun" or "done", key, number]"""
        self._errors = folder / "errors"
        self._bar = _Bar(case.kind, self._ledger)
        self._until = monotonic() + patience_s
        self._life: Life | None = None
        self._deaths = 0
        self._is_discarded = False

    def play(self) -> None:
        """The whole of it."""
        place, case = self._place, self._case
        keys = (_POISONED, *_KEYS)
        all_of_them = [(key, number) for number in range(_EACH) for key in keys]
        place.append(*(Drink(*name, case.poison if name == (_POISONED, 0) else "") for name in all_of_them))
        self._live_until(lambda store: place.parked(store) == place.wanted() and self._is_quiet(store))
        self._judge()
        place.discard_and_redrive()
        self._is_discarded = True
        place.append(Drink("late", 0))
        self._live_until(self._is_quiet)
        found = self._judge()
        assert (len(found.discarded), len(found.parked)) == (1, 0), f"I8: {case}: {found}"

    def end(self) -> None:
        if self._life is not None:
            self._life.kill()
        self._ledger.close()

    # -- the worker --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        logging.getLogger("perdure").setLevel(logging.CRITICAL)
        with self._planted(), short_lease(_LEASE_MS):
            async with Engine(self._place.url, workflows=[remember], handlers=[self._bar.handler]) as engine:
                await engine.serve()

    def _live_until(self, is_reached: Callable[[Store], bool]) -> None:
        """Begin the worker again whenever it dies; raises AssertionError when that comes to nothing."""
        while True:
            begun = self._times_begun()
            self._life = self._life or Life(self._serve, errors=self._errors)
            store = open_store(self._place.url)
            try:
                if self._lives_until(store, is_reached, self._life, begun):
                    return
            finally:
                store.close()
            self._deaths += 1
            said = self._errors.read_text()[-500:] if self._life.code == FAILED else ""
            assert not said, f"I8: {self._case}: a worker ended by itself: {said}"
            too_many = self._deaths > DEATHS_BEFORE_PARKING
            assert not too_many, f"I8: {self._case}: {self._deaths} workers died of it"
            self._life = None

    def _lives_until(self, store: Store, is_reached: Callable[[Store], bool], life: Life, begun: int) -> bool:
        """Whether it came to that; False when the worker died, or stood still and was killed."""
        known, since = 0, monotonic()
        while not life.ends_within(_LOOK_S):
            if is_reached(store):
                return True
            now, lines = monotonic(), len(self._ledger.lines())
            if lines != known:
                known, since = lines, now
            if self._case.poison in _ENDLESS and self._times_begun() > begun and now > since + _STILL_S:
                life.kill()
                return False
            assert now < self._until, f"I8: {self._case}: {self._tell(store)}"
        return False

    def _times_begun(self) -> int:
        return sum(line == ["begun", _POISONED, 0] for line in self._ledger.lines())

    # -- what must hold ----------------------------------------------------------------------------

    def _done(self) -> set[tuple[str, int]]:
        return {(key, number) for what, key, number in self._ledger.lines() if what == "done"}

    def _missing(self) -> set[tuple[str, int]]:
        """What is well, may be handled, and is not done."""
        waits = {_POISONED} if self._case.holds and not self._is_discarded else set[str]()
        well = {name for name in self._place.names.values() if name[0] not in waits}
        return well - {(_POISONED, 0)} - self._done()

    def _is_quiet(self, store: Store) -> bool:
        """Whether all that is to be done is done, and that is on disk."""
        return not self._missing() and not self._stand(store).pending

    def _stand(self, store: Store) -> Accounts:
        """Where each event is; raises AssertionError for one that is lost, or is in two places."""
        handled = [place for place, name in self._place.names.items() if name in self._done()]
        return accounts(store, self._bar.handler, handled=handled)

    def _judge(self) -> Accounts:
        """What must hold whenever nothing is left to do."""
        case = self._case
        store = open_store(self._place.url)
        try:
            found = self._stand(store)
            wrong = list(store.check())
            runs = {run.id for run in store.list_runs(RunQuery(limit=_LIMIT))}
        finally:
            store.close()
        assert not wrong, f"I12: {case}: {wrong}"
        assert not found.pending, f"I8: {case}: never handled: {found.pending}"
        begun = defaultdict[str, list[int]](list)
        for what, key, number in self._ledger.lines():
            if what == "begun" and number not in begun[key]:
                begun[key].append(number)
        astray = {key: numbers for key, numbers in begun.items() if numbers != sorted(numbers)}
        assert not astray, f"I7: {case}: out of order: {astray}"
        if case.kind == "starting runs":
            started = {f"{_STREAM}/{_NAME}/{key}%2F{number}" for key, number in self._done()}
            assert runs == started, f"I3: {case}: runs {runs ^ started} are there, or are not"
        return found

    def _tell(self, store: Store) -> str:
        parked, missing = self._place.parked(store), sorted(self._missing())
        return f"parked {parked}, not done {missing}, {self._deaths} deaths"


_STRIDE = 11
"""So that the first few trials have something of each kind; in the end it comes to all."""
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 60.0, 1.5
_PLANTS: dict[str, tuple[Planted, Case]] = {
    "an event is parked only after a hundred deaths": (
        parking_only_after_many_deaths,
        Case("on the loop", "exits at once"),
    ),
    "what is given up is not written down": (losing_what_is_given_up, Case("on a thread", "raises")),
    "later events of a key do not wait for a parked one": (
        overtaking_what_is_parked,
        Case("in the transaction", "raises"),
    ),
}


def counted_poisons(work: Work, new_store: Callable[[str, Path], str]) -> Counted:
    """The whole of a row. `new_store` makes one, for a trial of this name in this folder; gives its URL."""

    def drink(name: str, case: Case, folder: Path, planted: Planted, patience_s: float) -> None:
        trial = _Trial(folder, new_store(name, folder), case, planted, patience_s)
        try:
            trial.play()
        finally:
            trial.end()

    def trial(seed: int, folder: Path) -> None:
        case = CASES[seed * _STRIDE % len(CASES)]
        drink(f"trial_{seed}", case, folder, nullcontext, _PATIENCE_S)

    def controls(work: Work) -> Sequence[Control]:
        found: list[Control] = []
        for place, (name, (planted, case)) in enumerate(_PLANTS.items()):
            with work.fresh_folder() as folder:
                play = partial(drink, f"control_{place}", case, folder, planted, _PATIENCE_OF_A_CONTROL_S)
                broken = caught_by(play)
            found.append(Control(name, bool(broken), broken or "nothing"))
        return found

    return work.counted(trial, controls=controls)
