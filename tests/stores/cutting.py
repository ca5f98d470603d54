"""A way to a PostgreSQL server that can be cut at a word: before it is heard, or before it is answered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

from battery.spoken import SYNC, Spoken

Where = Literal["before", "after", "silently"]


class Way:
    """Carries bytes between clients and the server, until it is told where to cut."""

    def __init__(self, server: str) -> None:
        self._server = {name: str(value) for name, value in conninfo_to_dict(server).items()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._mutex = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_meant: Callable[[Spoken], bool] = _nothing
        self._where: Where = "before"
        self.cuts = 0
        self.is_blocked = False
        self.calls = 0
        """How often somebody has connected."""
        self.syncs = 0
        """How often a client has waited for all that it asked: once a round trip."""
        self._replaced = b"", b""
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, schema: str) -> str:
        """The URL of a store at the other end."""
        known = {"user": "postgres", **self._server}
        rest = {name: known[name] for name in ("user", "password", "dbname") if known.get(name)}
        port = self._listener.getsockname()[1]
        return f"postgresql://127.0.0.1:{port}/?{urlencode({**rest, 'schema': schema, 'sslmode': 'disable'})}"

    def cut_at(self, word: bytes, *, where: Where) -> None:
        """Cut when a client says this.

        `before` the server hears it; `after`, but before it is answered; or `silently`:
        before, and the server is not told that its client has gone.
        """
        self._cut_once(lambda spoken: spoken.is_whole and word in spoken.message, where)

    def cut_at_commit(self, where: Where) -> None:
        """Cut when a client has a transaction committed, by a COMMIT or as one message."""
        self._cut_once(lambda spoken: spoken.commits, where)

    def _cut_once(self, is_meant: Callable[[Spoken], bool], where: Where) -> None:
        with self._mutex:
            self._is_meant, self._where = is_meant, where

    def replace(self, said: bytes, by: bytes) -> None:
        """Let clients hear something else than the server says, of the same length or shorter."""
        self._replaced = said, by.ljust(len(said), b" ")

    def close(self) -> None:
        self._listener.close()
        with self._mutex:
            for end in self._sockets:
                _shut(end)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.calls += 1
                if self.is_blocked:
                    _shut(client)
                    continue
                server = self._connect()
                with self._mutex:
                    self._sockets += (client, server)
                threading.Thread(target=self._forth, args=(client, server), daemon=True).start()
                threading.Thread(target=_carry, args=(server, client, *self._replaced), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._server.get("host", "127.0.0.1"), self._server.get("port", "5432")
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        spoken = Spoken()
        with suppress(OSError):
            while data := client.recv(65_536):
                self.syncs += data.count(SYNC)
                spoken.add(data)
                if self._is_to_be_cut(spoken):
                    if self._where == "after":
                        _shut_one_way(client)
                        server.sendall(data)
                        # It has heard it, and says so; then it is told that the client has gone.
                        server.shutdown(socket.SHUT_WR)
                    break
                server.sendall(data)
        _shut(client)
        if self._where == "before":
            _shut(server)

    def _is_to_be_cut(self, spoken: Spoken) -> bool:
        """What the client has said of its message so far; one that comes in pieces is cut at the last."""
        with self._mutex:
            if not self._is_meant(spoken):
                return False
            self._is_meant = _nothing
            self.cuts += 1
            return True


@contextmanager
def way_to(server: str) -> Iterator[Way]:
    """A way that is there as long as the block."""
    way = Way(server)
    try:
        yield way
    finally:
        way.close()


def _nothing(spoken: Spoken) -> bool:
    return False


def _carry(origin: socket.socket, to: socket.socket, said: bytes, by: bytes) -> None:
    with suppress(OSError):
        while data := origin.recv(65_536):
            with suppress(OSError):
                to.sendall(data.replace(said, by) if said else data)
    _shut(origin)
    _shut(to)


def _shut_one_way(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
