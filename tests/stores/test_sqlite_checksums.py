"""A row that the disk has changed is refused by its checksum; one from before there were checksums is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.core.records import Status
from perdure.errors import RunDamaged, StoreCorrupt
from perdure.stores.base import AttemptRow, Batch, Lease, Reply, RunQuery, StateRow
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.connection import MIGRATIONS, FileSchema, find_place
from tests.stores.build import LARGE, claim, end, new_run, park, record, signal, start

READS: dict[str, Callable[[SqliteStore, int], object]] = {
    "record": lambda store, run: store.records(run),
    "message": lambda store, run: store.messages_for(run),
    "state": lambda store, run: store.states(run),
    "attempt": lambda store, run: store.attempts(run),
    "reply": lambda store, run: store.reply("r1"),
    "run": lambda store, run: store.run_by_number(run),
}
UNCHECKED = {
    "pos",  # not in a record, but where it stands
    "latest", "wake_at_ms", "crashes", "length", "lease", "crc", "start_crc", "end_crc",
}  # fmt: skip
COLUMNS = {
    "record": ("run", "seq", "kind", "key", "digest", "at_ms", "payload"),
    "message": ("run", "kind", "name", "payload", "request", "at_ms"),
    "state": ("run", "name", "version", "payload", "at_ms"),
    "attempt": ("run", "key", "number", "failure", "details", "at_ms"),
    "reply": ("request", "ok", "payload", "at_ms"),
    "run": (
        "id", "generation", "workflow", "status", "deadline_ms", "parent", "parent_key", "on_parent_close",
        "created_at_ms", "ended_at_ms", "python", "seed", "input", "output",
    ),
}  # fmt: skip
CASES = [(table, column) for table, columns in COLUMNS.items() for column in columns]
FLIPS = {
    "integer": "{0} + 1",
    "text": "{0} || 'x'",
    "blob": "CAST({0} || X'00' AS BLOB)",
    "null": "7",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "runs.db")
    yield store
    store.close()


@pytest.fixture
def lease(store: SqliteStore) -> Lease:
    return store.acquire("w", now_ms=0, ttl_ms=10_000)


def fill(store: SqliteStore, lease: Lease) -> int:
    """A run with a row in each table; parked, so that it has an end and may still be sent to."""
    run = start(store, lease)
    store.commit(
        lease,
        Batch(
            records=[record(run, 0)],
            ends=[park(run)],
            states=[StateRow(run, "stage", 1, b'"paid"', 1_000)],
            attempts=[AttemptRow(run, "0/charge/0", 1, b"{}", b"1", 1_000)],
            messages=[signal(run, request="a")],
            replies=[Reply("r1", True, b"1", 1_000)],
        ),
    )
    return run


def change(store: SqliteStore, table: str, column: str, where: str = "TRUE") -> None:
    """Change a column behind the store's back; its checksum stays as it was."""
    with store._database.transaction() as connection:
        kind: Any = connection.execute(f"SELECT typeof({column}) FROM {table} WHERE {where}").get
        value = FLIPS[kind].format(column)
        connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}")
        assert connection.changes() == 1


def test_every_column_is_in_a_case_or_said_to_be_unchecked(store: SqliteStore) -> None:
    for table, columns in COLUMNS.items():
        rows = store._database.query(f"SELECT name FROM pragma_table_info('{table}')")

        assert {name for (name,) in rows} - UNCHECKED - {"number"} == {*columns} - {"number"}, table


@pytest.mark.parametrize("table", READS)
def test_a_row_is_read_as_it_was_written(store: SqliteStore, lease: Lease, table: str) -> None:
    run = fill(store, lease)

    READS[table](store, run)

    assert list(store.check()) == []


@pytest.mark.parametrize(("table", "column"), CASES)
def test_a_changed_column_is_noticed_by_who_reads_it_and_by_the_check(
    store: SqliteStore, lease: Lease, table: str, column: str
) -> None:
    run = fill(store, lease)
    change(store, table, column)
    moved = column == "run"  # then the row is found by no read of its run, or of another's

    wrongs = " ".join(store.check())

    assert "does not fit its checksum" in wrongs
    if not moved and (table, column) != ("reply", "request"):
        with pytest.raises(StoreCorrupt, match="does not fit its checksum"):
            READS[table](store, run)


def test_the_error_names_the_run_and_the_record(store: SqliteStore, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, seq) for seq in range(40)]))  # so many go in together
    change(store, "record", "payload", "seq = 33")

    with pytest.raises(RunDamaged, match=rf"record 33 of run number {run} is damaged") as raised:
        store.records(run)

    assert raised.value.number == run


def test_a_journal_with_a_record_missing_is_damaged(store: SqliteStore, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, seq) for seq in range(3)]))
    with store._database.transaction() as connection:
        connection.execute("DELETE FROM record WHERE seq = 1")

    with pytest.raises(RunDamaged, match="it has 2 records, and should have 3"):
        store.records(run)


def test_a_journal_whose_end_is_missing_is_damaged_if_the_run_was_waiting(
    store: SqliteStore, lease: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, seq) for seq in range(3)], wakes=[(0, 0, run)]))
    with store._database.transaction() as connection:
        connection.execute("DELETE FROM record WHERE seq = 2")

    for read in (lambda: store.records(run), lambda: store.load([run])):
        with pytest.raises(RunDamaged, match="it has 2 records, and should have 3"):
            read()


def test_a_journal_from_which_a_failure_was_taken_back_is_whole(store: SqliteStore, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(records=[record(run, seq) for seq in range(3)], wakes=[(0, 0, run)]))
    store.commit(lease, Batch(forgotten=[(run, 2)]))

    assert len(store.records(run)) == 2


@pytest.mark.parametrize("place", ["input", "record", "output"])
def test_a_large_payload_that_was_changed_is_refused(store: SqliteStore, lease: Lease, place: str) -> None:
    run = start(store, lease, input=LARGE if place == "input" else b"1")
    if place == "record":
        store.commit(lease, Batch(records=[record(run, 0, LARGE)]))
    if place == "output":
        store.commit(lease, Batch(ends=[end(run, output=LARGE)]))
    change(store, "blob_chunk", "bytes", "part = 1")

    with pytest.raises(StoreCorrupt, match=r"blob 1.*does not fit its checksum"):
        store.records(run) if place == "record" else store.run_by_number(run)
    assert any("blob 1" in wrong for wrong in store.check())


@pytest.mark.parametrize(
    ("table", "column"), [("run", "python"), ("record", "key"), ("attempt", "at_ms"), ("message", "name")]
)
def test_of_the_runs_that_are_loaded_the_damaged_one_is_named(
    store: SqliteStore, lease: Lease, table: str, column: str
) -> None:
    runs = [start(store, lease, name) for name in ("a", "b", "c")]
    batch = Batch(
        records=[record(run, 0) for run in runs],
        attempts=[AttemptRow(run, "0/charge/0", 1, b"{}", None, 1_000) for run in runs],
        messages=[signal(run) for run in runs],
    )
    store.commit(lease, batch)
    change(store, table, column, f"{'number' if table == 'run' else 'run'} = {runs[1]}")

    for asked in (runs, runs[1:2]):
        with pytest.raises(RunDamaged) as raised:
            store.load(asked)
        assert raised.value.number == runs[1]

    assert [loaded.row.number for loaded in store.load([runs[0], runs[2]])] == [runs[0], runs[2]]


def test_a_damaged_message_is_named_to_the_worker_that_it_is_for_and_held_back_from_no_other(
    store: SqliteStore, lease: Lease
) -> None:
    run, others = start(store, lease, "mine"), start(store, lease, "theirs")
    store.commit(lease, Batch(freed=[others], messages=[signal(others), signal(run)]))
    change(store, "message", "payload", f"run = {others}")
    whole = store.messages(lease, after=0, limit=9)

    change(store, "message", "payload", f"run = {run}")
    with pytest.raises(RunDamaged) as raised:
        store.messages(lease, after=0, limit=9)

    (mine,) = whole.messages
    assert (raised.value.number, raised.value.position) == (run, mine.pos)
    assert store.messages(lease, after=mine.pos, limit=9).messages == []


def test_a_list_shows_a_damaged_run_beside_the_others(store: SqliteStore, lease: Lease) -> None:
    start(store, lease, "a")
    start(store, lease, "b")
    change(store, "run", "python", "id = 'a'")

    listed = store.list_runs(RunQuery())

    assert [row.id for row in listed] == ["b", "a"]
    with pytest.raises(RunDamaged):
        store.run_by_id("a")


def test_a_store_from_before_there_were_checksums_is_read_and_gets_them_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    make_old_store(path)

    store = SqliteStore(path)
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    old = store.run_by_id("old")
    assert old is not None
    claimed = claim(store, lease, now_ms=1)
    store.commit(lease, Batch(records=[record(old.number, 1)], ends=[end(old.number)]))
    ended = store.run_by_id("old")
    change(store, "record", "payload", "seq = 1")

    assert claimed == [old.number]
    assert ended is not None
    assert ended.status == Status.COMPLETED
    with pytest.raises(RunDamaged, match="record 1"):
        store.records(old.number)
    store.close()


def make_old_store(path: Path) -> None:
    """A store of the first schema, with a run that has one record."""

    connection = apsw.Connection(find_place(path).path)
    with FileSchema(connection, "x").alone():
        FileSchema(connection, "x").apply(MIGRATIONS[0])
    new = new_run("old")
    connection.execute("UPDATE counter SET last = 1 WHERE name = 'run'")
    connection.execute(
        "INSERT INTO run (number, id, generation, latest, workflow, status, wake_at_ms, crashes, parent_key,"
        " on_parent_close, created_at_ms, python, seed, input)"
        " VALUES (1, ?, 1, 1, ?, 1, 0, 0, '', 'cancel', 1, '3.11', ?, ?)",
        (new.id, new.workflow, new.seed, new.input),
    )
    connection.execute(
        "INSERT INTO record (run, seq, kind, key, digest, at_ms, payload)"
        " VALUES (1, 0, 1, '0/x/0', 7, 1, X'31')"
    )
    connection.close()


def test_a_run_that_only_a_damaged_index_says_is_free_stays_with_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = SqliteStore(path)
    (outcome,) = store.submit(Batch(starts=[new_run()])).starts
    store.close()
    with_old_indexes(path, "UPDATE run SET lease = 1")
    store, another = SqliteStore(path), SqliteStore(path)
    holder = store.acquire("holder", now_ms=0, ttl_ms=10_000)
    other = another.acquire("other", now_ms=1, ttl_ms=10_000)

    claimed = another.claim(other, workflows=["checkout"], now_ms=1, limit=9)

    row = store.run_by_number(outcome.run.number)
    assert row is not None
    assert (claimed, row.lease) == ([], holder.number)
    assert list(store.check())
    another.close()
    store.close()


def with_old_indexes(path: Path, statement: str) -> None:
    """Change rows of runs, and no index: SQLite is made to forget them for a while."""
    kept: list[tuple[object, ...]] = []
    for step in ("forget", "change", "remember"):
        connection = apsw.Connection(str(path))
        connection.execute("PRAGMA writable_schema = ON")
        if step == "forget":
            indexes = "FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'run' AND sql NOTNULL"
            kept = connection.execute(f"SELECT type, name, tbl_name, rootpage, sql {indexes}").fetchall()
            connection.execute(f"DELETE {indexes}")
        elif step == "change":
            connection.execute(statement)
        else:
            connection.executemany("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", kept)
        version = connection.execute("PRAGMA schema_version").get
        connection.execute(f"PRAGMA schema_version = {int(str(version)) + 1}")
        connection.close()
    assert kept
