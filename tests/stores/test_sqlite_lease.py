"""The lock beside the file: a dead worker is noticed at once, a paused one is fenced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.errors import StoreInUse
from perdure.stores.sqlite import SqliteStore

HOLDER = """
import sys
from perdure.core.records import NewRun
from perdure.errors import LeaseLost
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
lease = store.acquire("holder", now_ms=0, ttl_ms=10_000)
run = NewRun("held", "checkout", b"1", b"s" * 16, 1, "3.11")
print("held", flush=True)
for line in sys.stdin:
    try:
        store.commit(lease, Batch(starts=[run]))
        print("written", flush=True)
    except LeaseLost:
        print("lost", flush=True)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease, and commits once for each line that it is told."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def tell(process: subprocess.Popen[str]) -> str:
    """Have the holder commit; what came of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("commit\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_live_holder_in_another_process_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")

    with holder(tmp_path / "runs.db") as process:
        with pytest.raises(StoreInUse, match=rf"'holder' \(process {process.pid}\)"):
            store.acquire("second", now_ms=9_999, ttl_ms=10_000)
        outcome = tell(process)

    assert outcome == "written"
    store.close()


def test_a_killed_holder_is_taken_over_from_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    with holder(tmp_path / "runs.db") as process:
        tell(process)
        process.kill()
        process.wait()

        lease = store.acquire("second", now_ms=1, ttl_ms=10_000)

    row = store.run_by_id("held")
    assert lease.crashed_before
    assert row is not None
    assert row.crashes == 1
    store.close()


def test_a_paused_holder_is_taken_over_from_when_its_time_is_over_and_then_writes_nothing(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "runs.db")

    with holder(tmp_path / "runs.db") as process:
        lease = store.acquire("second", now_ms=10_000, ttl_ms=10_000)
        outcome = tell(process)

    assert lease.crashed_before
    assert outcome == "lost"
    assert store.run_by_id("held") is None
    store.close()


def test_a_store_that_is_closed_without_release_counts_as_dead(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    first.acquire("first", now_ms=0, ttl_ms=10_000)
    first.close()

    lease = second.acquire("second", now_ms=1, ttl_ms=10_000)

    assert lease.crashed_before
    second.close()


def test_a_second_store_in_the_process_does_not_lose_the_lock_of_the_first(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    first.acquire("first", now_ms=0, ttl_ms=10_000)
    with pytest.raises(StoreInUse):
        second.acquire("second", now_ms=1, ttl_ms=10_000)
    second.close()

    command = [sys.executable, "-c", HOLDER, str(tmp_path / "runs.db")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    third = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, input="")

    assert "StoreInUse" in third.stderr
    first.close()
