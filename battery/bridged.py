"""What comes in from a broker and goes out to it again, while the broker and the workers fail.

Messages are published in the order of their keys, each until the broker has acknowledged it. A worker takes
them into a stream and publishes the stream's events. Between rounds the broker is killed, stopped, cut off or
answers with errors, and the worker is killed; at the start the broker may not be there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from perdure import Engine, LeaseLost, StoreUnavailable, Stream, event
from perdure.bridges import Intake, patience
from perdure.bridges.intaking import Intaking
from perdure.stores.opening import open_store

from .brokers import Broker, Kafka, Message, Nats
from .lives import Life, Notes, short_lease
from .planted import counting_events_as_done_early, first_caught, replaced
from .row import Control, Counted, Work, chance

_KEYS, _ROUNDS, _OF_A_ROUND = 4, 3, 40
_LEASE_MS = 1_500
_LONGEST_WAIT_S = 0.3
_LONGEST_LIFE_S = 0.25
_PAUSE_S = 0.02
_LATE_S = 0.2
_PATIENCE_S, _PATIENCE_OF_A_CONTROL_S = 40.0, 8.0
_SEEDS_FOR_A_CONTROL = 12
_STREAM = "bridged"
_WITHOUT_SYNC = "lost at kill -9 with the server's own sync, messages"

Planted = Callable[[], AbstractContextManager[object]]


@event("bridged")
@dataclass(frozen=True)
class Bridged:
    key: str
    number: int


class _Scene:
    """A store, a worker with both bridges, and the broker."""

    def __init__(self, folder: Path, url: str, broker: Broker, planted: Planted, patience_s: float) -> None:
        self._url, self._broker, self._planted = url, broker, planted
        self._patience_s = patience_s
        self._errors = folder / "errors"
        self._sent, self._out, self._told = (Notes(folder / name) for name in ("sent", "out", "told"))
        self._stream = Stream(_STREAM, Bridged, key=lambda one: one.key)
        self._bridges = broker.bridge(self._stream)
        self._worker: Life | None = None
        self._published = 0

    def play(self, seed: int) -> None:
        draw = chance(seed, "bridges")
        if draw.random() < 0.5:
            self._begin_worker()  # which finds no broker
            self._live_for(draw.random() * _LONGEST_LIFE_S)
        self._broker.start()
        for _ in range(_ROUNDS):
            self._publish_some()
            self._begin_worker()
            self._live_for(draw.random() * _LONGEST_LIFE_S)
            self._broker.trouble(draw)
            self._live_for(draw.random() * _LONGEST_LIFE_S)
            if draw.random() < 0.6:
                self._kill_worker()
            self._broker.heal()
            self._look_at_what_is_acknowledged()
        self._publish_some()
        self._begin_worker()
        self._come_to_the_end()

    def close(self) -> None:
        self._kill_worker()
        self._broker.kill()
        for notes in (self._sent, self._out, self._told):
            notes.close()

    # -- the processes -----------------------------------------------------------------------------

    def _begin_worker(self) -> None:
        if self._worker is None:
            self._worker = Life(self._serve, errors=self._errors)

    def _kill_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _live_for(self, seconds: float) -> None:
        if self._worker is not None and self._worker.ends_within(seconds):
            self._worker.end()  # says why
            raise AssertionError("a worker ended by itself")

    async def _serve(self) -> None:
        logging.disable(logging.CRITICAL)
        with self._planted(), short_lease(_LEASE_MS), replaced(patience, _LONGEST_WAIT_S=_LONGEST_WAIT_S):
            while True:
                try:
                    async with Engine(self._url, workflows=[], handlers=self._bridges) as engine:
                        await engine.serve()
                except (LeaseLost, StoreUnavailable):
                    await asyncio.sleep(_PAUSE_S)

    def _publish_some(self) -> None:
        first = self._published
        self._published += _OF_A_ROUND
        new = [(f"key-{number % _KEYS}", number) for number in range(first, self._published)]
        self._do(partial(self._broker.publish, new, self._sent))

    def _do(self, main: Callable[[], Any]) -> None:
        assert Life(main, errors=self._errors).end(patience_s=self._patience_s), "killed by somebody else"

    # -- what must hold ----------------------------------------------------------------------------

    def _look_at_what_is_acknowledged(self) -> None:
        """The broker was asked before the store: meanwhile there can only be more in it."""
        self._do(partial(self._broker.acknowledged, self._told))
        told = [count for (count,) in self._told.lines()]
        kept = len(self._kept())
        assert not told or told[-1] <= kept, f"I8: {told[-1]} messages are acknowledged, {kept} are on disk"

    def _come_to_the_end(self) -> None:
        sent = _by_key((key, number) for key, number in self._sent.lines())
        until = monotonic() + self._patience_s
        while len(self._kept()) < self._published:
            self._live_for(_PAUSE_S)
            if monotonic() > until:
                missing = sorted({*map(tuple, self._sent.lines())} - {*self._kept()})
                raise AssertionError(f"I7: {len(missing)} messages never became events: {missing[:5]}")
        kept = _by_key(self._kept())
        assert kept == sent, f"I7: of the messages became {kept}"
        self._look_at_what_is_acknowledged()
        try:
            self._do(partial(self._broker.read, self._published, self._out))
        except AssertionError:
            missing = {*self._kept()} - {(key, number) for key, number in self._out.lines()}
            raise AssertionError(f"I8: {len(missing)} events never went out: {sorted(missing)[:5]}") from None
        out = _by_key(dict.fromkeys((key, number) for key, number in self._out.lines()))
        assert out == sent, f"I8: out of order went {out}"

    def _kept(self) -> list[Message]:
        store = open_store(self._url)
        try:
            rows = store.streams.events(_STREAM, after=0, limit=10 * self._published).events
        finally:
            store.close()
        return [(row.key, self._stream.decode(row).number) for row in rows]


def _by_key(messages: Any) -> dict[str, list[int]]:
    found = defaultdict[str, list[int]](list)
    for key, number in messages:
        found[key].append(number)
    return dict(found)


def counted_bridges(work: Work, new_store: Callable[[str, Path], str]) -> Counted:
    """The whole of a row; NATS and Kafka in turn. `new_store` makes a store, and gives its URL."""

    def play(name: str, seed: int, folder: Path, planted: Planted, patience_s: float) -> None:
        # Made where the URL is known, and started by the trial.
        broker = Kafka() if seed % 2 else Nats(folder, sync_always=True)
        scene = _Scene(folder, new_store(f"{name}_{seed}", folder), broker, planted, patience_s)
        try:
            scene.play(seed)
        finally:
            scene.close()

    def trial(seed: int, folder: Path) -> None:
        play("trial", seed, folder, nullcontext, _PATIENCE_S)

    def controls(work: Work) -> Sequence[Control]:
        return [
            first_caught(
                work,
                name,
                lambda seed, folder, place=place, planted=plant.planted: play(
                    f"control_{place}", seed, folder, planted, _PATIENCE_OF_A_CONTROL_S
                ),
                seeds=_SEEDS_FOR_A_CONTROL,
                law=plant.law,
            )
            for place, (name, plant) in enumerate(_PLANTS.items())
        ]

    counted = work.counted(trial, controls=controls)
    with work.fresh_folder() as folder:
        lost = _lost_without_sync(folder)
    return replace(counted, figures={**counted.figures, _WITHOUT_SYNC: lost})


def _lost_without_sync(folder: Path) -> int:
    """How many acknowledged messages a server has no more after `kill -9`, if it syncs now and then."""
    broker, sent, out = Nats(folder, sync_always=False), Notes(folder / "sent"), Notes(folder / "out")
    messages = [("key", number) for number in range(_ROUNDS * _OF_A_ROUND)]
    try:
        broker.start()
        assert Life(partial(broker.publish, messages, sent), errors=folder / "errors").end()
        broker.kill()
        broker.start()
        Life(partial(broker.count, out), errors=folder / "errors").end()
        ((kept,),) = out.lines()
    finally:
        broker.kill()
        sent.close()
        out.close()
    return len(messages) - kept


# -- what is planted -------------------------------------------------------------------------------


@contextmanager
def _acknowledging_first() -> Iterator[None]:
    """A message is acknowledged before it is on disk."""

    async def take_in(self: Intaking) -> None:
        source = await self._definition.connect(self._driver)
        try:
            while not self._patience.ended:
                messages = await source.fetch()
                if messages:
                    await source.acknowledge(messages)
                    await asyncio.sleep(_LATE_S)
                    await self._keep(messages)
        finally:
            await source.close()

    with replaced(Intaking, _take_in=take_in):
        yield


@contextmanager
def _forgetting_ids() -> Iterator[None]:
    """A message that comes again has another id; it is acknowledged late, so that some do."""
    identity, drawn, keep = Intake._identity, count(), Intaking._keep

    def another(self: Intake[Any], message: Any, attributes: Any) -> tuple[str, str]:
        _, source = identity(self, message, attributes)
        return f"{monotonic()}-{next(drawn)}", source

    async def keep_slowly(self: Intaking, messages: Any) -> None:
        await keep(self, messages)
        await asyncio.sleep(_LATE_S)

    with replaced(Intake, _identity=another), replaced(Intaking, _keep=keep_slowly):
        yield


class _Plant(NamedTuple):
    planted: Planted
    law: str
    """What must be said of it: that it takes too long would prove nothing."""


_PLANTS: dict[str, _Plant] = {
    "a message is acknowledged before it is on disk": _Plant(_acknowledging_first, "are acknowledged"),
    "a message that comes again has another id": _Plant(_forgetting_ids, "I7: of the messages became"),
    "an event counts as published when it is begun": _Plant(counting_events_as_done_early, "never went out"),
}
