"""The tables of event streams, as a test changes them behind a store's back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.stores.base import Store
from perdure.stores.sqlite import SqliteStore


def within(store: Store, work: Callable[[Any], object]) -> None:
    """Do something in a transaction on the connection that writes, as a step does to which it is lent."""
    database: Any = store.streams._database  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(store, SqliteStore):
        with database.transaction() as connection:
            work(connection)
        return

    def write(link: Any) -> None:
        with link.transaction():
            pass
        work(link.connection)

    database.write(write)


def forget_events(store: Store) -> None:
    schema = "" if isinstance(store, SqliteStore) else f"{store.url.rpartition('schema=')[2]}."
    within(store, lambda connection: connection.execute(f"DELETE FROM {schema}event"))
