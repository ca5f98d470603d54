"""What is SQLite's own: which files are opened, how, and which are left alone."""

from __future__ import annotations

import re
import sqlite3
import threading
from pathlib import Path

import apsw
import pytest

from perdure.errors import (
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreNotOurs,
    StoreUnavailable,
    StoreVersionError,
)
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.blobs import INLINE_BYTES_MAX
from perdure.stores.sqlite.connection import APPLICATION_ID, MIGRATIONS, refuse_broken_library
from perdure.stores.sqlite.statements import SQL
from tests.stores.build import LARGE, claim, end, new_run, record, start


def test_a_store_is_in_wal_mode_and_syncs_every_commit(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    store = SqliteStore(path)

    assert store.versions()["journal mode"] == "wal"
    with store._database.transaction() as connection:
        assert connection.pragma("synchronous") == 2
    store.close()
    other = apsw.Connection(str(path))
    assert other.pragma("application_id") == APPLICATION_ID
    assert other.pragma("user_version") == MIGRATIONS[-1].number
    other.close()


def test_a_url_names_a_file_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    for url in ("sqlite:///relative.db", f"sqlite:///{tmp_path}/absolute.db"):
        store = SqliteStore(url)
        assert store.url == url
        store.close()

    assert {path.name for path in tmp_path.glob("*.db")} == {"relative.db", "absolute.db"}


@pytest.mark.parametrize(
    "name", [":memory:", "", "sqlite:///", "sqlite:///:memory:", "sqlite://x.db", "postgres://x/y"]
)
def test_what_does_not_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match=r"in memory|does not name|not an SQLite"):
        SqliteStore(name)


@pytest.mark.parametrize("version", ["3.7.0", "3.44.2", "3.51.2"])
def test_a_library_that_loses_commits_is_refused(version: str) -> None:
    with pytest.raises(StoreVersionError, match=version):
        refuse_broken_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "4.0.0"])
def test_a_library_that_is_mended_is_accepted(version: str) -> None:
    refuse_broken_library(version)


@pytest.mark.parametrize("content", [b"hello", b"hello, world\n" * 1_000])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)

    with pytest.raises(StoreNotOurs, match=r"notes\.txt"):
        SqliteStore(path)

    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "script", ["CREATE TABLE orders (id)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
)
def test_a_database_of_something_else_is_refused_and_left_as_it_was(tmp_path: Path, script: str) -> None:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute(script)
    connection.close()
    content = path.read_bytes()

    with pytest.raises(StoreNotOurs, match=r"shop\.db"):
        SqliteStore(path)

    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["shop.db"]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.touch()

    store = SqliteStore(path)

    assert list(store.check()) == []
    store.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"missing/runs\.db.*directory exists"):
        SqliteStore(tmp_path / "missing" / "runs.db")


def test_a_store_that_is_opened_by_many_at_once_is_made_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    stores: list[SqliteStore] = []

    def open_store() -> None:
        barrier.wait()
        stores.append(SqliteStore(tmp_path / "runs.db"))

    threads = [threading.Thread(target=open_store) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(stores) == 8
    assert list(stores[0].check()) == []
    for store in stores:
        store.close()


def test_reads_do_not_wait_for_a_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db", busy_timeout_ms=0)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    number = start(store, lease)

    with store._database.transaction() as connection:
        connection.execute("DELETE FROM run")
        seen_meanwhile = store.run_by_id("order-17")

    assert seen_meanwhile is not None
    assert seen_meanwhile.number == number
    assert store.run_by_id("order-17") is None
    store.close()


def test_a_write_does_not_wait_for_a_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db", busy_timeout_ms=0)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)

    with store._database.snapshot() as reader:
        reader.execute("SELECT count(*) FROM run").fetchall()
        start(store, lease)
        assert reader.execute("SELECT count(*) FROM run").get == 0

    assert store.run_by_id("order-17") is not None
    store.close()


def test_a_write_that_another_program_blocks_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db", busy_timeout_ms=1)
    other = apsw.Connection(str(tmp_path / "runs.db"))
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreLocked, match="is locked: another program"):
        store.submit(Batch(starts=[new_run()]))

    other.execute("ROLLBACK")
    assert store.submit(Batch(starts=[new_run()])).starts[0].verdict == "started"
    other.close()
    store.close()


def test_a_claim_that_finds_nothing_waits_for_no_other_program(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db", busy_timeout_ms=1)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    start(store, lease)
    other = apsw.Connection(str(tmp_path / "runs.db"))
    other.execute("BEGIN IMMEDIATE")

    found = claim(store, lease, now_ms=1)

    assert found == []
    other.execute("ROLLBACK")
    other.close()
    store.close()


def test_equal_large_payloads_are_kept_once_and_small_ones_inline(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    number = start(store, lease, input=LARGE)
    edge = b"x" * INLINE_BYTES_MAX

    rows = [record(number, 0, LARGE), record(number, 1, edge), record(number, 2, edge + b"x")]
    store.commit(lease, Batch(records=rows))

    blobs = store._database.query("SELECT size, uses FROM blob ORDER BY number")
    chunks = store._database.query("SELECT max(length(bytes)), count(*) FROM blob_chunk")
    assert blobs == [(len(LARGE), 2), (INLINE_BYTES_MAX + 1, 1)]
    assert chunks == [(INLINE_BYTES_MAX, 5)]
    assert [entry.payload for entry in store.records(number)] == [LARGE, edge, edge + b"x"]
    store.close()


def test_the_last_reference_takes_the_blob_with_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    one, other = start(store, lease, "one", input=LARGE), start(store, lease, "other", input=LARGE)
    store.commit(lease, Batch(ends=[end(one, at_ms=10), end(other, at_ms=20)]))
    counts = "SELECT (SELECT count(*) FROM blob), (SELECT count(*) > 0 FROM blob_chunk)"

    store.remove_ended(before_ms=11, limit=9)
    after_one = store._database.query(counts)
    store.remove_ended(before_ms=21, limit=9)
    after_both = store._database.query(counts)

    assert after_one == [(1, 1)]
    assert after_both == [(0, 0)]
    store.close()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM record WHERE seq = 1", "some are missing"),
        ("DELETE FROM run", "there is no such run"),
        ("DELETE FROM blob", "refers to blob 1, which is missing"),
        ("DELETE FROM blob_chunk WHERE part = 1", "should have 600002 bytes"),
        ("UPDATE blob SET uses = 5", "counts 5 uses, but has 1"),
        ("UPDATE run SET latest = 0", "latest generations"),
        ("UPDATE run SET ended_at_ms = 5", "do not go together"),
        ("UPDATE run SET lease = 9", "belongs to lease 9, of which nothing is known"),
        ("DELETE FROM lease", "belongs to lease 1, of which nothing is known"),
    ],
)
def test_check_says_what_is_wrong(tmp_path: Path, damage: str, sentence: str) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    number = start(store, lease)
    store.commit(lease, Batch(records=[record(number, seq, LARGE if seq == 2 else b"1") for seq in range(3)]))
    sound = list(store.check())

    with store._database.transaction() as connection:
        connection.execute(damage)

    assert sound == []
    assert any(sentence in said for said in store.check())
    store.close()


def test_a_blob_that_is_not_whole_is_an_error_not_a_short_value(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    number = start(store, lease, input=LARGE)

    with store._database.transaction() as connection:
        connection.execute("DELETE FROM blob_chunk WHERE part = 1")

    with pytest.raises(StoreCorrupt, match=r"blob 1.*does not fit its checksum"):
        store.run_by_number(number)
    store.close()


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("latest_run", "run_latest"),
        ("run_of_generation", "run_older"),
        ("fence", "SEARCH lease USING INTEGER PRIMARY KEY"),
        ("free_due", "run_due (lease=? AND wake_at_ms<?)"),
        ("free_workflows", "run_due (lease=? AND wake_at_ms<?)"),
        ("free_of_these", "SEARCH run USING INTEGER PRIMARY KEY"),
        ("free_with_messages", "SCAN message\nSEARCH run USING INTEGER PRIMARY KEY"),
        ("claim_run", "SEARCH run USING INTEGER PRIMARY KEY"),
        ("had_request", "SEARCH request USING PRIMARY KEY (run=? AND request=?)"),
        ("loaded_runs", "SEARCH run USING INTEGER PRIMARY KEY"),
        ("loaded_records", "record_run (run=?)"),
        ("loaded_attempts", "attempt_1 (run=?)"),
        ("sleeping_runs", "COVERING INDEX run_due (lease=? AND wake_at_ms>? AND wake_at_ms<?)"),
        ("parked_runs", "run_parked (number>?)"),
        (
            "messages",
            "SEARCH message USING INTEGER PRIMARY KEY (rowid>?)\nSEARCH run USING INTEGER PRIMARY KEY",
        ),
        ("messages_for", "message_run"),
        ("children", "run_parent"),
        ("counts", "COVERING INDEX run_ended"),
        ("ended_before", "COVERING INDEX run_ended"),
    ],
)
def test_a_frequent_read_uses_its_index_and_sorts_nothing(tmp_path: Path, statement: str, index: str) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    numbered = [int(number) for number in re.findall(r"\?(\d)", SQL[statement])]
    marks = max(numbered) if numbered else SQL[statement].count("?")

    plan = [row[3] for row in store._database.query(f"EXPLAIN QUERY PLAN {SQL[statement]}", (1,) * marks)]

    assert index in "\n".join(plan)
    if statement not in {"counts", "children"}:
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan
    store.close()


def test_a_statement_that_was_run_before_is_not_planned_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    run = start(store, lease)
    planned: list[object] = []

    def note(*what: object) -> int:
        planned.append(what)
        return apsw.SQLITE_OK

    for connection in (store._database._reader, store._database._writer):
        connection.authorizer = note  # asked whenever a statement is planned

    def read_and_write(seq: int) -> None:
        store.commit(lease, Batch(records=[record(run, seq)], wakes=[(seq, 0, run)]))
        store.records(run)
        store.claim(lease, workflows=["checkout"], now_ms=seq, limit=10 + seq)
        store.sleeping_runs(lease, after=(0, seq), until_ms=seq, limit=10 + seq)

    read_and_write(0)
    was_planned = len(planned)
    read_and_write(1)

    assert 0 < was_planned == len(planned)
    store.close()
