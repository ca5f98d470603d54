"""Events that processes append and handle while they are killed, and what must hold of them afterwards.

The appender numbers the events of each key, and begins anew after its death: what is there is a
duplicate. Workers note when a handler begins with an event, and when it is done with it.
"""

from __future__ import annotations

import asyncio
import logging
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

from .lives import Life, Notes, short_lease
from .planted import beginning_events_early, counting_events_as_done_early, first_caught
from .row import Control, Counted, Work, chance

_KEYS = 6
_EVENTS_OF_A_KEY = 40
_LEASE_MS = 1_500
_TAKES_S = 0.001
_PAUSE_S = 0.02
_STREAM = "numbers"

_KILLS = 10
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 60.0, 1.5
_SEEDS_FOR_A_CONTROL = 20

Planted = Callable[[], AbstractContextManager[object]]

_PLANTS: dict[str, Planted] = {
    "an event counts as done when it is begun": counting_events_as_done_early,
    "the next event of a key does not wait for the disk": beginning_events_early,
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

    def come_to_the_end(self) -> None:
        """Let all be appended and handled; raises AssertionError when that does not come."""
        assert self._appender.end(patience_s=self._patience_s), "the appender was killed by somebody else"
        until = monotonic() + self._patience_s
        store = open_store(self._url)
        try:
            while missing := self._not_done():
                if monotonic() > until:
                    raise AssertionError(f"I8: never handled: {sorted(missing)[:10]}, {len(missing)} in all")
                _redrive(store)
                self.workers[0].ends_within(_PAUSE_S)
            self.look()
            self._look_at_the_stream(store)
            wrong = list(store.check())
            assert not wrong, f"I12: {wrong}"
        finally:
            store.close()

    def kill_all(self) -> None:
        for life in (*self.workers, self._appender):
            life.kill()
        self._ledger.close()
        self._acknowledged.close()

    # -- what must hold --------------------------------------------------------------------------

    def _not_done(self) -> set[tuple[str, int]]:
        done = {(key, number) for what, key, number, _ in self._ledger.lines() if what == "done"}
        wanted = {(f"key-{key}", number) for key in range(_KEYS) for number in range(_EVENTS_OF_A_KEY)}
        return wanted - done

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
            assert number <= done[key] + 1, f"I7: {key}: {number} was begun, and {done[key] + 1} is not done"
            latest[key] = number
        several = [event for event, found in names.items() if len(found) != 1]
        assert not several, f"I8: events with more than one idempotency key: {several}"

    def _look_at_the_stream(self, store: Store) -> None:
        events = store.streams.events(_STREAM, after=0, limit=10 * _KEYS * _EVENTS_OF_A_KEY).events
        kept = [one.id for one in events]
        assert len(kept) == len({*kept}) == _KEYS * _EVENTS_OF_A_KEY, f"I7: {len(kept)} events are kept"
        places = defaultdict[str, list[str]](list)
        for key, number, position in self._acknowledged.lines():
            places[f"{key}/{number}"].append(position)
        moved = [event for event, found in places.items() if len({*found}) != 1]
        assert not moved, f"I7: events that were acknowledged at two positions: {moved}"


def _redrive(store: Store) -> None:
    """Hand over again what was parked since three workers were killed while they had it in hand."""
    dead = store.streams.dead
    for row in store.streams.subscriptions():
        if parked := dead.events(row.number, DeadFilter(), limit=1_000):
            assert {one.kind for one in parked} <= {DeadKind.CRASHED, DeadKind.BEHIND}, (
                f"I8: parked: {parked}"
            )
            author = Author("battery", "its workers were killed by us", 0)
            dead.redrive(row.number, dead.begin_redrive(row.number), DeadFilter(), author, limit=1_000)


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
            scene.come_to_the_end()
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
