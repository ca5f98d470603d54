"""A way to a PostgreSQL server that does what networks do: stands still, breaks, is slow, loses an answer.

It is a process of its own between clients and the server, and carries bytes. What it is
to do stands in memory that it shares with the row.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from .lives import Life
from .servers import Server
from .spoken import Spoken

_LOOK_EVERY_S = 0.003
_SLOW_S = 0.03
_AT_ONCE = struct.pack("ii", 1, 0)


class Weather(IntEnum):
    """What a way does."""

    CLEAR = 0
    """It carries everything."""
    CUT = 1
    """Nothing comes through, and nobody is told: what is sent waits."""
    DEAF = 2
    """What clients say does not come through; the server's words do."""
    MUTE = 3
    """What the server says does not come through; the clients' words do."""
    SLOW = 4
    BROKEN = 5
    """Every connection is reset, also a new one."""


class Way:
    """A way to one server, for all who use its URL."""

    def __init__(self, server: Server, folder: Path, *, answers: Callable[[], str] | None = None) -> None:
        """`answers` is asked at each commit: `before`, `after` or `silently` cut there, empty: carry it.

        `before` the server hears it; `after`, and its answer is lost; `silently`: before, and the server
        is not told that its client has gone.
        """
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._shared = mmap.mmap(-1, 8)
        self._answers = answers
        self._server = f"{server.sockets}/.s.PGSQL.5432"
        self._life = Life(self._carry_all, errors=folder / "errors of the way")
        self._port = self._listener.getsockname()[1]
        self._listener.close()

    def url(self, schema: str) -> str:
        """The URL of a store at the other end."""
        options = {"schema": schema, "sslmode": "disable", "gssencmode": "disable"}
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres?{urlencode(options)}"

    @property
    def weather(self) -> Weather:
        return Weather(self._shared[0])

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._shared[0] = weather

    @property
    def cuts(self) -> int:
        """How many COMMITs were cut."""
        return struct.unpack_from("I", self._shared, 4)[0]

    def cut_no_more(self) -> None:
        """From now on every COMMIT is carried."""
        self._shared[1] = 1

    def end(self) -> None:
        self._life.kill()

    # -- in its process --------------------------------------------------------------------------

    async def _carry_all(self) -> None:
        serving = await asyncio.start_server(self._carry, sock=self._listener)
        await serving.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_unix_connection(self._server)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, to_writer)
        forth = asyncio.create_task(self._pass_on(reader, to_writer, Weather.DEAF, ends))
        back = asyncio.create_task(self._pass_on(to_reader, writer, Weather.MUTE, ends))
        while self.weather != Weather.BROKEN and not forth.done():
            await asyncio.wait((forth, back), timeout=_LOOK_EVERY_S)
            if back.done():
                break
        if forth.done() and forth.result() == "silently":
            await asyncio.sleep(3_600)  # the server waits for its client
        if self.weather == Weather.BROKEN:
            with suppress(OSError):  # the client has closed it
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        forth.cancel()
        back.cancel()
        for end in ends:
            end.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        held_in: Weather,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> str:
        """Carry one direction until it ends; gives where it was cut.

        A message that comes in pieces is cut at its last: the server has begun with it then.
        """
        spoken = Spoken()
        while data := await _read(reader):
            while self.weather in (Weather.CUT, held_in):  # noqa: ASYNC110 (another process sets it)
                await asyncio.sleep(_LOOK_EVERY_S)
            if self.weather == Weather.SLOW:
                await asyncio.sleep(_SLOW_S)
            if held_in == Weather.DEAF:
                spoken.add(data)
                if where := self._cut(spoken):
                    client, server = ends
                    client.transport.abort()
                    if where == "after":
                        server.write(data)
                        await asyncio.sleep(_LOOK_EVERY_S)
                    return where
            writer.write(data)
            with suppress(ConnectionError):  # the other direction finds out
                await writer.drain()
        return ""

    def _cut(self, spoken: Spoken) -> str:
        if self._answers is None or self._shared[1] or not spoken.commits:
            return ""
        where = self._answers()
        struct.pack_into("I", self._shared, 4, self.cuts + bool(where))
        return where


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""


def cutting(draw: Random, rate: float) -> Callable[[], str]:
    """Cut so many of the COMMITs, in one of the three ways."""
    return partial(_cut_or_not, draw, rate)


def _cut_or_not(draw: Random, rate: float) -> str:
    return draw.choice(("before", "after", "silently")) if draw.random() < rate else ""
