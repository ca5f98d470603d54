"""Statements that go to the server as one message, and their answers.

psycopg's own pipelines and cursors can do more than is asked of them here, and took as much of the processor
as the rest of a commit. So this speaks to libpq by the same library's `pq`. Two laws: all answers of
a message are read before anything else is sent; and the first error, in the order of what was sent, is
the one that is raised, as the others follow from it.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.adapt import Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from .arrays import typed

Row = tuple[Any, ...]

_FAILED: Final = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)


class Answer:
    """What the server answers to one statement; known once its message has been answered."""

    __slots__ = ("_connection", "_result")

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._result: PGresult | None = None

    def take(self, result: PGresult) -> None:
        """Keep what came."""
        self._result = result

    @property
    def came(self) -> bool:
        """Whether the statement was carried out."""
        return self._result is not None and self._result.status not in _FAILED

    @property
    def failed(self) -> bool:
        """Whether the statement itself is what failed."""
        return self._result is not None and self._result.status == ExecStatus.FATAL_ERROR

    @property
    def rowcount(self) -> int:
        """How many rows it found or changed."""
        assert self._result is not None
        return self._result.command_tuples or 0

    @property
    def said(self) -> str:
        """The word for what was done: `COMMIT`; empty when no answer came."""
        status = None if self._result is None else self._result.command_status
        return (status or b"").decode()

    def fetchall(self) -> list[Row]:
        """The rows that it found; none where it finds no rows."""
        result = self._result
        assert result is not None, "the message has not been answered"
        if result.status != ExecStatus.TUPLES_OK or not result.ntuples:
            return []
        reader = Transformer(self._connection)
        reader.set_pgresult(result)
        return reader.load_rows(0, result.ntuples, tuple)

    def first_number(self) -> int:
        """The first column of its row, which is an integer, without the care that any other type takes."""
        assert self._result is not None
        return int.from_bytes(self._result.get_value(0, 0) or b"", "big", signed=True)

    def fetchone(self) -> Row | None:
        """The first row that it found."""
        return next(iter(self.fetchall()), None)


class Pipeline:
    """The messages of one connection, one at a time."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._numbers = count(1)
        self._wanted: list[Answer | tuple[str, tuple[int, ...]]] = []
        """What an answer is for: a statement, or its preparation."""
        self.is_open = False
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)

    def open(self) -> None:
        """Begin a message."""
        assert not self.is_open, "a message is being put together already"
        self._pgconn.enter_pipeline_mode()
        self._wanted = []
        self.is_open = True

    def send(self, text: str, bindings: Sequence[Any] = (), *, name: str = "") -> Answer:
        """Add a statement. One with a name is prepared once, and only named from then on."""
        types, values = typed(bindings)
        formats = [Format.BINARY] * len(values)
        answer = Answer(self._connection)
        if name:
            prepared = self._prepared.get((name, types))
            if prepared is None:
                prepared = f"{name}_{next(self._numbers)}".encode()
                self._pgconn.send_prepare(prepared, text.encode(), types)
                self._wanted.append((name, types))
                self._prepared[name, types] = prepared
            self._pgconn.send_query_prepared(prepared, values, formats, Format.BINARY)
        else:
            self._pgconn.send_query_params(text.encode(), values, types, formats, Format.BINARY)
        self._wanted.append(answer)
        return answer

    def flush(self) -> None:
        """Send what has been added: the server begins with it while the rest is put together."""
        self._pgconn.flush()

    def close(self) -> None:
        """Send the message, and read all its answers. Raises the first error in it, or the connection's."""
        self.is_open = False
        wanted, self._wanted = self._wanted, []
        first: psycopg.Error | None = None
        try:
            self._pgconn.pipeline_sync()
            for expected in wanted:
                result = self._next()
                if isinstance(expected, Answer):
                    expected.take(result)
                elif result.status in _FAILED:
                    self._prepared.pop(expected, None)
                if result.status == ExecStatus.FATAL_ERROR and first is None:
                    first = error_from_result(result)
            while (last := self._next()).status != ExecStatus.PIPELINE_SYNC:
                first = first or error_from_result(last)
            self._pgconn.exit_pipeline_mode()
        except psycopg.Error as error:
            # Where the server says why it ends the connection, that came first.
            self._connection.close()
            raise (first or error) from error
        except BaseException:
            self._connection.close()  # nobody will read what is still to come
            raise
        if isinstance(first, InvalidSqlStatementName):
            self._prepared.clear()  # whoever the connection was lent to had the server forget them
        if first is not None:
            raise first

    @property
    def has_ended(self) -> bool:
        """Between two messages: whether the connection is known to have ended, without asking the server."""
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return self._pgconn.status == ConnStatus.BAD

    def _next(self) -> PGresult:
        """The next answer, waited for."""
        pgconn = self._pgconn
        while True:
            while pgconn.is_busy():
                is_left = pgconn.flush()
                self._poll.modify(pgconn.socket, select.POLLIN | (select.POLLOUT if is_left else 0))
                self._poll.poll()
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is not None:  # one of None stands between two answers
                return result
            if pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError(pgconn.get_error_message())
