"""Servers that will not do: what says that it is something else, does not lock, or is too old.

What such a server would answer, a real one answers here: functions of its own are hidden by
others of the same name, and its version is changed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest

from perdure.errors import StoreVersionError
from perdure.stores.opening import open_store
from perdure.stores.postgres import PostgresStore
from tests.stores.cutting import way_to

UNKNOWN = """pg_current_snapshot() RETURNS pg_snapshot LANGUAGE plpgsql AS $$
BEGIN RAISE feature_not_supported USING MESSAGE = 'unimplemented'; END $$"""


@pytest.fixture
def pretend(postgres_server: str, postgres_url: str) -> Iterator[Callable[[str], str]]:
    """The URL of a server that has this function in place of its own."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA pretence")

        def hide(function: str) -> str:
            connection.execute(f"CREATE FUNCTION pretence.{function}".encode())
            return f"{postgres_url}&options={quote('-csearch_path=pretence,pg_catalog')}"

        yield hide
        connection.execute("DROP SCHEMA pretence CASCADE")


def has_schema(server: str, url: str) -> bool:
    """Whether something was written by a store at that URL."""
    with psycopg.connect(server) as connection:
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema_of(url)])
        return found.fetchone() is not None


def schema_of(url: str) -> str:
    return url.rpartition("schema=")[2].partition("&")[0]


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("CockroachDB CCL v25.3.1 (x86_64-pc-linux-gnu, built 2025/09/01)", "CockroachDB"),
        ("PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang", "YugabyteDB"),
        ("PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.100", "Amazon Redshift"),
    ],
)
def test_a_server_that_only_looks_like_postgresql_is_named_and_nothing_is_written(
    pretend: Callable[[str], str], postgres_server: str, version: str, name: str
) -> None:
    url = pretend(f"version() RETURNS text LANGUAGE sql AS $$SELECT '{version}'$$")

    with pytest.raises(StoreVersionError, match=f"is on {name}, which is not PostgreSQL") as refused:
        open_store(url)

    assert "Nothing was written" in refused.value.what
    assert "Name a server of PostgreSQL 14 or later" in refused.value.hint
    assert not has_schema(postgres_server, url)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (
            "pg_try_advisory_xact_lock_shared(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true'",
            "does not keep that an advisory lock locks",
        ),
        (
            "to_regprocedure(text) RETURNS regprocedure LANGUAGE sql AS 'SELECT NULL::regprocedure'",
            "does not keep that it is known which transactions are running",
        ),
        (
            UNKNOWN,
            "does not know what is needed: unimplemented",
        ),
    ],
)
def test_a_server_that_does_not_do_what_is_relied_on_is_refused_by_what_it_lacks(
    pretend: Callable[[str], str], postgres_server: str, function: str, why: str
) -> None:
    url = pretend(function)

    with pytest.raises(StoreVersionError, match=why) as refused:
        open_store(url)

    assert "'PostgreSQL 1" in refused.value.what
    assert not has_schema(postgres_server, url)


def test_a_connection_that_may_only_read_is_no_reason_to_refuse_a_server(postgres_url: str) -> None:
    PostgresStore(postgres_url).close()

    store = PostgresStore(f"{postgres_url}&options={quote('-cdefault_transaction_read_only=on')}")

    assert store.run_by_id("order-17") is None
    store.close()


@pytest.mark.parametrize("version", [b"9.6", b"13.9"])
def test_a_server_that_is_too_old_is_refused(postgres_server: str, postgres_url: str, version: bytes) -> None:
    with psycopg.connect(postgres_server) as connection:
        itself = connection.info.parameter_status("server_version")
    assert itself is not None

    with way_to(postgres_server) as way:
        way.replace(b"server_version\0" + itself.encode(), b"server_version\0" + version)
        with pytest.raises(StoreVersionError) as refused:
            PostgresStore(way.url(schema_of(postgres_url)))

    assert f"is on PostgreSQL {version.split(b'.')[0].decode()}, and Perdure needs 14" in refused.value.what
    assert not has_schema(postgres_server, postgres_url)
