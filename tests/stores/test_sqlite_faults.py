"""Disks that are full, files that may not be written, files that are damaged: all for real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perdure.errors import StoreCorrupt, StoreFull
from perdure.stores.base import Batch, Lease
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import new_run, record, start

READ_AND_WRITE = """
import os, sys
from perdure.errors import PerdureError
from perdure.core.records import NewRun
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore

# Root may write everything, so the work is done as nobody.
if os.geteuid() == 0:
    os.setuid(65_534)
store = SqliteStore(sys.argv[1])
print(store.run_by_id("order-17").id)
try:
    store.submit(Batch(starts=[NewRun("other", "checkout", b"1", b"s" * 16, 1, "3.11")]))
except PerdureError as error:
    print(type(error).__name__, error.what)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(store: SqliteStore, lease: Lease, run: int) -> Batch:
    """Write until the store is full; give the batch that it refused."""
    for seq in range(100):
        batch = Batch(records=[record(run, seq, bytes(100_000))])
        try:
            store.commit(lease, batch)
        except StoreFull:
            return batch
    raise AssertionError("the store was never full")


def test_what_a_full_disk_refused_can_be_written_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    store = SqliteStore(small_disk / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    run = start(store, lease)

    refused = fill(store, lease, run)
    kept = store.records(run)
    ballast.unlink()
    store.commit(lease, refused)

    assert [entry.seq for entry in kept] == list(range(refused.records[0].seq))
    assert store.records(run) == [*kept, refused.records[0]]
    assert list(store.check()) == []
    store.close()


def test_a_file_that_may_not_grow_is_full_and_nothing_is_lost(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    run = start(store, lease)
    with store._database.transaction() as connection:
        connection.pragma("max_page_count", connection.pragma("page_count") + 30)

    refused = fill(store, lease, run)
    kept = store.records(run)
    with store._database.transaction() as connection:
        connection.pragma("max_page_count", 1_000_000)
    store.commit(lease, refused)

    assert len(kept) == refused.records[0].seq > 0
    assert len(store.records(run)) == len(kept) + 1
    store.close()


def test_a_file_that_may_not_be_written_can_still_be_read() -> None:
    # Not in tmp_path: its parents are closed to other users.
    with TemporaryDirectory() as directory:
        path = Path(directory) / "runs.db"
        store = SqliteStore(path)
        store.submit(Batch(starts=[new_run()]))
        store.close()
        path.chmod(0o444)
        path.parent.chmod(0o777)

        command = [sys.executable, "-c", READ_AND_WRITE, str(path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.stdout.startswith("order-17\nStoreReadOnly Store 'sqlite:///"), done.stderr
    assert store.url in done.stdout


def test_a_damaged_page_is_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(path)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, seq, bytes(5_000)) for seq in range(50)]))
    store.close()
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half:] = b"\xff" * (len(content) - half)
    path.write_bytes(content)

    store = SqliteStore(path)

    with pytest.raises(StoreCorrupt, match=r"runs\.db.*damaged"):
        store.records(run)
    assert any("SQLite says" in sentence for sentence in store.check())
    store.close()
