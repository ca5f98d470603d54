"""Row 22: workers, a client and a reader on one file, in any order of their operations on the disk.

Each has a thread and a store of its own. They take turns: before every operation on
the disk, and wherever SQLite waits for a lock, chance says who goes on. Time is a
number that moves now and then, so that leases end in the middle of a commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from perdure.core.records import Kind, Message, MessageKind, NewRun, Record
from perdure.errors import LeaseLost, StoreInUse
from perdure.stores.base import Batch, Lease
from perdure.stores.sqlite import SqliteStore
from perdure.testing.disk import FaultyDisk

from .life import what_was_noticed
from .planted import claiming_what_others_have, without_the_fence
from .row import Control, Counted, Row, Trials, Work, chance
from .turns import Turns

_WORKERS = 3
_RUNS = 4
_TTL_MS = 100
_MESSAGES = 8
_CLAIMS = """
CREATE TABLE claimed (pos INTEGER PRIMARY KEY, run INTEGER, lease INTEGER, head INTEGER);
CREATE TRIGGER claims_of_run AFTER UPDATE OF lease ON run BEGIN
    INSERT INTO claimed (run, lease, head)
    SELECT new.number, new.lease, count(*) FROM record WHERE run = new.number;
END
"""
"""Who claimed which run, when so many of its records were on disk: as the file itself had it."""


class _Scene:
    """What all threads share, and what they saw."""

    def __init__(self, path: Path, luck: Random, turns: Turns) -> None:
        self.path = path
        self.luck = luck
        self.turns = turns
        self.now_ms = 1_000
        self.runs: list[int] = []
        self.addressee = 0
        """The run that messages are sent to."""
        self.reader = Lease(0, "")
        """Of the worker that has it in hand."""
        self.next_seq = 0
        self.workers: dict[int, str] = {}
        """Who was given each lease."""
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.claimed = 0
        self.seen: list[bytes | None] = []

    def set_up(self, store: SqliteStore) -> None:
        """Start what is to be fought for, and what the reader reads."""
        new = [NewRun(f"run-{n}", "w", b"1", b"s" * 16, 1, "3.11") for n in range(_RUNS)]
        self.runs = [outcome.run.number for outcome in store.submit(Batch(starts=new)).starts]
        store._database._writer.execute(_CLAIMS)
        self.reader = store.acquire("reader", now_ms=0, ttl_ms=1 << 40)
        read = NewRun("read", "read", b"1", b"s" * 16, 1, "3.11")
        self.addressee = store.commit(self.reader, Batch(starts=[read])).starts[0].run.number

    def _open(self) -> SqliteStore:
        # To wait takes no time here, and SQLite counts how often it waited.
        return SqliteStore(self.path, busy_timeout_ms=10_000_000)

    def work(self, name: str) -> None:
        """Take a lease, claim, and write under it until it is lost, some times over."""
        store = self._open()
        try:
            for _ in range(self.luck.randint(2, 5)):
                self.now_ms += self.luck.randrange(_TTL_MS)
                try:
                    lease = store.acquire(name, now_ms=self.now_ms, ttl_ms=_TTL_MS)
                except StoreInUse:
                    continue
                assert lease.number not in self.workers, f"lease {lease.number} was given twice"
                self.workers[lease.number] = name
                with suppress(LeaseLost):
                    self._serve(store, lease)
        finally:
            store.close()

    def _serve(self, store: SqliteStore, lease: Lease) -> None:
        mine: list[int] = []
        for _ in range(self.luck.randint(1, 6)):
            mine += self._claim(store, lease)
            if mine:
                self._write(store, lease, self.luck.choice(mine))
            if mine and self.luck.random() < 0.2:
                run = mine.pop(self.luck.randrange(len(mine)))
                store.commit(lease, Batch(freed=[run]))
            self.now_ms += self.luck.randrange(_TTL_MS // 2)
        if self.luck.random() < 0.5:
            store.release(lease)

    def _claim(self, store: SqliteStore, lease: Lease) -> list[int]:
        if self.luck.random() < 0.5:
            return store.claim(lease, workflows=["w"], now_ms=self.now_ms, limit=2)
        named = self.luck.sample(self.runs, 2)
        return sorted(store.claim_these(lease, named, now_ms=self.now_ms))

    def _write(self, store: SqliteStore, lease: Lease, run: int) -> None:
        seq = self.next_seq
        self.next_seq += 1
        record = Record(seq, Kind.STEP, str(lease.number), 0, 1, b"1", run)
        until_ms = self.now_ms + _TTL_MS if self.luck.random() < 0.3 else 0
        try:
            store.commit(lease, Batch(records=[record], leases=until_ms))
        except LeaseLost:
            self.refused.add(seq)
            raise
        self.acknowledged.add(seq)

    def send(self) -> None:
        """What a client in another process does."""
        store = self._open()
        for number in range(_MESSAGES):
            message = Message(0, self.addressee, MessageKind.SIGNAL, "go", str(number).encode(), "", 1)
            assert store.submit(Batch(messages=[message])).messages[0] > 0
        store.close()

    def look(self) -> None:
        """What a worker's inbox does: ask for what came after the last that it saw."""
        store = self._open()
        last = 0
        while len(self.seen) < _MESSAGES:
            page = store.messages(self.reader, after=last, limit=3)
            self.seen += [message.payload for message in page.messages]
            last = page.after
            self.turns.pass_on()
        store.close()

    def judge(self) -> None:
        store = SqliteStore(self.path)
        rows = store._database.query("SELECT seq, key, run FROM record ORDER BY pos")
        claims = store._database.query("SELECT run, lease, head FROM claimed ORDER BY pos")
        self.claimed = sum(lease > 0 for _, lease, _ in claims)
        wrongs = [wrong for wrong in store.check() if "it has" not in wrong and "count from" not in wrong]
        store.close()
        for run in self.runs:
            writers = [int(key) for _, key, of in rows if of == run]
            _judge_run(run, writers, [(lease, head) for of, lease, head in claims if of == run])
        written = {seq for seq, _, _ in rows}
        assert self.acknowledged <= written, "what was acknowledged is not there"
        assert not self.refused & written, "what was refused is there"
        assert self.seen == [str(number).encode() for number in range(_MESSAGES)], f"messages: {self.seen}"
        assert not wrongs, wrongs[0]


def _judge_run(run: int, writers: list[int], claims: list[tuple[int, int]]) -> None:
    """Each record was written by the lease that had claimed the run last; 0 is nobody's."""
    for number, (lease, head) in enumerate(claims):
        end = claims[number + 1][1] if number + 1 < len(claims) else len(writers)
        others = [writer for writer in writers[head:end] if writer != lease]
        assert not others, f"lease {others[0]} wrote run {run} when lease {lease} had claimed it"
    assert not writers or claims[0][1] == 0, f"run {run} was written before it was claimed"


def _trial(seed: int, folder: Path, totals: Counter[str]) -> None:
    luck = chance(seed, "turns")
    turns = Turns(luck)
    with FaultyDisk() as disk:
        scene = _Scene(folder / "runs.db", luck, turns)
        store = SqliteStore(scene.path)
        scene.set_up(store)
        disk.before_operation = turns.pass_on
        turns.run([*_workers(scene), scene.send, scene.look])
        disk.before_operation = lambda: None
        scene.judge()
        store.close()
    totals["turns"] += turns.taken
    totals["leases taken"] += len(scene.workers)
    totals["runs claimed"] += scene.claimed
    totals["commits refused"] += len(scene.refused)


def _workers(scene: _Scene) -> Sequence[Callable[[], None]]:
    return [lambda name=f"worker-{n}": scene.work(name) for n in range(_WORKERS)]


def run(work: Work) -> Counted:
    totals = Counter[str]()
    return work.counted(lambda seed, folder: _trial(seed, folder, totals), controls=_controls, figures=totals)


def _controls(work: Work) -> Sequence[Control]:
    def in_a_folder(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _trial(seed, folder, Counter())

    with without_the_fence():
        noticed = what_was_noticed(in_a_folder, range(30))
    with claiming_what_others_have():
        noticed_too = what_was_noticed(in_a_folder, range(30))
    return [
        Control("no fence", len(noticed) > 5, f"noticed in {len(noticed)} of 30 trials"),
        Control("claims of runs that are not free", len(noticed_too) > 5, f"in {len(noticed_too)} of 30"),
    ]


ROW = Row(
    22,
    "interleavings",
    fault="Workers that claim the same runs, a client and a reader use one file at once; leases end in the "
    "middle of anything.",
    how="Five threads take turns by chance before each operation on the disk and at each wait for a lock.",
    holds=[
        "the number of a lease is given once",
        "who lost its lease writes nothing",
        "a run is written by the worker that claimed it last, and by no other",
        "what was acknowledged is there, what was refused is not",
        "a reader sees each message once, in order",
    ],
    trials=Trials(push=100, long=3_000, release=50_000),
    run=run,
)
