"""One connection to the server: what it sends, and what is known of the transaction that is under way."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import RawCursor
from psycopg.pq import TransactionStatus

from .arrays import adapt
from .fence import Fence, FenceShut
from .pipeline import Answer, Pipeline, Row

Witness = tuple[str, *tuple[Any, ...]]
"""A statement, and what is bound to it, that finds something of a transaction if that was written."""

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_SETTLE_PAUSE_MS: Final = 50


class Link:
    """One connection, which knows the store's statements."""

    def __init__(self, connection: psycopg.Connection[Row], sql: dict[str, str]) -> None:
        self.connection = connection
        self._sql = sql
        self._pipeline = Pipeline(connection)
        self._prepares = False
        ((pid, standby, since, self._life),) = self.rows("server")
        self.is_standby: bool = standby
        # A pooler gives a process number of its own. Between transactions it lends the server's process to
        # others: nothing may be left there, no prepared statement, no setting and no lock.
        self.is_pooled: bool = pid != connection.info.backend_pid
        self.pid: int = pid
        self._session: tuple[int, str | None] = (pid, since)
        self.transaction_number = 0
        """Of the one that is under way; 0 while it is not known."""
        self.messages_sent = 0
        """By it."""
        self.witness: Witness | None = None
        """How to find, if need be, whether it was written."""
        self.has_appended = False
        """Whether a step has appended events in it."""
        self.fence: Fence | None = None
        """Under which lease it was begun, if under any."""
        self.is_sent = False
        """Whether it was begun and ended by one message; else its COMMIT is yet to be sent."""
        self.unanswered: psycopg.Error | None = None
        """What broke the connection before that message was answered."""
        # The pipeline prepares; psycopg would have the server forget that too, at each ROLLBACK.
        connection.prepare_threshold = None
        self._prepares = not self.is_pooled
        if not self.is_pooled:
            self.run("settings", False)

    def run(self, name: str, *bindings: Any) -> Answer:
        """Run a statement; within `sending`, send it with the others."""
        pipeline = self._pipeline
        text, kept = self._sql[name], name if self._prepares else ""
        if pipeline.is_open:
            return pipeline.send(text, bindings, name=kept)
        with self.sending():
            return pipeline.send(text, bindings, name=kept)

    def rows(self, name: str, *bindings: Any) -> list[Row]:
        """Run a statement outside of `sending`, and give what it finds."""
        return self.run(name, *bindings).fetchall()

    def query(self, text: str, *bindings: Any) -> list[Row]:
        """Run a statement that has no name."""
        cursor = RawCursor(self.connection)
        adapt(cursor)
        cursor.execute(text, bindings, prepare=False, binary=True)  # pyright: ignore[reportArgumentType]
        return cursor.fetchall() if cursor.description else []

    def do(self, text: str) -> None:
        """Run statements that give no rows, and are not worth being prepared."""
        self.connection.execute(text.encode(), prepare=False)

    @contextmanager
    def transaction(self, fence: Fence | None = None) -> Generator[None]:
        """Begin a transaction, and send what is run within together with that. Raises LeaseLost.

        What comes after this block is part of the transaction too, until `Database.write` ends it.
        """
        self._forget_the_last()
        self.fence = fence
        opened: Answer | None = None
        life: Answer | None = None
        try:
            with self.sending():
                self._pipeline.send(_BEGIN)
                if self.is_pooled:
                    self.run("settings", True)
                    life = self.run("life")
                if fence is None:
                    opened = self.run("transaction")
                else:
                    self.run("share_lease", fence.space, fence.lease.number)
                    opened = self.run("fence", fence.lease.number)
                yield
        except psycopg.Error:
            # Who goes on with the runs may have written what this one wanted to: then that is why.
            if fence is not None and opened is not None and opened.came and not opened.fetchall()[0][2]:
                raise fence.lost() from None
            raise
        if life is not None and life.fetchall() != [(self._life,)]:
            self.close()  # as if this server's end had been told: the next connection is asked what it has
            raise psycopg.OperationalError("the pooler leads to another server now")
        ((self.transaction_number, self.pid, *held),) = opened.fetchall()
        if fence is not None and not held[0]:
            raise fence.lost()

    @property
    def may_be_whole(self) -> bool:
        """Whether it is known to which session of the server this speaks, so that it can be ended."""
        return not self.is_pooled and self._session[1] is not None

    @contextmanager
    def whole(self, fence: Fence, witness: Witness) -> Generator[None]:
        """Do what is run within as a transaction of one message. Raises FenceShut.

        What no BEGIN has begun the server commits at the end of the message. `witness` finds a record that
        is written within. An answer that does not come is for `Database.write`.
        """
        self._forget_the_last()
        self.fence, self.witness = fence, witness
        opened: Answer | None = None
        try:
            with self.sending():
                self.run("share_lease", fence.space, fence.lease.number)
                opened = self.run("fence_or_fail", fence.lease.number, self._session[0])
                self._pipeline.flush()
                try:
                    yield
                except BaseException:
                    self.close()  # at the end of its message a transaction is committed, as far as it got
                    raise
                self.is_sent = True
        except psycopg.Error as error:
            if opened is not None and opened.failed:
                raise FenceShut from error
            if not (self.is_sent and self.is_broken):
                raise
            self.unanswered = error
        else:
            self.transaction_number = opened.first_number()

    def _forget_the_last(self) -> None:
        self.transaction_number, self.messages_sent = 0, 0
        self.fence = self.witness = self.unanswered = None
        self.has_appended = self.is_sent = False

    @contextmanager
    def sending(self) -> Generator[None]:
        """Send what is run within as one, and wait for all the answers at the end."""
        self._pipeline.open()
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):  # what follows from it is not to be told as well
                self._pipeline.close()
            raise
        self._pipeline.close()

    def send(self, text: str) -> Answer:
        """Send a statement that has no name, within `sending`."""
        return self._pipeline.send(text)

    @property
    def is_broken(self) -> bool:
        return self.connection.closed

    @property
    def is_cut(self) -> bool:
        """Of one that nobody uses now: whether the server has ended it. Nothing is sent for that."""
        return self.is_broken or self._pipeline.has_ended

    def undo(self) -> None:
        """Leave a transaction that is not to be written; closes the connection if that fails."""
        try:
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                self.do("ROLLBACK")
        except psycopg.Error:
            self.close()

    def end_at_server(self, broken: Link) -> None:
        """End the session of a connection that broke: the server may not know, and keep its locks."""
        if not broken.is_pooled:
            with suppress(psycopg.Error):
                self.rows("end_session", *broken._session)

    def wait_for_end(self, broken: Link) -> None:
        """End that session, and wait until it has gone: nothing of it can come after that."""
        while self.rows("end_session", *broken._session):
            self.pause()

    def pause(self) -> None:
        """Give the server a moment: what it was told to end is not gone at once."""
        self.run("pause", _SETTLE_PAUSE_MS)

    def close(self) -> None:
        with suppress(psycopg.Error):
            self.connection.close()
