"""A second store, which is marked to take what another one has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from perdure.stores.base import MoveMark, Store
from perdure.stores.sqlite import SqliteStore

ARRIVING = MoveMark("arriving", "m1", 1, "sqlite:////there.db", 5_000)


@contextmanager
def arriving(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Store]:
    """An empty one of this kind, as long as the block lasts."""
    if kind == "sqlite":
        with closing(SqliteStore(folder / "empty.db")) as file:
            file.mark_move(None, ARRIVING, now_ms=0)
            yield file
        return
    from perdure.stores.postgres import PostgresStore

    url = f"{request.getfixturevalue('postgres_url')}_too"
    with closing(PostgresStore(url, believes_caller=True)) as server:
        server.mark_move(None, ARRIVING, now_ms=0)
        yield server
    with psycopg.connect(request.getfixturevalue("postgres_server"), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {url.rpartition('=')[2]} CASCADE".encode())
