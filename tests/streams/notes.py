"""A table of the user's in the database of a store, written by handlers and looked at by tests."""

from __future__ import annotations

from typing import Any

import apsw
import psycopg

from perdure.testing import Harness


class Notes:
    """Lines of text, in the order in which they were written."""

    def __init__(self, harness: Harness) -> None:
        self._url = harness.url
        self._is_sqlite = harness.url.startswith("sqlite")
        self._table = "note" if self._is_sqlite else f"{harness.url.rpartition('schema=')[2]}.note"
        with self.connect() as connection:
            number = "INTEGER PRIMARY KEY" if self._is_sqlite else "SERIAL"
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._table} (number {number}, text TEXT)")

    def connect(self) -> Any:
        """A connection of one's own to the database."""
        if self._is_sqlite:
            connection = apsw.Connection(self._url.removeprefix("sqlite:///"))
            connection.set_busy_timeout(5_000)
            return connection
        return psycopg.connect(self._url[: self._url.index("schema=") - 1])

    def begin(self, connection: Any) -> None:
        """Begin a transaction on a connection of `connect`."""
        if self._is_sqlite:
            connection.execute("BEGIN IMMEDIATE")

    def write(self, connection: Any, text: str) -> None:
        """Write a line by a connection."""
        mark = "?" if self._is_sqlite else "%s"
        connection.execute(f"INSERT INTO {self._table} (text) VALUES ({mark})", (text,))

    def read(self) -> list[str]:
        """All that is committed."""
        with self.connect() as connection:
            rows = connection.execute(f"SELECT text FROM {self._table} ORDER BY number").fetchall()
        return [text for (text,) in rows]
