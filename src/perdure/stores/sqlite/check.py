"""Looks for what is wrong in a store: the file itself, then the rows that must agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .connection import Database
from .statements import SQL

_CHECKS = tuple(sql for name, sql in SQL.items() if name.startswith("check_"))


def find_wrongs(database: Database) -> Iterator[str]:
    """Give a sentence for each thing that is wrong. Reads the whole file, beside the work."""
    with database.second_reader() as connection:
        rows: Any = connection.execute("PRAGMA integrity_check")
        for (sentence,) in rows:
            if sentence != "ok":
                yield f"SQLite says: {sentence}."
        for sql in _CHECKS:
            rows = connection.execute(sql)
            for (sentence,) in rows:
                yield sentence
