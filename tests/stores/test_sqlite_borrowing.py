"""Runs that are started on the user's own connection to the store's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from sqlalchemy import create_engine

from perdure.errors import StoreError, StoreMoved
from perdure.stores.base import MoveMark
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import LARGE, new_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "runs.db")
    yield opened
    opened.close()


@pytest.fixture
def connection(store: SqliteStore, tmp_path: Path) -> Iterator[apsw.Connection]:
    """The user's own, with a transaction open."""
    with closing(apsw.Connection(str(tmp_path / "runs.db"))) as opened:
        opened.execute("BEGIN IMMEDIATE")
        yield opened


def test_a_large_input_and_tags_are_kept_whole(store: SqliteStore, connection: apsw.Connection) -> None:
    outcome = store.start_within(connection, new_run(input=LARGE, tags=(("shop", "a"),)))
    connection.execute("COMMIT")

    row = store.run_by_id("order-17")
    assert row == outcome.run
    assert store.tags_of([row.number]) == {row.number: {"shop": "a"}}
    assert list(store.check()) == []


def test_what_the_user_has_put_on_the_connection_is_left_and_not_in_the_way(
    store: SqliteStore, connection: apsw.Connection
) -> None:
    def as_dict(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[int, Any]:
        return dict(enumerate(row))

    connection.row_trace = as_dict

    first = store.start_within(connection, new_run())
    again = store.start_within(connection, new_run())

    assert (first.verdict, again.verdict) == ("started", "existing")
    assert connection.execute("SELECT 1").fetchall() == [{0: 1}]


def test_a_file_by_another_name_is_the_same(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "runs.db")
    with closing(apsw.Connection(str(tmp_path / "link.db"))) as connection:
        connection.execute("BEGIN")

        assert store.start_within(connection, new_run()).verdict == "started"


@pytest.mark.parametrize("name", ["other.db", ":memory:"])
def test_another_file_is_refused(store: SqliteStore, tmp_path: Path, name: str) -> None:
    path = name if name.startswith(":") else str(tmp_path / name)
    with closing(apsw.Connection(path)) as connection:
        connection.execute("BEGIN")

        with pytest.raises(StoreError, match="not to store"):
            store.start_within(connection, new_run())


def test_pythons_own_sqlite_is_refused_with_what_to_do(store: SqliteStore, tmp_path: Path) -> None:
    refusal = r"sqlite3\.Connection.*lose each other's locks.*apsw"

    with closing(sqlite3.connect(tmp_path / "runs.db")) as other, pytest.raises(StoreError, match=refusal):
        store.start_within(other, new_run())


def test_sqlalchemy_is_refused_with_what_to_do(store: SqliteStore, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/runs.db")

    with engine.connect() as connection, pytest.raises(StoreError, match="apsw"):
        store.start_within(connection, new_run())
    engine.dispose()


def test_a_store_that_was_moved_takes_no_start(store: SqliteStore, connection: apsw.Connection) -> None:
    connection.execute("COMMIT")
    store.mark_move(None, MoveMark("moving", "m1", 1, "sqlite:////there.db", 5_000), now_ms=0)
    connection.execute("BEGIN")

    with pytest.raises(StoreMoved, match="being moved"):
        store.start_within(connection, new_run())


def test_a_transaction_that_read_before_a_move_starts_nothing(
    store: SqliteStore, connection: apsw.Connection
) -> None:
    connection.execute("COMMIT; BEGIN; SELECT count(*) FROM run")
    store.mark_move(None, MoveMark("moving", "m1", 1, "sqlite:////there.db", 5_000), now_ms=0)

    with pytest.raises(apsw.BusyError):
        store.start_within(connection, new_run())
