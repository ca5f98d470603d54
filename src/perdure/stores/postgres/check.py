"""Looks for what is wrong in a store: the rows that must agree, and the server's settings.

PostgreSQL checks its own pages (where it was made with checksums, as it is by default
since 18); `pg_amcheck` looks at all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from .connection import Database


def find_wrongs(database: Database, names: list[str]) -> Iterator[str]:
    """Give a sentence for each thing that is wrong. Reads all tables, beside the work."""
    with database.faults():
        link = database.connect()
        try:
            link.do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # Whole tables are read here, and whoever asks may take long between two sentences.
            for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
                link.do(f"SET LOCAL {setting} = on")
            link.do("SET LOCAL idle_in_transaction_session_timeout = 0")
            for name in names:
                for (sentence,) in link.rows(name):
                    yield sentence
        finally:
            link.close()
