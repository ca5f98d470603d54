"""Row 7: one bit of a stopped store changes.

A store with many runs is made once. Each trial copies it, flips one bit, and opens
it with a worker, as `runtime` does: a run is given to the worker as it was, or it
is refused by name; the others are given as they were. The flips fall on rows, on
any byte of the file, and on the log that a killed worker left behind. There SQLite
itself cuts off what comes after a damaged frame, as it must after a loss of power:
what is left is then a whole state from before, and never a mixture.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import apsw

from perdure.core.records import NewRun, Record, RunRow
from perdure.errors import RunDamaged, StoreError
from perdure.stores.base import Batch, StateRow, Store
from perdure.stores.sqlite import SqliteStore

from .life import what_was_noticed
from .row import Control, Counted, Row, Trials, Work, chance

RUNS = 30
RECORDS = 8
_NEXT_MS = 1 << 42
"""When the next worker comes: whatever became of the lease of the one before, it is over."""

_MAKE = """
import os, sys
from battery.r07_bit_rot import fill
store = fill(sys.argv[1])
os._exit(0)
"""

_TOLD = (
    "Told by the check alone: an index was hit, so that a run, or the end of a journal, is not found; of a "
    "run that was waiting, a journal without its end is refused at once."
)
_CUT = "SQLite cuts a log off at the first damage in it; what is left was once the whole state."

Journals = dict[int, tuple[RunRow, list[Record]]]

_UNCHECKED = {"wake_at_ms", "crashes", "lease"}
"""What says when a run goes on, and with whom: a worker that believes it wrong does no harm to the run."""


@dataclass(slots=True)
class _Original:
    """The store as it was before a bit of it changed."""

    file_before: bytes
    """With half of its commits in the log."""
    log: bytes
    file: bytes
    """With the log written into it, as a worker that stops leaves it."""
    journals: Journals
    states: list[Journals]
    """What it held after each commit of records."""


def fill(path: str) -> SqliteStore:
    """Make the store, and leave it open: who dies now leaves a log."""
    luck = Random(7)
    store = SqliteStore(path)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    new = [
        NewRun(f"run-{n}", "checkout", luck.randbytes(200), luck.randbytes(16), 1_000, "3.11")
        for n in range(RUNS)
    ]
    numbers = [outcome.run.number for outcome in store.commit(lease, Batch(starts=new)).starts]
    for seq in range(RECORDS):
        if seq == RECORDS // 2:
            store._database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        records = [
            Record(seq, 1, f"0/{seq}/charge", 7, 1_000 + seq, luck.randbytes(300), number)
            for number in numbers
        ]
        # Half of the runs wait at the end: that is when a store learns how long a journal is.
        wakes = [(0, 0, number) for number in numbers[::2]] if seq == RECORDS - 1 else []
        store.commit(
            lease, Batch(records=records, wakes=wakes, states=[StateRow(numbers[0], "at", seq + 1, b"1", 1)])
        )
    return store


def run(work: Work) -> Counted:
    original = _make_original(work.folder)
    totals = Counter[str]()
    places: dict[str, Callable[[Random, _Original], int]] = {"a row": _in_row, "any byte": _anywhere}

    def trial(seed: int, folder: Path) -> None:
        luck = chance(seed, "rot")
        if luck.random() < 0.2:
            _rot_log(luck, original, folder, totals)
        else:
            place = luck.choice(list(places))
            _rot_file(luck, original, folder, totals, place, places[place])

    return work.counted(
        trial, controls=lambda work: _controls(work, original), figures=totals, notes=[_TOLD, _CUT]
    )


def _make_original(folder: Path) -> _Original:
    path = folder / "original.db"
    subprocess.run([sys.executable, "-c", _MAKE, str(path)], check=True)
    file, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    assert log, "the killed process left no log"
    whole = _Original(file, log, b"", {}, [])
    store = SqliteStore(path)
    whole.journals = _read_all(store)
    store.close()
    whole.states = [_up_to(whole.journals, length) for length in range(RECORDS + 1)]
    whole.file = path.read_bytes()
    return whole


def _up_to(journals: Journals, length: int) -> Journals:
    return {number: (row, records[:length]) for number, (row, records) in journals.items()}


def _read_all(store: Store, damaged: list[int] | None = None) -> Journals:
    """What a worker that opens the store is given; the numbers of runs that are refused go to `damaged`."""
    found: Journals = {}
    lease = store.acquire("next", now_ms=_NEXT_MS, ttl_ms=10_000)
    while numbers := store.claim(lease, workflows=["checkout"], now_ms=_NEXT_MS, limit=RUNS):
        for number in numbers:
            try:
                loaded = store.load([number])
            except RunDamaged as error:
                if damaged is None:
                    raise
                damaged.append(error.number)
            else:
                found.update((each.row.number, (each.row, each.records)) for each in loaded)
    return found


# -- the file -------------------------------------------------------------------------------------


def _in_row(luck: Random, original: _Original) -> int:
    """A byte of a record, of its payload mostly."""
    _, records = original.journals[luck.choice(list(original.journals))]
    payload = luck.choice(records).payload
    assert payload is not None
    return original.file.index(payload) + luck.randrange(-30, len(payload))


def _anywhere(luck: Random, original: _Original) -> int:
    return luck.randrange(len(original.file))


def _rot_file(
    luck: Random,
    original: _Original,
    folder: Path,
    totals: Counter[str],
    place: str,
    where: Callable[[Random, _Original], int],
) -> None:
    content = bytearray(original.file)
    at, bit = where(luck, original), luck.randrange(8)
    content[at] ^= 1 << bit
    (folder / "runs.db").write_bytes(content)
    seen = _look(folder / "runs.db", original, at)
    totals[f"flips in {place}"] += 1
    totals[f"of them {seen}"] += 1


def _look(path: Path, original: _Original, at: int) -> str:
    """What became of the flip. Raises AssertionError when something wrong was believed."""
    damaged: list[int] = []
    short = 0
    try:
        store = SqliteStore(path)
    except StoreError:
        return "refused with the whole store"
    try:
        found = _read_all(store, damaged)
        wrongs = list(store.check())
    except StoreError:
        return "refused with the whole store"
    finally:
        store.close()
    for number, (row, records) in found.items():
        expected = original.journals.get(number)
        assert expected is not None, f"byte {at}: run {number} was made up"
        what = {name for name in row._fields if getattr(row, name) != getattr(expected[0], name)}
        assert what <= _UNCHECKED, f"byte {at}: {what} of run {number} is wrong"
        assert records == expected[1][: len(records)], f"byte {at}: records of run {number} are wrong"
        short += len(expected[1]) - len(records)
    missing = original.journals.keys() - found.keys() - {*damaged}
    if missing or short:
        assert wrongs, f"byte {at}: {len(missing)} runs are missing, {short} records, and nothing tells"
        return "told by the check alone"
    return "refused with one run" if damaged else "of no effect"


# -- the log --------------------------------------------------------------------------------------


def _rot_log(luck: Random, original: _Original, folder: Path, totals: Counter[str]) -> None:
    log = bytearray(original.log)
    at, bit = luck.randrange(len(log)), luck.randrange(8)
    log[at] ^= 1 << bit
    (folder / "runs.db").write_bytes(original.file_before)
    (folder / "runs.db-wal").write_bytes(log)
    totals["flips in the log"] += 1
    store = SqliteStore(folder / "runs.db")
    found, wrongs = _read_all(store), list(store.check())
    store.close()
    assert not wrongs, f"byte {at} of the log: {wrongs[0]}"
    lengths = [length for length, state in enumerate(original.states) if _same(found, state)]
    assert lengths, f"byte {at} of the log: what is left was never there"
    totals["of them cut the log off"] += lengths[0] < RECORDS


def _same(found: Journals, state: Journals) -> bool:
    return {n: records for n, (_, records) in found.items()} == {
        n: records for n, (_, records) in state.items()
    }


def _controls(work: Work, original: _Original) -> Sequence[Control]:
    """The same flips in a store whose rows have no checksums."""
    path = work.folder / "unchecked.db"
    path.write_bytes(original.file)
    connection = apsw.Connection(str(path))
    connection.execute(
        "UPDATE record SET crc = NULL; UPDATE run SET start_crc = NULL, end_crc = NULL; VACUUM"
    )
    connection.close()
    unchecked = replace(original, file=path.read_bytes())

    def flip(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _rot_file(chance(seed, "control"), unchecked, folder, Counter(), "a row", _in_row)

    noticed = what_was_noticed(flip, range(50))
    return [
        Control("rows without checksums", len(noticed) > 25, f"of 50 flips {len(noticed)} gave wrong values")
    ]


ROW = Row(
    7,
    "bit rot",
    fault="One bit of a stopped store changes.",
    how="The file is edited: in a row, anywhere, or in the log of a killed worker.",
    holds=["no wrong value is believed", "a damaged run is refused by name", "the others are as they were"],
    trials=Trials(push=400, long=20_000, release=400_000),
    run=run,
)
