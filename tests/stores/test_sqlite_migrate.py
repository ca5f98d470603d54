"""Schemas: older ones are brought up to date in one piece, newer ones refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from perdure.errors import StoreVersionError
from perdure.stores.migrate import Migration, load_migrations, migrate
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.connection import MIGRATIONS, FileSchema, schema_number

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
