"""A sync that failed has lost something for good, whatever the next sync says: nothing is built upon it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.errors import StoreUnavailable
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from perdure.testing.disk import FaultyDisk
from perdure.testing.source import SeededSource
from tests.stores.build import new_run, record, start

LEAVE_A_LOG = """
import os, sys
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from perdure.core.records import NewRun

store = SqliteStore(sys.argv[1])
store.submit(Batch(starts=[NewRun("order-17", "checkout", b"1", b"s" * 16, 1, "3.11")]))
os._exit(9)
"""


def test_a_store_whose_sync_failed_writes_no_more_until_it_is_opened_again(tmp_path: Path) -> None:
    with FaultyDisk() as disk:
        store = SqliteStore(tmp_path / "runs.db")
        lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
        run = start(store, lease)

        disk.fail(of={"sync"})
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"sync.*open it again"):
                store.commit(lease, Batch(records=[record(run, 0)]))
        read = store.records(run)
        store.close()
        store = SqliteStore(tmp_path / "runs.db")
        lease = store.acquire("w", now_ms=20_000, ttl_ms=10_000)
        store.commit(lease, Batch(records=[record(run, len(store.records(run)))]))
        store.close()

    assert read == []


def test_what_a_failed_sync_lost_is_not_built_upon_after_a_kill(tmp_path: Path) -> None:
    """The log still shows the commit that failed; what is appended to it would be cut off with it."""
    with FaultyDisk() as disk:
        first = SqliteStore(tmp_path / "runs.db")
        first.submit(Batch(starts=[new_run("before")]))
        disk.fail(of={"sync"})
        with pytest.raises(StoreUnavailable):
            first.submit(Batch(starts=[new_run("lost or not")]))
        disk.is_dead = True  # killed: it cannot even close its files
        with pytest.raises(StoreUnavailable):
            first.close()
        del first
        disk.is_dead = False

        second = SqliteStore(tmp_path / "runs.db")
        second.submit(Batch(starts=[new_run("acknowledged")]))
        disk.survivors(tmp_path, tmp_path / "after", SeededSource(1))
        second.close()

    third = SqliteStore(tmp_path / "after" / "runs.db")
    assert third.run_by_id("before") is not None
    assert third.run_by_id("acknowledged") is not None
    assert list(third.check()) == []
    third.close()


def test_opening_writes_a_log_that_was_left_behind_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", LEAVE_A_LOG, str(path)], env=environment, check=False)
    log = Path(f"{path}-wal")
    left = log.stat().st_size

    store = SqliteStore(path)

    assert left > 0
    assert log.stat().st_size == 0
    assert store.run_by_id("order-17") is not None
    store.close()
