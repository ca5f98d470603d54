"""The locks beside the file: four workers at most; a dead one is noticed at once, a paused one is fenced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.errors import LeaseLost, StoreInUse
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import claim, row_of, start

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

LOOK = """
import sys
from perdure.stores.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
print(*(worker.worker for worker in store.workers(now_ms=2)))
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


def close(stores: Iterable[SqliteStore]) -> None:
    for store in stores:
        store.close()


def tell(process: subprocess.Popen[str]) -> str:
    """Have the holder commit; what came of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("commit\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_fifth_worker_is_told_who_holds_the_file(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "runs.db") for _ in range(4)]
    leases = [
        each.acquire(f"w{number}", now_ms=number, ttl_ms=10_000) for number, each in enumerate(stores[:3], 1)
    ]

    with holder(tmp_path / "runs.db") as process:
        with pytest.raises(StoreInUse) as refused:
            stores[3].acquire("fifth", now_ms=9_999, ttl_ms=10_000)
        outcome = tell(process)
    for each, lease in zip(stores, leases, strict=False):
        each.commit(lease, Batch())

    said = str(refused.value)
    assert "has 4 workers already" in said
    assert [f"'w{number}' (process {os.getpid()})" in said for number in (1, 2, 3)] == [True] * 3
    assert f"'holder' (process {process.pid})" in said
    assert "lasts until 1970-01-01 00:00:10" in said
    assert outcome == "written"
    close(stores)


@pytest.mark.parametrize("how", ["released", "closed", "over"])
def test_there_is_room_for_a_fifth_worker_when_one_of_four_has_gone(tmp_path: Path, how: str) -> None:
    stores = [SqliteStore(tmp_path / "runs.db") for _ in range(5)]
    leases = [each.acquire("w", now_ms=0, ttl_ms=10_000) for each in stores[:4]]
    for each, lease in zip(stores[:1] + stores[2:4], leases[:1] + leases[2:], strict=True):
        each.renew(lease, now_ms=5_000, ttl_ms=100_000)
    if how == "released":
        stores[1].release(leases[1])
    if how == "closed":
        stores[1].close()

    fifth = stores[4].acquire("fifth", now_ms=10_000, ttl_ms=10_000)

    numbers = [leases[0].number, leases[2].number, leases[3].number, fifth.number]
    assert [worker.lease for worker in stores[0].workers(now_ms=10_000)] == numbers
    close(stores)


def test_each_worker_locks_a_file_of_its_own_beside_the_store(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "runs.db") for _ in range(4)]

    seen: list[set[str]] = []
    for each in stores:
        each.acquire("w", now_ms=0, ttl_ms=10_000)
        seen.append({path.name.removeprefix("runs.db") for path in tmp_path.glob("*worker*")})

    assert seen == [
        {"-worker"},
        {"-worker", "-worker-2"},
        {"-worker", "-worker-2", "-worker-3"},
        {"-worker", "-worker-2", "-worker-3", "-worker-4"},
    ]
    close(stores)


def test_a_lock_file_is_used_again_by_who_comes_next(tmp_path: Path) -> None:
    for _ in range(5):
        store = SqliteStore(tmp_path / "runs.db")
        store.release(store.acquire("w", now_ms=0, ttl_ms=10_000))
        store.close()

    assert [path.name for path in tmp_path.glob("*worker*")] == ["runs.db-worker"]


def test_runs_of_a_killed_worker_are_claimed_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("second", now_ms=0, ttl_ms=10_000)
    with holder(tmp_path / "runs.db") as process:
        tell(process)
        before = claim(store, lease, now_ms=1)
        process.kill()
        process.wait()

        claimed = claim(store, lease, now_ms=1)

    assert before == []
    assert claimed == [1]
    assert row_of(store, 1).crashes == 1
    store.close()


def test_runs_of_a_worker_that_was_killed_with_all_others_are_claimed_at_once(tmp_path: Path) -> None:
    with holder(tmp_path / "runs.db") as process:
        tell(process)

    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("next", now_ms=1, ttl_ms=10_000)

    assert [worker.worker for worker in store.workers(now_ms=1)] == ["next"]
    assert claim(store, lease, now_ms=1) == [1]
    assert row_of(store, 1).crashes == 1
    store.close()


def test_a_paused_worker_is_passed_over_when_its_time_is_over_and_then_writes_nothing(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "runs.db")

    with holder(tmp_path / "runs.db") as process:
        lease = store.acquire("second", now_ms=10_000, ttl_ms=10_000)
        claim(store, lease, now_ms=10_000)
        outcome = tell(process)

    assert outcome == "lost"
    assert store.run_by_id("held") is None
    store.close()


def test_a_store_that_is_closed_without_release_counts_as_dead(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    run = start(first, first.acquire("first", now_ms=0, ttl_ms=10_000))
    lease = second.acquire("second", now_ms=1, ttl_ms=10_000)
    before = claim(second, lease, now_ms=1)
    first.close()

    claimed = claim(second, lease, now_ms=1)

    assert (before, claimed) == ([], [run])
    assert row_of(second, run).crashes == 1
    second.close()


def test_a_worker_of_this_process_does_not_lose_its_lock_when_another_closes(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    first.acquire("first", now_ms=0, ttl_ms=10_000)
    second.acquire("second", now_ms=1, ttl_ms=10_000)
    second.close()

    command = [sys.executable, "-c", LOOK, str(tmp_path / "runs.db")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    seen = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert seen.stdout.split() == ["first"]
    first.close()


def test_a_lease_that_was_lost_does_not_take_the_lock_from_the_one_that_follows(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    lost = store.acquire("first", now_ms=0, ttl_ms=10_000)
    again = store.acquire("again", now_ms=10_000, ttl_ms=10_000)
    claim(other, other.acquire("other", now_ms=10_000, ttl_ms=10_000), now_ms=10_000)

    with pytest.raises(LeaseLost):
        store.commit(lost, Batch())

    assert [worker.worker for worker in other.workers(now_ms=10_001)] == ["again", "other"]
    store.commit(again, Batch())
    close([store, other])
