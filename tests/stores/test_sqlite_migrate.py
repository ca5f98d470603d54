"""Schemas: older ones are brought up to date in one piece, newer ones refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from perdure.core.records import Message, MessageKind
from perdure.errors import StoreVersionError
from perdure.stores.base import Batch
from perdure.stores.migrate import Migration, load_migrations, migrate
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.connection import MIGRATIONS, FileSchema, schema_number
from tests.stores.build import claim, row_of

NEXT = len(MIGRATIONS) + 1
ADD_TABLE = Migration(NEXT, "more", "CREATE TABLE more (x); INSERT INTO more VALUES (1)")

MIGRATE_AND_DIE = """
import os, sys, apsw
from perdure.stores.migrate import Migration, migrate
from perdure.stores.sqlite.connection import MIGRATIONS, FileSchema

connection = apsw.Connection(sys.argv[1])
connection.create_scalar_function("die", lambda: os._exit(9))
sql = "CREATE TABLE more (x); INSERT INTO more VALUES (1); SELECT die()"
migrate(FileSchema(connection, "x"), (*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "more", sql)))
"""


OLD_RUN = """
INSERT INTO run (number, id, generation, latest, workflow, status, wake_at_ms, crashes, parent_key,
                 on_parent_close, created_at_ms, ended_at_ms, python, seed, input)
VALUES (?1, ?2, 1, 1, 'checkout', ?3, ?4, 0, '', 'cancel', 1, ?5, '3.11', X'31', X'31')
"""


def make_store_of_schema_2(path: Path, *, held: int) -> None:
    """A store of release 0.1: a worker had, or has still, the one lease, as the seventh of them.

    Runs 1 to 6: `active`, `due` at 4 s, `later` at 10 s, `waits`, `parked`, `ended`; a signal to the
    fourth, and what told the worker of the first.
    """
    connection = apsw.Connection(str(path))
    schema = FileSchema(connection, str(path))
    with schema.alone():
        for migration in MIGRATIONS[:2]:
            schema.apply(migration)
    connection.execute(
        "UPDATE lease SET epoch = 7, held = ?, worker = 'old', pid = 1, since_ms = 5, until_ms = 20000",
        (held,),
    )
    runs = [
        ("active", 1, 0), ("due", 1, 4_000), ("later", 1, 10_000), ("waits", 1, None), ("parked", 2, None),
        ("ended", 3, None),
    ]  # fmt: skip
    for number, (run_id, status, wake_at_ms) in enumerate(runs, 1):
        ended_at_ms = 9 if run_id == "ended" else None
        connection.execute(OLD_RUN, (number, run_id, status, wake_at_ms, ended_at_ms))
    for position, run, kind in ((1, 1, 1), (2, 4, 2)):
        connection.execute(
            "INSERT INTO message (pos, run, kind, name, payload, request, at_ms)"
            " VALUES (?, ?, ?, 'name', NULL, '', 1)",
            (position, run, kind),
        )
    connection.execute("UPDATE counter SET last = iif(name = 'run', 6, 2)")
    connection.close()


def tables_of(connection: apsw.Connection) -> set[object]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of this release's schema."""
    SqliteStore(tmp_path / "runs.db").close()
    return tmp_path / "runs.db"


def test_an_older_schema_is_brought_up_to_date_once(path: Path) -> None:
    connection = apsw.Connection(str(path))
    schema = FileSchema(connection, "x")

    migrate(schema, (*MIGRATIONS, ADD_TABLE))
    migrate(schema, (*MIGRATIONS, ADD_TABLE))

    assert schema_number(connection) == NEXT
    assert connection.execute("SELECT count(*) FROM more").get == 1
    connection.close()


def test_a_migration_that_fails_leaves_the_old_schema(path: Path) -> None:
    connection = apsw.Connection(str(path))
    broken = Migration(NEXT + 1, "broken", "CREATE TABLE also (x); SELECT * FROM missing")

    with pytest.raises(apsw.SQLError):
        migrate(FileSchema(connection, "x"), (*MIGRATIONS, ADD_TABLE, broken))

    assert schema_number(connection) == len(MIGRATIONS)
    assert not {"more", "also"} & tables_of(connection)
    connection.close()


def test_a_crash_in_a_migration_leaves_the_old_schema(path: Path) -> None:
    command = [sys.executable, "-c", MIGRATE_AND_DIE, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    died = subprocess.run(command, env=environment, check=False)

    assert died.returncode == 9
    store = SqliteStore(path)
    assert store.versions()["schema"] == str(len(MIGRATIONS))
    assert list(store.check()) == []
    store.close()
    connection = apsw.Connection(str(path))
    assert "more" not in tables_of(connection)
    connection.close()


def test_a_newer_schema_is_refused_and_left_as_it_was(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version = {NEXT}")
    connection.close()

    with pytest.raises(StoreVersionError, match=f"schema {NEXT}.*newer version"):
        SqliteStore(path)

    connection = apsw.Connection(str(path))
    assert schema_number(connection) == NEXT
    connection.close()


def test_migrations_count_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").touch()
    (tmp_path / "0003_third.sql").touch()

    with pytest.raises(AssertionError, match="count 1, 2, 3"):
        load_migrations(tmp_path)


def test_runs_of_a_worker_that_died_before_the_migration_are_claimed_and_its_crash_is_counted(
    tmp_path: Path,
) -> None:
    make_store_of_schema_2(tmp_path / "runs.db", held=1)
    store = SqliteStore(tmp_path / "runs.db")
    held = store.workers(now_ms=19_999)
    lease = store.acquire("new", now_ms=20_000, ttl_ms=10_000)

    claimed = claim(store, lease, now_ms=20_000)

    assert held == [(7, "old", 1, 5, 20_000, ())]
    assert lease.number == 8
    assert claimed == [1, 2, 3, 4]
    assert [row_of(store, number).crashes for number in range(1, 7)] == [1, 1, 0, 0, 0, 0]
    assert [row_of(store, number).lease for number in range(1, 5)] == [8, 8, 8, 8]
    assert [message.kind for message in store.messages_for(4)] == [MessageKind.SIGNAL]
    assert store.messages_for(1) == []
    assert list(store.check()) == []
    store.close()


def test_runs_of_a_worker_that_is_alive_during_the_migration_stay_its_own(tmp_path: Path) -> None:
    make_store_of_schema_2(tmp_path / "runs.db", held=1)
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("new", now_ms=19_000, ttl_ms=10_000)

    found = claim(store, lease, now_ms=19_999)

    assert found == []
    assert [row_of(store, number).lease for number in range(1, 5)] == [7] * 4
    store.close()


def test_runs_of_a_worker_that_closed_before_the_migration_are_claimed_without_a_crash(
    tmp_path: Path,
) -> None:
    make_store_of_schema_2(tmp_path / "runs.db", held=0)
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("new", now_ms=20_000, ttl_ms=10_000)
    store.commit(lease, Batch())

    claimed = claim(store, lease, now_ms=20_000)

    assert claimed == [1, 2, 3, 4]
    assert [row_of(store, number).crashes for number in range(1, 7)] == [0] * 6
    store.close()


def test_a_run_that_was_parked_before_the_migration_is_claimed_when_it_is_resumed(tmp_path: Path) -> None:
    make_store_of_schema_2(tmp_path / "runs.db", held=0)
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("new", now_ms=0, ttl_ms=10_000)
    claim(store, lease, now_ms=1)

    store.submit(Batch(messages=[Message(0, 5, MessageKind.RESUME, "resume", None, "", 1)]))

    assert claim(store, lease, now_ms=2) == [5]
    store.close()


def test_the_worker_of_the_old_release_writes_nothing_after_the_migration(tmp_path: Path) -> None:
    make_store_of_schema_2(tmp_path / "runs.db", held=1)
    old = apsw.Connection(str(tmp_path / "runs.db"))
    fence = "SELECT 1 FROM lease WHERE epoch = ? AND held"
    before = old.execute(fence, (7,)).get

    SqliteStore(tmp_path / "runs.db").close()

    assert before == 1
    with pytest.raises(apsw.SQLError, match="no such column: epoch"):
        old.execute(fence, (7,))
    old.close()


THEIRS = """
CREATE TABLE Event (title TEXT);
CREATE VIEW stream AS SELECT title FROM Event;
CREATE TABLE booking (number INTEGER);
CREATE INDEX dead_key ON booking (number);
INSERT INTO Event VALUES ('a concert');
"""


def everything_in(path: Path) -> list[object]:
    connection = apsw.Connection(str(path))
    found: list[object] = [
        connection.pragma("user_version"),
        *connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY rowid"),
        *connection.execute("SELECT * FROM run"),
        *connection.execute("SELECT * FROM lease"),
    ]
    connection.close()
    return found


def test_a_table_of_the_users_whose_name_a_later_release_needs_is_named_and_the_file_left_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shop.db"
    make_store_of_schema_2(path, held=0)
    connection = apsw.Connection(str(path))
    connection.execute(THEIRS)
    before = everything_in(path)

    with pytest.raises(StoreVersionError) as told:
        SqliteStore(path)

    assert "your table 'Event', view 'stream' and index 'dead_key'" in str(told.value)
    assert str(path) in str(told.value)
    assert "Rename yours" in told.value.hint
    assert everything_in(path) == before
    assert connection.execute("SELECT title FROM Event").get == "a concert"
    connection.close()


def test_once_they_are_renamed_the_store_is_brought_up_to_date_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make_store_of_schema_2(path, held=0)
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE event (title TEXT); INSERT INTO event VALUES ('a concert')")
    with pytest.raises(StoreVersionError, match="your table 'event'"):
        SqliteStore(path)

    connection.execute("ALTER TABLE event RENAME TO shop_event")
    store = SqliteStore(path)

    assert store.versions()["schema"] == str(len(MIGRATIONS))
    assert list(store.check()) == []
    assert connection.execute("SELECT title FROM shop_event").get == "a concert"
    store.close()
    connection.close()


def test_whatever_later_releases_added_is_looked_for_among_the_users(tmp_path: Path) -> None:
    make_store_of_schema_2(tmp_path / "old.db", held=0)
    SqliteStore(tmp_path / "new.db").close()
    old, new = apsw.Connection(str(tmp_path / "old.db")), apsw.Connection(str(tmp_path / "new.db"))
    added = sorted(
        str(name) for name in tables_of(new) - tables_of(old) if not str(name).startswith("sqlite_autoindex")
    )

    for name in added:
        old.execute(f"CREATE TABLE {name} (x)")
        with pytest.raises(StoreVersionError, match=f"your table '{name}'"):
            SqliteStore(tmp_path / "old.db")
        old.execute(f"DROP TABLE {name}")

    assert {"event", "dead_key", "event_removed"} <= set(added)
    old.close()
    new.close()


def test_tables_of_ours_that_a_migration_makes_anew_are_not_taken_for_the_users(tmp_path: Path) -> None:
    for schema in range(1, len(MIGRATIONS)):
        connection = apsw.Connection(str(tmp_path / f"{schema}.db"))
        old = FileSchema(connection, "x")
        with old.alone():
            for migration in MIGRATIONS[:schema]:
                old.apply(migration)

        migrate(old, MIGRATIONS)

        assert schema_number(connection) == len(MIGRATIONS)
        connection.close()
