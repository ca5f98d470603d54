"""A way to a PostgreSQL server that can be cut at a word: before it is heard, or before it is answered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

_SYNC, _QUERY = b"S\0\0\0\4", b"Q"
"""What ends a message, and what is one by itself."""
_ENDS = b"COMMIT\0", b"fence_or_fail"
"""What is said in a message whose end is that of a transaction; BEGIN names COMMITTED too."""
Where = Literal["before", "after", "silently"]


class Way:
    """Carries bytes between clients and the server, until it is told where to cut."""

    def __init__(self, server: str) -> None:
        self._server = {name: str(value) for name, value in conninfo_to_dict(server).items()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._mutex = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._words: tuple[bytes, ...] = ()
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

    def cut_at(self, *words: bytes, where: Where) -> None:
        """Cut when a client says one of these.

        `before` the server hears it; `after`, but before it is answered; or `silently`:
        before, and the server is not told that its client has gone.
        """
        with self._mutex:
            self._words, self._where = words, where

    def cut_at_commit(self, where: Where) -> None:
        """Cut when a client has a transaction committed, by a COMMIT or as one message."""
        self.cut_at(*_ENDS, where=where)

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
        said = b""
        with suppress(OSError):
            while data := client.recv(65_536):
                self.syncs += data.count(_SYNC)
                said += data
                if self._is_to_be_cut(said):
                    if self._where == "after":
                        _shut_one_way(client)
                        server.sendall(data)
                        # It has heard it, and says so; then it is told that the client has gone.
                        server.shutdown(socket.SHUT_WR)
                    break
                server.sendall(data)
                if _is_whole(said):
                    said = b""
        _shut(client)
        if self._where == "before":
            _shut(server)

    def _is_to_be_cut(self, said: bytes) -> bool:
        """What the client has said of its message so far; one that comes in pieces is cut at the last."""
        with self._mutex:
            if not (_is_whole(said) and any(word in said for word in self._words)):
                return False
            self._words = ()
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


def _is_whole(said: bytes) -> bool:
    return said.endswith(_SYNC) or said.startswith(_QUERY)


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
