"""Events that processes append and handle while they are killed, and what must hold of them afterwards.

The appender numbers the events of each key, and begins anew after its death: what is there is a
duplicate. Workers note when a handler begins with an event, and when it is done with it. After each
kill all stand still for a moment, and every event must be in one place: done, parked, discarded or pending.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

from perdure import Client, Engine, Event, Handler, LeaseLost, StoreUnavailable, Stream, event
from perdure.core.events import Author, DeadFilter, DeadKind
from perdure.stores.base import Store
from perdure.stores.opening import open_store
from tests.streams.conservation import Accounts, accounts

from .lives import Life, Notes, short_lease
from .planted import (
    beginning_events_early,
    counting_events_as_done_early,
    first_caught,
    leaving_out_an_event_at_takeover,
)
from .row import Control, Counted, Work, chance

_KEYS = 6
_EVENTS_OF_A_KEY = 40
_LEASE_MS = 1_500
_TAKES_S = 0.001
_PAUSE_S = 0.02
_STREAM = "numbers"
_ALL = 10 * _KEYS * _EVENTS_OF_A_KEY

_KILLS = 10
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 60.0, 1.5
_SEEDS_FOR_A_CONTROL = 20
_AGAIN_S = 0.1
_DISCARDED = 0.3

Planted = Callable[[], AbstractContextManager[object]]

_PLANTS: dict[str, Planted] = {
    "an event counts as done when it is begun": counting_events_as_done_early,
    "the next event of a key does not wait for the disk": beginning_events_early,
    "who takes a lane up leaves out an event": leaving_out_an_event_at_takeover,
}


@event("numbered")
@dataclass(frozen=True)
class Numbered:
    key: str
    number: int


class Scene:
    """One store, an appender, and workers; they may be killed at any instant."""

    def __init__(self, folder: Path, url: str, *, workers: int, planted: Planted, patience_s: float) -> None:
        self._url = url
        self._planted = planted
        self._patience_s = patience_s
        self._ledger = Notes(folder / "ledger")
        """["begun" or "done", key, number, idempotency key]"""
        self._acknowledged = Notes(folder / "acknowledged")
        """[key, number, position]"""
        self._errors = folder / "errors"
        self._stream = Stream(_STREAM, Numbered, key=lambda one: one.key)
        self._handler: Handler[Numbered] = self._stream.on()(partial(_handle, self._ledger))
        self.workers = [self._worker() for _ in range(workers)]
        self._appender = Life(self._append, errors=self._errors)
        self._discarded: set[tuple[str, int]] = set()

    # -- what the processes do -------------------------------------------------------------------

    def _worker(self) -> Life:
        return Life(self._serve, errors=self._errors)

    async def _serve(self) -> None:
        logging.getLogger("perdure").setLevel(logging.CRITICAL)
        with self._planted(), short_lease(_LEASE_MS):
            while True:
                try:
                    async with Engine(self._url, workflows=[], handlers=[self._handler]) as engine:
                        await engine.serve()
                except (LeaseLost, StoreUnavailable):
                    await asyncio.sleep(_PAUSE_S)

    async def _append(self) -> None:
        async with Client(self._url) as client:
            await asyncio.gather(*(self._append_key(client, f"key-{number}") for number in range(_KEYS)))

    async def _append_key(self, client: Client, key: str) -> None:
        for number in range(_EVENTS_OF_A_KEY):
            placed = await client.append(self._stream, Numbered(key, number), id=f"{key}/{number}")
            self._acknowledged.add(key, number, placed.position)
            await asyncio.sleep(_TAKES_S)

    # -- what is done to them --------------------------------------------------------------------

    def live_for(self, seconds: float) -> None:
        """Let them work."""
        self.workers[0].ends_within(seconds)

    def replace_one(self, draw: Random) -> None:
        """`kill -9` the appender or a worker, and start another."""
        if draw.random() < 0.25:
            self._appender.kill()
            self._appender = Life(self._append, errors=self._errors)
        else:
            place = draw.randrange(len(self.workers))
            self.workers[place].kill()
            self.workers[place] = self._worker()
        self.look()
        self._account_for_all()

    def come_to_the_end(self, draw: Random) -> None:
        """Let all be appended and handled; raises AssertionError when that does not come."""
        assert self._appender.end(patience_s=self._patience_s), "the appender was killed by somebody else"
        until = monotonic() + self._patience_s
        store = open_store(self._url)
        try:
            while missing := self._not_done():
                if monotonic() > until:
                    raise AssertionError(f"I8: never handled: {sorted(missing)[:10]}, {len(missing)} in all")
                self._see_to_what_is_parked(store, draw)
                self.workers[0].ends_within(_PAUSE_S)
            self.look()
            self._look_at_the_stream(store)
            wrong = list(store.check())
            assert not wrong, f"I12: {wrong}"
            self._come_to_rest(store, until)
        finally:
            store.close()

    def kill_all(self) -> None:
        for life in (*self.workers, self._appender):
            life.kill()
        self._ledger.close()
        self._acknowledged.close()

    def _see_to_what_is_parked(self, store: Store, draw: Random) -> None:
        """Hand over again, or discard, what is parked since three workers were killed with it in hand."""
        dead = store.streams.dead
        for row in store.streams.subscriptions():
            parked = dead.events(row.number, DeadFilter(), limit=_ALL)
            if not parked:
                continue
            kinds = {one.kind for one in parked}
            assert kinds <= {DeadKind.CRASHED, DeadKind.BEHIND}, f"I8: parked: {parked}"
            author = Author("battery", "its workers were killed by us", 0)
            first = parked[0].position
            if draw.random() < _DISCARDED and dead.discard(row.number, DeadFilter((first,)), author):
                events = store.streams.events(_STREAM, after=first - 1, limit=1).events
                self._discarded.update((one.key, int(one.id.partition("/")[2])) for one in events)
            dead.redrive(row.number, dead.begin_redrive(row.number), DeadFilter(), author, limit=_ALL)

    # -- what must hold --------------------------------------------------------------------------

    def _not_done(self) -> set[tuple[str, int]]:
        done = {(key, number) for what, key, number, _ in self._ledger.lines() if what == "done"}
        wanted = {(f"key-{key}", number) for key in range(_KEYS) for number in range(_EVENTS_OF_A_KEY)}
        return wanted - done - self._discarded

    def _come_to_rest(self, store: Store, until: float) -> None:
        """What is done comes to disk; then there is nothing but what is done, and what was discarded."""
        while (found := self._accounts(store)).pending or found.parked:
            assert monotonic() < until, f"I8: not on disk: {found}"
            self._see_to_what_is_parked(store, Random(0))
            self.workers[0].ends_within(_PAUSE_S)
        assert len(found.discarded) == len(self._discarded), f"I8: discarded: {found.discarded}"
        assert len(found.done) + len(found.discarded) == _KEYS * _EVENTS_OF_A_KEY, f"I8: {found}"

    def _account_for_all(self) -> None:
        """Let all stand still, and see that each event is in one place."""
        living = [life for life in (*self.workers, self._appender) if not life.ends_within(0)]
        for life in living:
            life.stop()
        store = open_store(self._url)
        try:
            if not any(row.stream == _STREAM for row in store.streams.subscriptions()):
                return
            try:
                self._accounts(store)
            except AssertionError:  # a server may still be at what it was asked before
                self.workers[0].ends_within(_AGAIN_S)
                self._accounts(store)
        finally:
            store.close()
            for life in living:
                life.signal(signal.SIGCONT)

    def _accounts(self, store: Store) -> Accounts:
        places = {one.id: one.position for one in store.streams.events(_STREAM, after=0, limit=_ALL).events}
        done = {f"{key}/{number}" for what, key, number, _ in self._ledger.lines() if what == "done"}
        try:
            return accounts(store, self._handler, handled=[places[name] for name in done])
        except AssertionError as wrong:
            raise AssertionError(f"I8: {wrong}") from wrong

    def look(self) -> None:
        """Look at what the handlers have done so far."""
        latest = Counter[str]()
        done: dict[str, int] = defaultdict(lambda: -1)
        names: dict[tuple[str, int], set[str]] = defaultdict(set)
        for what, key, number, name in self._ledger.lines():
            names[key, number].add(name)
            if what == "done":
                done[key] = max(done[key], number)
                continue
            assert number >= latest[key], f"I7: {key}: {number} was begun again after {latest[key]}"
            while (key, done[key] + 1) in self._discarded:
                done[key] += 1
            assert number <= done[key] + 1, f"I7: {key}: {number} was begun, and {done[key] + 1} is not done"
            latest[key] = number
        several = [event for event, found in names.items() if len(found) != 1]
        assert not several, f"I8: events with more than one idempotency key: {several}"

    def _look_at_the_stream(self, store: Store) -> None:
        events = store.streams.events(_STREAM, after=0, limit=_ALL).events
        kept = [one.id for one in events]
        assert len(kept) == len({*kept}) == _KEYS * _EVENTS_OF_A_KEY, f"I7: {len(kept)} events are kept"
        places = defaultdict[str, list[str]](list)
        for key, number, position in self._acknowledged.lines():
            places[f"{key}/{number}"].append(position)
        moved = [event for event, found in places.items() if len({*found}) != 1]
        assert not moved, f"I7: events that were acknowledged at two positions: {moved}"


def counted_lives(
    work: Work, new_store: Callable[[str, Path], str], *, workers: int, longest_life_s: float
) -> Counted:
    """The whole of a row: each trial is one store, on which processes are killed until all is handled.

    `new_store` makes one, for a trial of this name with this folder, and gives its URL.
    """

    def live_and_die(name: str, seed: int, folder: Path, planted: Planted, patience_s: float) -> None:
        draw = chance(seed)
        url = new_store(f"{name}_{seed}", folder)
        scene = Scene(folder, url, workers=workers, planted=planted, patience_s=patience_s)
        try:
            for _ in range(_KILLS):
                scene.live_for(draw.random() * longest_life_s)
                scene.replace_one(draw)
            scene.come_to_the_end(draw)
        finally:
            scene.kill_all()

    def trial(seed: int, folder: Path) -> None:
        live_and_die("trial", seed, folder, nullcontext, _PATIENCE_S)

    def controls(work: Work) -> Sequence[Control]:
        return [
            first_caught(
                work,
                name,
                lambda seed, folder, place=place, planted=planted: live_and_die(
                    f"control_{place}", seed, folder, planted, _PATIENCE_OF_A_CONTROL_S
                ),
                seeds=_SEEDS_FOR_A_CONTROL,
            )
            for place, (name, planted) in enumerate(_PLANTS.items())
        ]

    counted = work.counted(trial, controls=controls)
    return replace(counted, figures={"kills": _KILLS * counted.trials})


async def _handle(ledger: Notes, event: Event[Numbered]) -> None:
    ledger.add("begun", event.key, event.data.number, event.idempotency_key)
    await asyncio.sleep(_TAKES_S)
    ledger.add("done", event.key, event.data.number, event.idempotency_key)
