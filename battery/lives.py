"""Lives and deaths of real processes on one store, and the witness that looks after each.

A life is a fork of this process: it costs nothing to begin, and a death by
SIGKILL is a real one. What it did to the world it writes into a ledger, and what
was acknowledged to it into a list of acknowledgements, line by line.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

import apsw

from perdure.core.records import Kind, MessageKind
from perdure.runtime import lease
from perdure.stores.base import Loaded, RunQuery, Store
from perdure.stores.opening import open_store

_PATIENCE_S = 60.0
FINE, FAILED = 0, 70
"""How a process ends that is not killed."""
_PR_SET_PDEATHSIG = 1


class Life:
    """One process, from its fork to its end."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, object]], *, errors: Path) -> None:
        """`main` is what the process does; what it raises goes into the file `errors`."""
        self.errors = errors
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _live(main, errors)
        self._handle = os.pidfd_open(self.process)
        self.code: int | None = None
        """How it ended: below 0 by a signal."""

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.code is None:
            signal.pidfd_send_signal(self._handle, number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still, or has ended: the signal comes before its effect."""
        self.signal(signal.SIGSTOP)
        if self.code is None:
            os.waitid(os.P_PID, self.process, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def ends_within(self, seconds: float) -> bool:
        """Wait so long for its end. Whether it came."""
        if self.code is None and select([self._handle], [], [], seconds)[0]:
            _, status = os.waitpid(self.process, 0)
            self.code = os.waitstatus_to_exitcode(status)
            os.close(self._handle)
        return self.code is not None

    def end(self, *, patience_s: float = _PATIENCE_S) -> bool:
        """Wait for its end: True when it came to the end of its work, False when it was killed.

        Raises AssertionError when it failed, or hangs.
        """
        if not self.ends_within(patience_s):
            self.signal(signal.SIGABRT)
            self.ends_within(patience_s)
            raise AssertionError(f"a process did not end within {patience_s:g} s")
        if self.code == FAILED:
            raise AssertionError(f"a process failed: {self.errors.read_text()[-2_000:]}")
        return self.code == FINE

    def kill(self) -> None:
        """`kill -9`, if it lives; then it is gone."""
        self.signal(signal.SIGKILL)
        self.ends_within(_PATIENCE_S)


def _live(main: Callable[[], Coroutine[Any, Any, object]], errors: Path) -> None:
    try:
        _die_with_the_parent()
        asyncio.run(main())
    except BaseException:
        try:
            errors.write_text(traceback.format_exc())
        finally:  # also where the folder has gone: else this would go on as the row that it is a fork of
            os._exit(FAILED)
    os._exit(FINE)


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Notes:
    """A file that several processes write lines of JSON to; a line is given whole, or not yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, *line: object) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def lines(self) -> list[list[Any]]:
        whole = self.path.read_bytes().rpartition(b"\n")[0]  # what is just being written may be there in part
        return [json.loads(line) for line in whole.splitlines()]

    def close(self) -> None:
        os.close(self._file)


class Witness:
    """Watches one store over many lives. Raises AssertionError where a law is broken."""

    def __init__(self, folder: Path, url: str = "") -> None:
        """`url`: of a store that is there already; without it the store is a file in `folder`."""
        self.store = folder / "runs.db"
        self.url = url or f"sqlite:///{self.store}"
        self.errors = folder / "errors"
        self.ledger = Notes(folder / "ledger")
        """[run, key of the call, idempotency key, effect, keys of calls that must be on record before]"""
        self.acknowledged = Notes(folder / "acknowledged")
        """["started", run] and ["sent", run, value]"""
        self._done: set[tuple[str, str]] = set()
        self._lines_seen = 0
        """How many lines of the ledger were looked at."""
        self._lines_known = 0
        """How many there were when the store had been read."""

    def close(self) -> None:
        self.ledger.close()
        self.acknowledged.close()

    def look(self) -> None:
        """Look at what a life has left, or at what several that live have done so far."""
        lines = self.ledger.lines()
        new = lines[self._lines_seen :]
        again = [line[:2] for line in lines[self._lines_known :] if (line[0], line[1]) in self._done]
        assert not again, f"I3: on record, and done again: {again}"
        if self.store.exists() or not self.url.startswith("sqlite:"):
            store = open_store(self.url)
            try:
                self._look_at(store)
            finally:
                store.close()
        missing = [(line[0], key) for line in new for key in line[4] if (line[0], key) not in self._done]
        assert not missing, f"I1: a workflow went past steps that are not on disk: {missing}"
        self._lines_seen = len(lines)
        # What one that lives did meanwhile was perhaps done first, and recorded then.
        self._lines_known = len(self.ledger.lines())
        self._look_at_keys(lines)

    def _look_at(self, store: Store) -> None:
        wrong = list(store.check())
        assert not wrong, f"I12: {wrong}"
        # Read before the store is: a client that lives may be told of more meanwhile.
        acknowledged = self.acknowledged.lines()
        numbers = [run.number for run in store.list_runs(RunQuery(limit=10_000))]
        runs = {loaded.row.id: loaded for loaded in store.load(numbers)}
        for run_id, loaded in runs.items():
            steps = [record.key for record in loaded.records if record.kind == Kind.STEP]
            assert len({*steps}) == len(steps), f"I2: a step of {run_id} was recorded twice: {steps}"
            lost = {key for run, key in self._done if run == run_id} - {*steps}
            assert not lost, f"I1: steps of {run_id} were on record and are gone: {lost}"
            self._done.update((run_id, key) for key in steps)
        for what, run_id, *value in acknowledged:
            assert run_id in runs, f"I1: the start of {run_id} was acknowledged, and it is gone"
            if what == "sent":
                self._look_for_signal(runs[run_id], value[0])

    @staticmethod
    def _look_for_signal(run: Loaded, value: int) -> None:
        recorded = [int(one.payload or b"0") for one in run.records if one.kind == Kind.SIGNAL]
        waiting = [int(one.payload or b"0") for one in run.messages if one.kind == MessageKind.SIGNAL]
        found = recorded.count(value) + waiting.count(value)
        ended = run.row.ended_at_ms is not None
        assert found == 1 or (ended and not found), (
            f"I1: signal {value} of {run.row.id} is there {found} times"
        )

    @staticmethod
    def _look_at_keys(lines: list[list[Any]]) -> None:
        keys = defaultdict[tuple[str, str], set[str]](set)
        for run, call, key, *_ in lines:
            keys[run, call].add(key)
        several = [call for call, found in keys.items() if len(found) > 1]
        assert not several, f"I3: calls with more than one idempotency key: {several}"
        assert len({key for found in keys.values() for key in found}) == len(keys), "I3: calls share a key"


@contextmanager
def short_lease(lease_ms: int) -> Iterator[None]:
    """Workers that begin within the block have a lease of so long; a trial cannot wait 15 s for each."""
    before = lease.LEASE_MS, lease._RENEW_EVERY_MS
    lease.LEASE_MS, lease._RENEW_EVERY_MS = lease_ms, lease_ms // 3  # type: ignore[misc]
    try:
        yield
    finally:
        lease.LEASE_MS, lease._RENEW_EVERY_MS = before  # type: ignore[misc]


def dump(store: Path) -> dict[str, list[Any]]:
    """Every row of every table."""
    connection = apsw.Connection(str(store))
    try:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables}
    finally:
        connection.close()
