"""Steady load on a stream for long, while processes are killed: what a worker that lives takes must not grow.

One worker is never killed, and is measured: its memory, its open files, and the log beside an SQLite file. A
second one and the appender are killed now and then. In the end every event is handled, and in one place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random
from statistics import linear_regression, median
from time import monotonic
from typing import Any

from perdure import Client, Engine, Event, LeaseLost, StoreUnavailable, Stream, event
from perdure.core.positions import place_at
from perdure.runtime.subscriber import Subscriber
from perdure.stores.base import Store
from perdure.stores.opening import open_store
from tests.streams.conservation import accounts

from .lives import Life, Notes, short_lease
from .planted import first_caught, replaced
from .row import Control, Counted, Work, chance

_KEYS = 50
_PER_ROUND, _ROUND_S = 20, 0.2
_LEASE_MS = 1_500
_PAUSE_S = 0.02
_SAMPLES = 200
_KILLS_APART_S = (0.5, 4.0)
_PATIENCE_S = 60.0
_MIB = 1 << 20
_RSS_GROWS_MAX_MIB = 8.0
"""From the second quarter to the last: more than the allocator's own ups and downs."""
_FILES_GROW_MAX = 4
_SLOPE_FROM_S = 300.0
_LOG_MAX_MIB = 64.0
_STREAM = "readings"
_CONTROL_S = 12.0
_LEAKED = 64 * 1024

Planted = Callable[[], AbstractContextManager[object]]


@event("reading")
@dataclass(frozen=True)
class Reading:
    meter: str
    value: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What the worker that lives has at one moment."""

    at_s: float
    rss_mib: float
    files: int
    log_mib: float


class _Load:
    """The processes of one trial."""

    def __init__(self, folder: Path, url: str, planted: Planted) -> None:
        self._folder, self._url, self._planted = folder, url, planted
        self._errors = folder / "errors"
        self._handled = Notes(folder / "handled")
        """[position]"""
        self._readings = Stream(_STREAM, Reading, key=lambda one: one.meter)
        self._handlers = [
            self._readings.on(name="note")(self._note),
            self._readings.window(initial=0, tumbling=1, out_of_order=1, name="sums")(_add),
        ]
        self.lasting = self._worker()
        self.other = self._worker()
        self.appender = self._appender()

    def _worker(self) -> Life:
        return Life(self._serve, errors=self._errors)

    def _appender(self) -> Life:
        return Life(self._append, errors=self._errors)

    async def _note(self, one: Event[Reading]) -> None:
        self._handled.add(one.position)

    async def _serve(self) -> None:
        logging.disable(logging.CRITICAL)
        with self._planted(), short_lease(_LEASE_MS):
            while True:
                try:
                    async with Engine(self._url, workflows=[], handlers=self._handlers) as engine:
                        await engine.serve()
                except (LeaseLost, StoreUnavailable):
                    await asyncio.sleep(_PAUSE_S)

    async def _append(self) -> None:
        async with Client(self._url) as client:
            for number in count():
                some = [Reading(f"meter-{(number + n) % _KEYS}", n) for n in range(_PER_ROUND)]
                await client.append_batch(self._readings, some)
                await asyncio.sleep(_ROUND_S)

    # -- over time ---------------------------------------------------------------------------------

    def soak(self, seconds: float, draw: Random) -> list[Sample]:
        """Let them work so long; kill one now and then. What the lasting worker had meanwhile."""
        began, found = monotonic(), list[Sample]()
        kill_at = draw.uniform(*_KILLS_APART_S)
        while (now := monotonic() - began) < seconds:
            found.append(self._sample(now))
            if now > kill_at:
                self._replace_one(draw)
                kill_at = now + draw.uniform(*_KILLS_APART_S)
            if self.lasting.ends_within(seconds / _SAMPLES):
                self.lasting.end()  # says why
                raise AssertionError("the worker that was to live has ended")
        return found

    def _replace_one(self, draw: Random) -> None:
        if draw.random() < 0.5:
            self.other.kill()
            self.other = self._worker()
        else:
            self.appender.kill()
            self.appender = self._appender()

    def _sample(self, at_s: float) -> Sample:
        process = Path(f"/proc/{self.lasting.process}")
        pages = int((process / "statm").read_text(encoding="ascii").split()[1])
        log = self._folder / "runs.db-wal"
        return Sample(
            at_s,
            pages * resource.getpagesize() / _MIB,
            len(os.listdir(process / "fd")),
            log.stat().st_size / _MIB if log.exists() else 0.0,
        )

    def come_to_the_end(self) -> int:
        """Nothing more is appended: all must be handled. How many events there were."""
        self.appender.kill()
        until = monotonic() + _PATIENCE_S
        store = open_store(self._url)
        try:
            while pending := self._pending(store):
                assert monotonic() < until, f"I8: {pending} events were never handled"
                self.lasting.ends_within(_PAUSE_S * 5)
            places = {place_at(place) for (place,) in self._handled.lines()}
            found = accounts(store, self._handlers[0], handled=places)
            assert not found.parked, f"I8: parked: {found.parked}"
            return len(found.appended)
        finally:
            store.close()

    def _pending(self, store: Store) -> int:
        return len(accounts(store, self._handlers[0]).pending)

    def kill_all(self) -> None:
        for life in (self.lasting, self.other, self.appender):
            life.kill()
        self._handled.close()


def _add(total: int, one: Event[Reading]) -> int:
    return total + one.data.value


def _judge(found: Sequence[Sample]) -> dict[str, float]:
    """Raise AssertionError for what has grown; give the figures."""
    quarter = len(found) // 4
    early, late = found[quarter : 2 * quarter], found[3 * quarter :]
    grown = median(one.rss_mib for one in late) - median(one.rss_mib for one in early)
    files = max(one.files for one in late) - max(one.files for one in found[: 2 * quarter])
    log = max(one.log_mib for one in found)
    steady = found[quarter:]
    slope, _ = linear_regression([one.at_s / 3_600 for one in steady], [one.rss_mib for one in steady])
    assert grown <= _RSS_GROWS_MAX_MIB, f"I13: the worker grew by {grown:.1f} MiB"
    assert files <= _FILES_GROW_MAX, f"I13: the worker has {files} open files more than at the beginning"
    assert log <= _LOG_MAX_MIB, f"I13: the log beside the file has {log:.0f} MiB"
    figures = {
        "resident memory, MiB": median(one.rss_mib for one in late),
        "its growth from the second quarter to the last, MiB": grown,
        "open files": max(one.files for one in late),
        "the log beside the file at most, MiB": log,
    }
    # Over some seconds a slope by the hour says nothing.
    return figures | ({"its slope, MiB/h": slope} if steady[-1].at_s > _SLOPE_FROM_S else {})


def counted_soak(work: Work, new_store: Callable[[str, Path], str], *, seconds: float) -> Counted:
    """The whole of a row. `new_store` makes a store for a trial of this name in this folder."""
    figures: dict[str, float] = {}

    def soak(name: str, seed: int, folder: Path, planted: Planted, seconds: float) -> None:
        load = _Load(folder, new_store(name, folder), planted)
        try:
            found = load.soak(seconds, chance(seed, "soak"))
            events = load.come_to_the_end()
        finally:
            load.kill_all()
        figures.update(_judge(found), events=events)

    def trial(seed: int, folder: Path) -> None:
        soak(f"trial_{seed}", seed, folder, nullcontext, seconds)

    def controls(work: Work) -> Sequence[Control]:
        kept = dict(figures)
        caught = first_caught(
            work,
            "each event leaves something in memory",
            lambda seed, folder: soak("control", seed, folder, _leaking, _CONTROL_S),
            seeds=1,
            law="grew by",
        )
        figures.clear()
        figures.update(kept)
        return [caught]

    counted = work.counted(trial, controls=controls)
    return replace(counted, figures=dict(figures))


@contextmanager
def _leaking() -> Iterator[None]:
    finish, left = Subscriber._finish, list[bytes]()

    def finish_and_keep(self: Subscriber, event: Any) -> None:
        left.append(os.urandom(_LEAKED))
        finish(self, event)

    with replaced(Subscriber, _finish=finish_and_keep):
        yield
