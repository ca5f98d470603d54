"""Looks on, from outside the engine, and raises where a law is broken.

It sees each commit as it reaches the disk, each effect as it happens, and what
workflow code sees, life after life. The laws are those of the table of reliability
(I1 to I6, and I9); each message says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from perdure import StepInfo
from perdure.core.records import Kind, Record, Status
from perdure.stores.base import Batch
from perdure.testing.crashing.delivering import Deliveries


class BrokenLaw(AssertionError):
    """What must always hold did not."""


class Witness:
    """Keeps what was seen in one simulation."""

    def __init__(self) -> None:
        self._trace = blake2b(digest_size=16)
        self.broken: list[str] = []
        self.steps = 0
        """How many steps were recorded."""
        self.commits = 0
        self.effects = 0
        self._records: dict[tuple[int, int], Record] = {}
        self._keys: dict[tuple[int, str], str] = {}
        self._callers: dict[str, tuple[str, str]] = {}
        self._on_disk: set[str] = set()
        self._failures: dict[str, int] = {}
        self._lives: dict[int, list[Any]] = {}
        self.deliveries: Deliveries | None = None
        """What of events is done on disk, where there are any."""
        self.zombies: set[int] = set()
        """Workers that were stopped for too long, by the id of their driver: what they have in hand they may
        do once more, as any step that is interrupted; it is what they write that must not count."""

    def note(self, *what: object) -> None:
        """Put something into the trace."""
        self._trace.update(repr(what).encode())

    @property
    def trace(self) -> str:
        """A hash of all that happened, in order."""
        return self._trace.hexdigest()

    def breaks(self, law: str) -> None:
        """Note that a law was broken; the simulation ends soon after."""
        self.note("broken", law)
        self.broken.append(law)

    # -- the disk ----------------------------------------------------------------------------------

    def committed(self, batch: Batch, *, lease: int, store: Any) -> None:
        """A batch is on disk."""
        self.commits += 1
        self.note("commit", lease, *_told_of(batch))
        if self.deliveries is not None:
            self.deliveries.committed(batch)
        self._look_at_leases(batch, lease, store)
        self._take_in(batch)
        for run, seq in batch.forgotten:
            for place in [place for place in self._records if place[0] == run and place[1] >= seq]:
                del self._records[place]
            self._lives.pop(run, None)
        # The store forgets first, and then writes what moved up.
        for record in batch.records if batch.forgotten else ():
            self._records[record.run, record.seq] = record
            if record.kind == Kind.STEP:
                self._on_disk.add(_key_of(record))

    def is_held(self, lease: int, store: Any) -> bool:
        """Whether a lease is, by the rows alone."""
        return store._database.query("SELECT held FROM lease WHERE number = ?", (lease,)) == [(1,)]

    def _look_at_leases(self, batch: Batch, lease: int, store: Any) -> None:
        """Who writes has not lost its lease, and each run is written by the lease that it belongs to."""
        if not self.is_held(lease, store):
            self.breaks(f"I6: a worker wrote under lease {lease}, which it had lost")
        given_up = {*batch.freed, *(end.run for end in batch.ends if end.status == Status.PARKED)}
        written = {record.run for record in batch.records} | {end.run for end in batch.ends}
        written |= {run for _, _, run in batch.wakes} | {attempt.run for attempt in batch.attempts}
        for run in sorted(written - given_up):
            row = store.run_by_number(run)
            if row.lease != lease:
                self.breaks(
                    f"I6: a worker wrote run {run} under lease {lease}, but it belongs to {row.lease}"
                )

    def _take_in(self, batch: Batch) -> None:
        forgotten = {run for run, _ in batch.forgotten}
        for record in batch.records:
            if record.run in forgotten:
                continue
            known = self._records.setdefault((record.run, record.seq), record)
            if known != record:
                self.breaks(f"I2: record {record.seq} of run {record.run} was {known}, and now is {record}")
            if record.kind == Kind.STEP:
                self.steps += 1
                self._take_in_step(record)

    def _take_in_step(self, record: Record) -> None:
        key = _key_of(record)
        known = self._keys.setdefault((record.run, record.key), key)
        if known != key or key in self._on_disk:
            self.breaks(f"I2: step {record.key} of run {record.run} was recorded twice")
        self._on_disk.add(key)

    # -- steps -------------------------------------------------------------------------------------

    def begun(self, info: StepInfo) -> None:
        """An attempt of a step begins."""
        caller = (info.run_id, info.key)
        self.note("begun", caller, info.attempt)
        if self._callers.setdefault(info.idempotency_key, caller) != caller:
            self.breaks(f"I3: {caller} has the idempotency key of {self._callers[info.idempotency_key]}")

    def fails(self, key: str, failures: int) -> bool:
        """Whether this attempt is one of those that fail."""
        failed = self._failures.get(key, 0)
        if failed < failures:
            self._failures[key] = failed + 1
        return failed < failures

    def effect(self, info: StepInfo, what: str) -> None:
        """A step did what cannot be undone."""
        self.effects += 1
        self.note("effect", info.run_id, info.key, info.idempotency_key, what)
        driver = info._attempting._effects.recorder  # type: ignore[attr-defined]
        if id(driver) not in self.zombies and info.idempotency_key in self._on_disk:
            self.breaks(f"I3: {info.key} of run {info.run_id} is on record, and was done again")

    # -- workflow code -----------------------------------------------------------------------------

    def new_life(self, number: int) -> list[Any]:
        """A run begins, or is replayed. Gives the list that its code's sights go to."""
        log: list[Any] = [number]
        return log

    def saw(self, log: list[Any], what: Any) -> None:
        """Workflow code got on: it must see what it saw in its lives before."""
        log.append(what)
        seen = self._lives.setdefault(log[0], log)
        place = len(log) - 1
        if seen is log:
            return
        if place < len(seen):
            if seen[place] != what:
                self.breaks(f"I4: run {log[0]} saw {seen[place]} at {place}, and in its replay {what}")
        else:
            self._lives[log[0]] = log

    def delivered(self, key: str) -> None:
        """A step's result has reached the workflow."""
        if key not in self._on_disk:
            self.breaks(f"I1: a workflow went past a step ({key}) whose result is not on disk")

    def slept(self, asked: float, got: float) -> None:
        """A sleep is over."""
        if got < asked - 0.001:
            self.breaks(f"I9: a sleep of {asked} s was over after {got} s")


def _told_of(batch: Batch) -> Iterator[object]:
    """All of a batch that is the same when it is played again: not the functions in it."""
    for name in Batch.__struct_fields__:
        if name not in ("transactions", "handlings"):
            yield getattr(batch, name)
    for done in (*batch.transactions, *batch.handlings):
        yield getattr(done, "key", ""), getattr(done, "position", 0), repr(done.failed)


def _key_of(record: Record) -> str:
    """The idempotency key that the step had; it returned it, but for an append."""
    if record.key.endswith("/append"):
        return f"{record.run}/{record.key}"
    return json.loads(record.payload or b"[0, 0]")[1]
