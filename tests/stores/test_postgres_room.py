"""A server that has no connection left: who opens is told so, and who is at work waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest

from perdure.errors import StoreUnreachable
from perdure.stores.base import Batch
from perdure.stores.postgres import PostgresStore
from tests.postgres import with_schema
from tests.stores.build import new_run
from tests.stores.cutting import way_to

ROLE = f"perdure_test_{os.getpid()}_guest"


@pytest.fixture
def owner(postgres_server: str, postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection that may change what the role `ROLE` may do; a store is there that the role may use."""
    PostgresStore(postgres_url).close()
    schema = postgres_url.rpartition("schema=")[2]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN".encode())
        connection.execute(f"GRANT ALL ON SCHEMA {schema} TO {ROLE}".encode())
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            connection.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA {schema} TO {ROLE}".encode())
        yield connection
        cut_all(connection)
        connection.execute(f"DROP OWNED BY {ROLE}".encode())
        connection.execute(f"DROP ROLE {ROLE}".encode())


def leave_room_for(owner: psycopg.Connection, connections: int) -> None:
    owner.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}".encode())


def cut_all(owner: psycopg.Connection) -> None:
    """End all connections of the role, and wait for that."""
    owner.execute("SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE usename = %s", [ROLE])


def url_as_guest(way_url: str) -> str:
    return way_url.replace("user=postgres", f"user={ROLE}")


def test_who_opens_a_store_of_a_server_without_room_is_told_how_many_connections_it_takes(
    postgres_server: str, postgres_url: str, owner: psycopg.Connection
) -> None:
    leave_room_for(owner, 0)

    with way_to(postgres_server) as way, pytest.raises(StoreUnreachable) as refused:
        PostgresStore(url_as_guest(way.url(postgres_url.rpartition("=")[2])))

    assert "has no connection left for this process: " in refused.value.what
    assert f'too many connections for role "{ROLE}"' in refused.value.what
    assert "max_connections" in refused.value.hint


def test_who_has_lost_its_connections_waits_until_there_is_room_again(
    postgres_server: str, postgres_url: str, owner: psycopg.Connection
) -> None:
    with way_to(postgres_server) as way, ThreadPoolExecutor(1) as threads:
        store = PostgresStore(url_as_guest(way.url(postgres_url.rpartition("=")[2])))
        lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
        leave_room_for(owner, 0)
        cut_all(owner)
        calls = way.calls

        writing = threads.submit(store.commit, lease, Batch(starts=[new_run()]))
        while way.calls < calls + 3:  # the ear calls too, and is refused as well
            pass
        was_waiting = not writing.done()
        leave_room_for(owner, -1)
        committed = writing.result(20)

        assert was_waiting
        assert committed.starts[0].verdict == "started"
        store.close()


def test_a_server_that_is_full_says_so_too(postgres_server: str, postgres_url: str) -> None:
    taken: list[psycopg.Connection] = []
    with suppress(psycopg.OperationalError):
        while len(taken) < 2_000:
            taken.append(psycopg.connect(postgres_server))

    with pytest.raises(StoreUnreachable, match="has no connection left"):
        PostgresStore(with_schema(postgres_server, postgres_url.rpartition("=")[2]))

    for connection in taken:
        connection.close()
