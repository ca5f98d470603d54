"""Schemas on PostgreSQL: one process migrates, step by step; what is newer, or not ours, is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest

from perdure.errors import StoreNotOurs, StoreUnavailable, StoreVersionError
from perdure.stores.base import Batch
from perdure.stores.migrate import Migration
from perdure.stores.opening import open_store
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.connection import Database
from perdure.stores.postgres.migrating import MIGRATIONS, prepare, schema_number
from tests.stores.build import new_run, signal, start

NEXT = len(MIGRATIONS) + 1
ADD_TABLE = Migration(NEXT, "more", "CREATE TABLE more (x int); INSERT INTO more VALUES (1)")
BROKEN = Migration(NEXT + 1, "broken", "CREATE TABLE also (x int); SELECT * FROM missing")

MIGRATE_SLOWLY = """
import sys
from perdure.stores.migrate import Migration
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.migrating import MIGRATIONS, prepare

store = PostgresStore(sys.argv[1])
slow = Migration(len(MIGRATIONS) + 1, "more", "CREATE TABLE more (x int); SELECT pg_sleep(600)")
print("begun", flush=True)
prepare(store._database, create=True, only_look=False, migrations=(*MIGRATIONS, slow))
"""


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    """A store of this release's schema."""
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


def number_of(database: Database) -> int | None:
    return database.read(lambda link: schema_number(link, database))


def tables_of(database: Database) -> set[str]:
    query = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1"
    return {name for (name,) in database.read(lambda link: link.query(query, database.place.schema))}


def test_an_older_schema_is_brought_up_to_date_once(store: PostgresStore) -> None:
    database = store._database

    for _ in range(2):
        prepare(database, create=True, only_look=False, migrations=(*MIGRATIONS, ADD_TABLE))

    assert number_of(database) == NEXT
    assert "more" in tables_of(database)


def test_a_migration_that_fails_leaves_those_before_it(store: PostgresStore) -> None:
    database = store._database

    with pytest.raises(StoreVersionError, match="missing"):
        prepare(database, create=True, only_look=False, migrations=(*MIGRATIONS, ADD_TABLE, BROKEN))

    assert number_of(database) == NEXT
    assert "more" in tables_of(database)
    assert "also" not in tables_of(database)


def test_a_process_killed_in_a_migration_leaves_the_schema_before_and_the_next_goes_on(
    store: PostgresStore, postgres_url: str
) -> None:
    database = store._database
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MIGRATE_SLOWLY, postgres_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        end_sleeper(database, child)

    prepare(database, create=True, only_look=False, migrations=(*MIGRATIONS, ADD_TABLE))

    assert number_of(database) == NEXT


def end_sleeper(database: Database, child: subprocess.Popen[str]) -> None:
    """Kill a process whose statement sleeps; and the server's for it, which would only notice after that."""
    sleeping = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(**database.place.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        while not (pids := connection.execute(sleeping).fetchall()):
            pass
        child.kill()
        for (pid,) in pids:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_newer_schema_is_refused_and_left_as_it_was(store: PostgresStore, postgres_url: str) -> None:
    prepare(store._database, create=True, only_look=False, migrations=(*MIGRATIONS, ADD_TABLE))

    with pytest.raises(StoreVersionError, match=f"schema {NEXT}.*newer version"):
        PostgresStore(postgres_url)

    assert number_of(store._database) == NEXT


def test_a_worker_of_the_release_before_goes_on_beside_a_newer_schema(store: PostgresStore) -> None:
    lease = store.acquire("old", now_ms=0, ttl_ms=60_000)
    wider = Migration(
        NEXT, "wider", "ALTER TABLE run ADD COLUMN hue text; ALTER TABLE record ADD COLUMN hue text"
    )
    store.commit(lease, Batch(starts=[new_run("before")]))

    prepare(store._database, create=True, only_look=False, migrations=(*MIGRATIONS, wider))
    run = start(store, lease, "after")

    assert [row.id for row in store.load([run - 1, run]) for row in [row.row]] == ["before", "after"]


def test_of_many_that_open_a_new_store_at_once_one_makes_it(postgres_url: str) -> None:
    opened: list[PostgresStore] = []
    threads = [threading.Thread(target=lambda: opened.append(PostgresStore(postgres_url))) for _ in range(6)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 6
    for store in opened:
        store.close()


def test_a_schema_with_other_tables_is_left_alone(postgres_server: str, postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (x int)".encode())

    with pytest.raises(StoreNotOurs, match=f"Schema '{schema}'.*other tables"):
        PostgresStore(postgres_url)


def test_an_empty_schema_that_somebody_made_is_used(postgres_server: str, postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())

    store = PostgresStore(postgres_url)

    assert store.versions()["schema"] == str(len(MIGRATIONS))
    store.close()


@pytest.mark.parametrize("options", [{"create": False}, {"only_look": True}])
def test_who_only_looks_makes_nothing(
    postgres_server: str, postgres_url: str, options: dict[str, bool]
) -> None:
    with pytest.raises(StoreUnavailable, match="There is no store"):
        open_store(postgres_url, **options)

    with psycopg.connect(postgres_server) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_namespace WHERE nspname = %s", [postgres_url.rpartition("=")[2]]
        )
        assert found.fetchall() == []


def test_who_only_looks_does_not_migrate(store: PostgresStore) -> None:
    with pytest.raises(StoreVersionError, match="only looks"):
        prepare(store._database, create=True, only_look=True, migrations=(*MIGRATIONS, ADD_TABLE))

    assert number_of(store._database) == len(MIGRATIONS)


def test_a_user_without_the_right_to_make_a_schema_is_told_so(
    postgres_server: str, postgres_url: str
) -> None:
    role = f"weak_{os.getpid()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            with pytest.raises(StoreUnavailable, match=r"may not be used by this user.*GRANT"):
                PostgresStore(f"{postgres_url}&user={role}")
        finally:
            connection.execute(f"DROP ROLE {role}".encode())


def test_messages_of_a_store_that_was_copied_from_another_server_keep_their_order(
    store: PostgresStore, postgres_url: str
) -> None:
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store, lease)
    store.submit(Batch(messages=[signal(run, b"1"), signal(run, b"2")]))
    ahead = f'UPDATE "{store._database.place.schema}".message SET pos = pos + (1::int8 << 60)'
    store._database.read(lambda link: link.query(ahead))

    copy = PostgresStore(postgres_url)
    copy.submit(Batch(messages=[signal(run, b"3")]))

    assert [message.payload for message in copy.messages_for(run)] == [b"1", b"2", b"3"]
    copy.close()
