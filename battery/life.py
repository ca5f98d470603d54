"""Lives of a real store under faults, and the judge of what it must hold after each.

A `Life` does random verbs on one file: as the worker that holds the lease, and as
a client beside it. It remembers what was acknowledged, and the one verb that was
not when the fault came. `judge` then reads the file, table by table, and compares
it with a *shadow*: a store that did the acknowledged verbs on a healthy disk. The
file must be the same, with the verb in doubt or without it, and nothing between.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw

from perdure.core.records import Kind, Message, MessageKind, NewRun, Record, Status
from perdure.errors import StoreError
from perdure.stores.base import AttemptRow, Batch, Committed, Lease, Reply, RunEnd, StateRow
from perdure.stores.sqlite import SqliteStore

TTL_MS = 10_000
NAME = "runs.db"
_LOOKS_ANEW_MS = 2_000
"""So much after its last look a store looks through all that waits, whatever it knows."""

_TABLES = (
    "run", "record", "attempt", "state", "message", "request", "reply", "tag", "counter", "lease", "blob",
    "blob_chunk",
)  # fmt: skip
_SIZES = (0, 1, 10, 100, 100, 1_000, 5_000)
_LARGE = 300_000
"""More than a row holds: it becomes a blob."""

Dump = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that a store was asked to write."""

    who: str
    """`worker`, `client`, `acquire`, `claim` or `remove`."""
    batch: Batch = field(default_factory=Batch)
    now_ms: int = 0


@dataclass(slots=True)
class Known:
    """What the runs in the store stand at, as far as verbs need it."""

    journals: dict[int, list[Record]] = field(default_factory=dict[int, list[Record]])
    """Of the open runs."""
    messages: list[int] = field(default_factory=list[int])
    versions: int = 0
    ids: int = 0


class Life:
    """A file that lives through faults, and its shadow that meets none."""

    def __init__(self, folder: Path, chance: Random, *, template: Path | None = None) -> None:
        """`template`: a new store to begin with; without one the file is made by its first life."""
        self._chance = chance
        self._now_ms = 1_000
        self._lease: Lease | None = None
        self._worker: SqliteStore | None = None
        self._client: SqliteStore | None = None
        self._unseen: list[Verb] = []
        self.known = Known()
        self.doubt: Verb | None = None
        """What was asked for and not acknowledged."""
        self.acknowledged = 0
        self.place = folder / "0"
        self.place.mkdir()
        self._shadow_place = folder / "shadow"
        self._shadow_place.mkdir()
        if template is not None:
            shutil.copy(template, self.place / NAME)
            shutil.copy(template, self._shadow_place / NAME)
        self._shadow = SqliteStore(self._shadow_place / NAME)
        self._shadow._database._writer.execute("PRAGMA synchronous = OFF")
        self._shadow_lease: Lease | None = None
        self.takes_errors_for_success = False
        """What a control plants: that whatever was asked for counts as acknowledged."""

    # -- living ----------------------------------------------------------------------------------

    def open(self, *, synchronous: str = "FULL") -> None:
        """Open the file as a worker and as a client. Raises StoreError when the disk fails."""
        pages = self._chance.choice((1, 4, 16, 64, 1_000))
        self._worker = SqliteStore(self.place / NAME)
        self._client = SqliteStore(self.place / NAME)
        for store in (self._worker, self._client):
            writer = store._database._writer
            writer.wal_autocheckpoint(pages)
            if synchronous != "FULL":
                writer.execute(f"PRAGMA synchronous = {synchronous}")
        self._now_ms += 2 * TTL_MS
        self._do(Verb("acquire", now_ms=self._now_ms))

    def act(self) -> None:
        """Do one verb at random. Raises StoreError when the disk fails."""
        drawn = self._chance.random()
        if drawn < 0.6:
            self._do(Verb("worker", self._work()))
        elif drawn < 0.9:
            self._do(Verb("client", self._ask()))
        elif drawn < 0.92:
            self._now_ms += _LOOKS_ANEW_MS
            self._do(Verb("claim", now_ms=self._now_ms))
        elif drawn < 0.94:
            self._do(Verb("remove", now_ms=self._now_ms))
        elif drawn < 0.965:
            self._look()
        else:
            self.close()
            self.open()

    def close(self) -> None:
        """Close both stores. Raises StoreError when the disk fails."""
        worker, client = self._worker, self._client
        self._worker = self._client = None
        for store in (client, worker):
            if store is not None:
                store.close()

    def give_up(self) -> None:
        """Let go of both stores, whatever the disk says."""
        for store in (self._client, self._worker):
            if store is None:
                continue
            store._leases.close()
            for connection in (store._database._reader, store._database._writer):
                with suppress(apsw.Error):  # it is closed all the same
                    connection.close(True)
        self._worker = self._client = None

    def _do(self, verb: Verb) -> None:
        self.doubt = verb
        assert self._worker is not None
        assert self._client is not None
        try:
            done = self._tell(verb, self._worker, self._client)
        except StoreError:
            if not self.takes_errors_for_success or verb.who == "acquire":
                raise
            done = None
        self.doubt = None
        self.acknowledged += 1
        self._unseen.append(verb)
        if done is not None:
            self._note(verb.batch, done)

    def try_again(self) -> StoreError | None:
        """Ask for what failed once more, and give the error."""
        verb = self.doubt
        assert verb is not None
        assert self._worker is not None
        assert self._client is not None
        if verb.who == "claim":  # which writes nothing if it finds nothing left: a renewal writes
            verb = Verb("worker", Batch(leases=self._now_ms + TTL_MS))
        try:
            self._tell(verb, self._worker, self._client)
        except StoreError as error:
            return error
        return None

    def _tell(self, verb: Verb, worker: SqliteStore, client: SqliteStore) -> Committed | None:
        match verb.who:
            case "acquire":
                self._lease = worker.acquire("worker", now_ms=verb.now_ms, ttl_ms=TTL_MS)
            case "claim":
                assert self._lease is not None
                _claim(worker, self._lease, verb)
            case "remove":
                worker.remove_ended(before_ms=verb.now_ms, limit=3)
            case "client":
                return client.submit(verb.batch)
            case _:
                assert self._lease is not None
                return worker.commit(self._lease, verb.batch)
        return None

    def _look(self) -> None:
        assert self._client is not None
        for number, journal in self.known.journals.items():
            found = self._client.records(number)
            assert found == journal, f"run {number} was read wrong: {len(found)} records of {len(journal)}"

    # -- what to ask for -------------------------------------------------------------------------

    def _payload(self) -> bytes:
        size = _LARGE if self._chance.random() < 0.01 else self._chance.choice(_SIZES)
        return self._chance.randbytes(size)

    def _start(self) -> NewRun:
        self.known.ids += 1
        tags = (("kind", "order"),) if self._chance.random() < 0.3 else ()
        seed = self._chance.randbytes(16)
        return NewRun(
            f"run-{self.known.ids}", "checkout", self._payload(), seed, self._now_ms, "3.11", tags=tags
        )

    def _message(self, run: int) -> Message:
        request = f"request-{self._chance.randrange(20)}" if self._chance.random() < 0.5 else ""
        return Message(0, run, MessageKind.SIGNAL, "approval", self._payload(), request, self._now_ms)

    def _ask(self) -> Batch:
        """A client's batch."""
        batch = Batch()
        if not self.known.journals or self._chance.random() < 0.5:
            batch.starts.append(self._start())
        else:
            batch.messages.append(self._message(self._chance.choice(list(self.known.journals))))
        return batch

    def _work(self) -> Batch:
        """A worker's batch."""
        chance, known, batch = self._chance, self.known, Batch()
        self._now_ms += chance.randrange(50)
        if not known.journals or chance.random() < 0.3:
            batch.starts += [self._start() for _ in range(chance.randint(1, 3))]
        runs = chance.sample(list(known.journals), min(len(known.journals), chance.randint(0, 5)))
        for run in runs:
            length = 40 if chance.random() < 0.03 else chance.randint(1, 4)
            batch.records += self._records(run, length)
        for run in runs:
            self._also(run, batch)
        taken = chance.sample(known.messages, min(len(known.messages), chance.randint(0, 3)))
        batch.taken += taken
        if chance.random() < 0.1:
            batch.leases = self._now_ms + TTL_MS
        return batch

    def _records(self, run: int, length: int) -> list[Record]:
        first = len(self.known.journals[run])
        return [
            Record(seq, Kind.STEP, f"0/{seq}/charge", 7, self._now_ms, self._payload(), run)
            for seq in range(first, first + length)
        ]

    def _also(self, run: int, batch: Batch) -> None:
        """Perhaps something more of a run."""
        chance, now_ms = self._chance, self._now_ms
        what = chance.randrange(12)
        if what == 0:
            batch.ends.append(RunEnd(Status.COMPLETED, self._payload(), now_ms, None, run))
        elif what == 1:
            batch.wakes.append((now_ms + chance.randrange(1_000), 0, run))
        elif what == 2:
            self.known.versions += 1
            batch.states.append(StateRow(run, "stage", self.known.versions, self._payload(), now_ms))
        elif what == 3:
            row = AttemptRow(run, "0/1/charge", chance.randint(1, 3), self._payload(), None, now_ms)
            batch.attempts.append(row)
        elif what == 4:
            batch.messages.append(self._message(run))
        elif what == 5:
            batch.freed.append(run)
        elif what == 6:
            batch.ends.append(RunEnd(Status.PARKED, self._payload(), None, None, run))
        elif what == 7:
            batch.ends.append(RunEnd(Status.RUNNING, None, None, 0, run))
        elif what == 8:
            batch.replies.append(Reply(f"reply-{chance.randrange(1_000)}", True, self._payload(), now_ms))

    def _note(self, batch: Batch, done: Committed) -> None:
        """What was acknowledged is known from now on."""
        known = self.known
        for outcome in done.starts:
            known.journals[outcome.run.number] = []
        for record in batch.records:
            known.journals[record.run].append(record)
        known.messages = [position for position in known.messages if position not in batch.taken]
        known.messages += [position for position in done.messages if position > 0]
        for end in batch.ends:
            if not Status(end.status).is_open:
                known.journals.pop(end.run, None)

    # -- judging ---------------------------------------------------------------------------------

    def judge(self, place: Path) -> None:
        """Take `place` for the file from now on. Raises AssertionError when it is not what it must be."""
        self.place = place
        store = SqliteStore(place / NAME)
        wrongs = list(store.check())
        assert not wrongs, f"the file is damaged: {wrongs[0]}"
        found = dump(store)
        for verb in self._unseen:
            self._shade(verb)
        self._unseen.clear()
        expected = dump(self._shadow)
        if found != expected and self.doubt is not None:
            self._shade(self.doubt)
            expected = dump(self._shadow)
        self.doubt = None
        store.close()
        assert found == expected, f"the file is not what was acknowledged: {difference(found, expected)}"
        self._learn()

    def _shade(self, verb: Verb) -> None:
        if verb.who == "acquire":
            self._shadow_lease = self._shadow.acquire("worker", now_ms=verb.now_ms, ttl_ms=TTL_MS)
        elif verb.who == "claim":
            assert self._shadow_lease is not None
            _claim(self._shadow, self._shadow_lease, verb)
        elif verb.who == "remove":
            self._shadow.remove_ended(before_ms=verb.now_ms, limit=3)
        elif verb.who == "client":
            self._shadow.submit(verb.batch)
        else:
            assert self._shadow_lease is not None
            self._shadow.commit(self._shadow_lease, verb.batch)

    def _learn(self) -> None:
        """Know what the file holds: the verb in doubt may have been done or not."""
        store = self._shadow
        numbers = [n for (n,) in store._database.query("SELECT number FROM run WHERE status <= 2")]
        self.known.journals = {number: store.records(number) for number in numbers}
        self.known.messages = [n for (n,) in store._database.query("SELECT pos FROM message ORDER BY pos")]

    def end(self) -> None:
        """Close the shadow too."""
        self.give_up()
        self._shadow.close()


def _claim(store: SqliteStore, lease: Lease, verb: Verb) -> None:
    store.claim(lease, workflows=["checkout"], now_ms=verb.now_ms, limit=3)


def dump(store: SqliteStore) -> Dump:
    """All rows of all tables."""
    return {table: sorted(store._database.query(f"SELECT * FROM {table}"), key=repr) for table in _TABLES}


def difference(found: Dump, expected: Dump) -> str:
    """The first row that is there and should not be, or the other way round."""
    for table in _TABLES:
        extra = [row for row in found[table] if row not in expected[table]]
        missing = [row for row in expected[table] if row not in found[table]]
        if extra or missing:
            counts = f"{len(missing)} rows of table {table} are missing, {len(extra)} should not be there"
            return f"{counts}: {_short((missing or extra)[0])}"
    return "nothing"


def _short(row: Any) -> str:
    return repr([value[:20] if isinstance(value, bytes) else value for value in row])[:200]


def make_template(folder: Path) -> Path:
    """A new store in one file, to be copied."""
    path = folder / "template.db"
    SqliteStore(path).close()
    return path


def what_was_noticed(trial: Callable[[int], object], seeds: range) -> list[str]:
    """What each trial that noticed something raised: for controls."""
    noticed: list[str] = []
    for seed in seeds:
        try:
            trial(seed)
        except (AssertionError, StoreError, apsw.Error, TimeoutError) as error:
            noticed.append(str(error))
    return noticed
