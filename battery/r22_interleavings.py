"""Row 22: workers, a client and a reader on one file, in any order of their operations on the disk.

Each has a thread and a store of its own. They take turns: before every operation on
the disk, and wherever SQLite waits for a lock, chance says who goes on. Time is a
number that moves now and then, so that leases end in the middle of a commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from perdure.core.records import Kind, Message, MessageKind, NewRun, Record
from perdure.errors import LeaseLost, StoreInUse
from perdure.stores.base import Batch, Lease
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.lease import Leases
from perdure.testing.disk import FaultyDisk

from .life import what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance
from .turns import Turns

_WORKERS = 3
_TTL_MS = 100
_MESSAGES = 8


class _Scene:
    """What all threads share, and what they saw."""

    def __init__(self, path: Path, luck: Random, turns: Turns) -> None:
        self.path = path
        self.luck = luck
        self.turns = turns
        self.now_ms = 1_000
        self.run = 0
        self.next_seq = 0
        self.workers: dict[int, str] = {}
        """Who was given each epoch."""
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.heads: list[tuple[int, int]] = []
        """(epoch, records then on disk) of each lease that was taken."""
        self.seen: list[bytes | None] = []

    def _open(self) -> SqliteStore:
        # To wait takes no time here, and SQLite counts how often it waited.
        return SqliteStore(self.path, busy_timeout_ms=10_000_000)

    def work(self, name: str) -> None:
        """Take the lease and write under it until it is lost, some times over."""
        store = self._open()
        try:
            for _ in range(self.luck.randint(2, 5)):
                self.now_ms += self.luck.randrange(_TTL_MS)
                try:
                    lease = store.acquire(name, now_ms=self.now_ms, ttl_ms=_TTL_MS)
                except StoreInUse:
                    continue
                self._taken(store, lease)
                self._write(store, lease)
        finally:
            store.close()

    def _taken(self, store: SqliteStore, lease: Lease) -> None:
        assert lease.epoch not in self.workers, f"epoch {lease.epoch} was given twice"
        self.workers[lease.epoch] = lease.worker
        self.heads.append((lease.epoch, store._database.query("SELECT count(*) FROM record")[0][0]))

    def _write(self, store: SqliteStore, lease: Lease) -> None:
        for _ in range(self.luck.randint(1, 6)):
            seq = self.next_seq
            self.next_seq += 1
            record = Record(seq, Kind.STEP, str(lease.epoch), 0, 1, b"1", self.run)
            until_ms = self.now_ms + _TTL_MS if self.luck.random() < 0.3 else 0
            try:
                store.commit(lease, Batch(records=[record], leases=until_ms))
            except LeaseLost:
                self.refused.add(seq)
                return
            self.acknowledged.add(seq)
            self.now_ms += self.luck.randrange(_TTL_MS // 2)
        if self.luck.random() < 0.5:
            store.release(lease)

    def send(self) -> None:
        """What a client in another process does."""
        store = self._open()
        for number in range(_MESSAGES):
            message = Message(0, self.run, MessageKind.SIGNAL, "go", str(number).encode(), "", 1)
            assert store.submit(Batch(messages=[message])).messages[0] > 0
        store.close()

    def look(self) -> None:
        """What a worker's inbox does: ask for what came after the last that it saw."""
        store = self._open()
        last = 0
        while len(self.seen) < _MESSAGES:
            page = store.messages(after=last, limit=3)
            self.seen += [message.payload for message in page]
            last = page[-1].pos if page else last
            self.turns.pass_on()
        store.close()

    def judge(self) -> None:
        store = SqliteStore(self.path)
        rows = store._database.query("SELECT seq, key FROM record ORDER BY pos")
        wrongs = [wrong for wrong in store.check() if "it has" not in wrong and "count from" not in wrong]
        store.close()
        epochs = [int(key) for _, key in rows]
        assert epochs == sorted(epochs), f"an older worker wrote after a newer one: {epochs}"
        for epoch, head in self.heads:
            late = [other for other in epochs[head:] if other < epoch]
            assert not late, f"epoch {late[0]} wrote when epoch {epoch} had the lease"
        written = {seq for seq, _ in rows}
        assert self.acknowledged <= written, "what was acknowledged is not there"
        assert not self.refused & written, "what was refused is there"
        assert self.seen == [str(number).encode() for number in range(_MESSAGES)], f"messages: {self.seen}"
        assert not wrongs, wrongs[0]


def _trial(seed: int, folder: Path, totals: Counter[str]) -> None:
    luck = chance(seed, "turns")
    turns = Turns(luck)
    with FaultyDisk() as disk:
        scene = _Scene(folder / "runs.db", luck, turns)
        store = SqliteStore(scene.path)
        new = NewRun("one", "w", b"1", b"s" * 16, 1, "3.11")
        scene.run = store.submit(Batch(starts=[new])).starts[0].run.number
        store._database._writer.execute("DELETE FROM message")
        disk.before_operation = turns.pass_on
        turns.run([*_workers(scene), scene.send, scene.look])
        disk.before_operation = lambda: None
        scene.judge()
        store.close()
    totals["turns"] += turns.taken
    totals["leases taken"] += len(scene.workers)
    totals["commits refused"] += len(scene.refused)


def _workers(scene: _Scene) -> Sequence[Callable[[], None]]:
    return [lambda name=f"worker-{n}": scene.work(name) for n in range(_WORKERS)]


def run(work: Work) -> Counted:
    totals = Counter[str]()
    return work.counted(lambda seed, folder: _trial(seed, folder, totals), controls=_controls, figures=totals)


def _controls(work: Work) -> Sequence[Control]:
    def unfenced(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _trial(seed, folder, Counter())

    fence = Leases.check_fence
    Leases.check_fence = lambda self, connection, lease: None
    try:
        noticed = what_was_noticed(unfenced, range(30))
    finally:
        Leases.check_fence = fence
    return [Control("no fence", len(noticed) > 5, f"noticed in {len(noticed)} of 30 trials")]


ROW = Row(
    22,
    "interleavings",
    fault="Workers, a client and a reader use one file at once; leases end in the middle of anything.",
    how="Five threads take turns by chance before each operation on the disk and at each wait for a lock.",
    holds=[
        "an epoch is given once",
        "who lost the lease writes nothing",
        "what was acknowledged is there, what was refused is not",
        "a reader sees each message once, in order",
    ],
    trials=Trials(push=100, long=3_000, release=50_000),
    run=run,
)
