"""How long `perdure deploy-check` takes for 100,000 open runs of five records each.

The runs differ in their input, so none can speak for another, and each is replayed.
Measured from before the store is opened, in this process, as the command does it;
without the start of Python and the import of the code that is checked. Beside it,
the same when no run fits the code.

Limit: `apsw` reads the same runs and records, and makes Python values of them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import apsw
import msgspec

from perdure import Workflow, step, workflow
from perdure.core.records import Kind, NewRun, Record
from perdure.journals.checking import Checker
from perdure.stores.base import Batch
from perdure.stores.opening import open_store

from .measure import Figure, Work, timed
from .work import url_of

_CREATED_AT_MS = 1_800_000_000_000
_RECORDS = 5
_RUNS_PER_COMMIT = 2_000


@step
async def reserve(order: str, line: int) -> dict[str, Any]:
    """Never runs here."""
    raise NotImplementedError


@workflow(name="fulfil")
async def fits(order: str, lines: int) -> int:
    """Stands at its sixth step."""
    return len([await reserve(order, line) for line in range(lines)])


@workflow(name="fulfil")
async def does_not_fit(order: str, lines: int) -> int:
    """Counts its lines from one."""
    return len([await reserve(order, line) for line in range(1, lines + 1)])


def measure(work: Work) -> Iterator[Figure]:
    runs = work.size(100_000, quick=100)
    path = work.fresh_path()
    _fill(path, runs)
    os.sync()
    for code, name in ((fits, "deploy-check of {:,} runs"), (does_not_fit, "the same, none fits")):
        values: list[float] = []
        limits: list[float] = []
        for _ in work.repeats(3):
            values.append(timed(lambda code=code: _check(path, code, runs)))
            limits.append(timed(lambda: _read(path)))
        yield Figure(name.format(runs), "s", values, "reading their rows", limits, target=10, stretch=5)


def _fill(path: Path, runs: int) -> None:
    store = open_store(url_of(path))
    lease = store.acquire("bench", now_ms=0, ttl_ms=1_000)
    for first in range(0, runs, _RUNS_PER_COMMIT):
        numbers = range(first, min(runs, first + _RUNS_PER_COMMIT))
        started = store.commit(lease, Batch(starts=[_new_run(number) for number in numbers])).starts
        records = [
            record
            for number, outcome in zip(numbers, started, strict=True)
            for record in _journal(number, outcome.run.number)
        ]
        store.commit(lease, Batch(records=records))
    store.release(lease)
    store.close()


def _new_run(number: int) -> NewRun:
    data = msgspec.json.encode({"order": f"order-{number}", "lines": _RECORDS + 1})
    return NewRun(f"order-{number}", "fulfil", data, md5(b"%d" % number).digest(), _CREATED_AT_MS, "3.11")


def _journal(number: int, run: int) -> Iterator[Record]:
    for seq in range(_RECORDS):
        digest = zlib.crc32(msgspec.json.encode([f"order-{number}", seq]))
        value = msgspec.json.encode({"order": f"order-{number}", "line": seq, "place": "aisle 7, shelf 3"})
        yield Record(seq, Kind.STEP, f"0/{seq}/reserve", digest, _CREATED_AT_MS + seq, value, run)


def _check(path: Path, code: Workflow[Any, Any], runs: int) -> None:
    store = open_store(url_of(path), create=False)
    findings = Checker({code.name: code}).check(store)
    store.close()
    if findings.runs != runs or findings.compatible != (runs if code is fits else 0):
        raise RuntimeError(f"the check came to something else: {findings}")


def _read(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("SELECT * FROM run").fetchall()
    connection.execute("SELECT * FROM record ORDER BY run, seq").fetchall()
    connection.close()
