"""The connections to the server: one that writes, a few that read, and what is done when one breaks.

A write is a function that may be called again: it is, when its transaction was surely
not written and the failure passes by itself (the server restarts, a deadlock).
A connection that breaks at its COMMIT is no riddle, for one of two reasons.

- Where answers are needed before the end, everything but the COMMIT goes first. So the number of the
  transaction is known when COMMIT is sent, and the server is asked what became of it. As a server that has
  crashed may give that number to another, a trace of the transaction is looked for too; one that leaves
  none writes a token (`say`).
- Where none are, all goes as one message (`Link.whole`), which is a transaction without BEGIN and COMMIT: two
  statements fewer are a tenth of a small commit. If it breaks, the server is told to end that session;
  once it has gone, nothing of it can come any more, and it is looked for a record of the transaction, which
  nobody else can have written while the lease is held. So only who holds a lease, writes a record, and
  knows which process of the server it speaks to may do this.

Nothing is ever written twice.

A worker's new connection may lead to a server that has lost what was acknowledged: a
standby that lagged and took over, an old primary that came back. A log is kept up to some
point, so it is enough to ask for the last commit; where that is not, nothing is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain, count, repeat
from random import SystemRandom
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import LockNotAvailable

from ...errors import StoreUnavailable
from .faults import fault_of, is_passing, lost_commits, read_only, unreachable
from .likeness import refuse_lookalike, refuse_old_server
from .link import Link, Witness
from .pipeline import Answer, Row
from .place import Place

T = TypeVar("T")

_READERS_KEPT: Final = 4
_WAITS_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, *[1.0] * 18)
"""How long a write waits before it is tried again: for twenty seconds, somewhat longer than a lease lasts."""


class Database:
    """The connections to one store. Raises our errors only. May be used from any thread."""

    def __init__(self, place: Place, sql: dict[str, str]) -> None:
        self.place = place
        self.url = place.url
        self._sql = sql
        self._writing = threading.Lock()
        self._writer: Link | None = None
        self.when_blocked: Callable[[], None] = _do_nothing
        """Called when a write has waited long for what another transaction has locked."""
        self._acknowledged: tuple[int, Witness] | None = None
        """The last transaction of this worker that was committed, and its witness."""
        self._process, self._tokens = SystemRandom().getrandbits(63), count(1)
        """How this one is known in what it says."""
        self._readers: list[Link] = []
        self._closed = threading.Event()
        with self.faults():
            first = self.connect(is_first=True)
        self.is_pooled = first.is_pooled
        self.is_standby = first.is_standby
        self._readers.append(first)

    def connect(self, *, is_first: bool = False) -> Link:
        """Open one more connection. Raises the driver's errors, and StoreVersionError; see `likeness`."""
        connection = psycopg.connect(**self.place.parameters, autocommit=True)  # pyright: ignore[reportArgumentType]
        try:
            refuse_old_server(connection, self.url)
            if is_first:
                refuse_lookalike(connection, self.url, space=self.place.space("a look"))
            return Link(connection, self._sql)
        except BaseException:
            connection.close()
            raise

    @contextmanager
    def faults(self) -> Generator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except psycopg.Error as error:
            raise fault_of(error, self.url) from error

    @property
    def writer_pid(self) -> int:
        """The server's process for the connection that writes; 0 while there is none."""
        writer = self._writer
        return writer.pid if writer is not None else 0

    def writing_by(self, connection: object) -> Link | None:
        """What writes, if it is by this connection."""
        writer = self._writer
        return writer if writer is not None and writer.connection is connection else None

    # -- reading ---------------------------------------------------------------------------------

    def read(self, work: Callable[[Link], T]) -> T:
        """Read; once more, if the connection that was at hand turned out to be cut."""
        with self.faults():
            while True:
                link, kept = self._reader()
                try:
                    return work(link)
                except psycopg.Error:
                    link.undo()
                    # All that are at hand were perhaps cut; one that is made now was not.
                    if not (kept and link.is_broken):
                        raise
                finally:
                    link.undo()
                    self._give_back(link)

    def rows(self, name: str, *bindings: Any) -> list[Row]:
        """Read with one statement."""
        return self.read(lambda link: link.rows(name, *bindings))

    def snapshot(self, *statements: tuple[str, *tuple[Any, ...]]) -> list[list[Row]]:
        """Read with several statements from one and the same commit, in one round trip."""
        return self.read(lambda link: _read_together(link, statements))

    def _reader(self) -> tuple[Link, bool]:
        """A connection, and whether it was at hand."""
        if self._closed.is_set():
            raise psycopg.OperationalError("it is closed")
        try:
            return self._readers.pop(), True
        except IndexError:
            return self.connect(), False

    def _give_back(self, link: Link) -> None:
        if link.is_broken or self._closed.is_set() or len(self._readers) >= _READERS_KEPT:
            link.close()
        else:
            self._readers.append(link)

    # -- writing ---------------------------------------------------------------------------------

    def write(self, work: Callable[[Link], T], *, tell: Callable[[T], bool] = lambda _: False) -> T:
        """Do `work`, which begins a transaction, and commit it: all of it is written, or nothing.

        `work` is done again, for twenty seconds, while what hinders it passes by itself.
        `tell`: whether other processes are to be told.
        """
        with self._writing:
            for wait_s in self._tries():
                try:
                    return self._write_once(work, tell)
                except psycopg.Error as error:
                    if not is_passing(error):
                        raise fault_of(error, self.url) from error
                    if wait_s is None:
                        raise unreachable(error, self.url) from error
                    if isinstance(error, LockNotAvailable):
                        self.when_blocked()
                self._closed.wait(wait_s)
            raise AssertionError("the last try returns or raises")

    def _tries(self) -> Iterator[float | None]:
        """How long to wait after a try that failed; None for the last."""
        yield from _WAITS_S
        yield None

    def _write_once(self, work: Callable[[Link], T], tell: Callable[[T], bool]) -> T:
        if self._closed.is_set():
            raise StoreUnavailable(f"Store '{self.url}' was closed by this process.")
        link = self._writer
        if link is None or link.is_broken:
            link = self._renew_writer()
        if link.is_standby:
            self._writer = None  # it may be promoted: look again next time
            link.close()
            raise read_only(self.url, "the server is a standby")
        try:
            answer = work(link)
            told = tell(answer)
        except BaseException:
            link.undo()
            raise
        if not link.is_sent:
            self._commit(link, told=told)
        elif link.unanswered is not None and not self._was_written(link, link.unanswered):
            raise link.unanswered
        if link.fence is not None:
            assert link.witness is not None, "each transaction is ended with one"
            self._acknowledged = link.transaction_number, link.witness
        return answer

    def look_after_writer(self) -> None:
        """Renew the connection that writes, if it is cut. Raises CommitsLost."""
        if self._writing.acquire(blocking=False):  # else somebody writes
            try:
                if self._writer is not None and self._writer.is_cut and not self._closed.is_set():
                    with self.faults():
                        self._renew_writer()
            finally:
                self._writing.release()

    def _renew_writer(self) -> Link:
        broken = self._writer
        if broken is not None:
            broken.close()
        fresh = self.connect()
        if not fresh.is_standby and self._acknowledged is not None and not _has(fresh, *self._acknowledged):
            fresh.close()
            raise lost_commits(self.url)
        if broken is not None and not fresh.is_standby:
            fresh.end_at_server(broken)
        self._writer = fresh
        return fresh

    def _commit(self, link: Link, *, told: bool) -> None:
        done: Answer | None = None
        try:
            with link.sending():
                if link.witness is None:
                    token = next(self._tokens)
                    link.run("say", self._process, token)
                    link.witness = "witness_said", self._process, token
                done = link.send("COMMIT")
                if told:  # in a transaction of its own: one that tells holds up all others that do
                    link.run("tell", self.place.channel)
        except psycopg.Error as error:
            if done is not None and done.said == "COMMIT":
                return
            if not link.is_broken:
                link.undo()
                raise
            if not self._was_written(link, error):
                raise
        else:
            if done.said != "COMMIT":
                raise AssertionError(f"a transaction ended with {done.said}: nothing was written")

    def _was_written(self, broken: Link, error: psycopg.Error) -> bool:
        """What became of a transaction whose COMMIT was sent, and not answered; asked until it is known."""
        for wait_s in chain(_WAITS_S, repeat(_WAITS_S[-1])):
            try:
                return self._ask_after(broken)
            except psycopg.Error as again:
                if self._closed.is_set() or not is_passing(again):
                    raise StoreUnavailable(
                        f"Store '{self.url}' broke off while it wrote, and cannot be asked whether it did: "
                        f"{fault_of(error, self.url).what}",
                        hint="When the server is back, open the store again: runs go on from what was kept.",
                    ) from again
            self._closed.wait(wait_s)
        raise AssertionError("the last try returns or raises")

    def _ask_after(self, broken: Link) -> bool:
        link = self._renew_writer()
        if broken.is_sent:
            link.wait_for_end(broken)
        elif not _is_committed(link, broken.transaction_number):
            return False
        # After a crash the same number may have gone to another transaction.
        assert broken.witness is not None, "each transaction is ended with one"
        if not link.rows(*broken.witness):
            return False
        fence = broken.fence
        if fence is not None and not link.rows("holds_lease", fence.lease.number):
            raise fence.lost_unanswered()  # what was found may be another worker's by now
        return True

    def close(self) -> None:
        """Close all; a second time does nothing."""
        self._closed.set()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
        while self._readers:
            self._readers.pop().close()


def _do_nothing() -> None:
    pass


def _is_committed(link: Link, transaction: int) -> bool:
    """Whether a transaction of this number was committed; one that is still open is ended."""
    while True:
        try:
            ((status,),) = link.rows("transaction_status", transaction)
        except psycopg.DataError:
            return False  # "in the future": the server crashed, and never kept that it was given
        if status != "in progress":
            return bool(status == "committed")
        link.run("end_transaction", transaction)
        link.pause()


def _has(link: Link, transaction: int, witness: Witness) -> bool:
    """Whether the server has a transaction that was committed."""
    if transaction:  # else its number did not come; a witness of it was found
        try:
            ((status,),) = link.rows("transaction_status", transaction)
        except psycopg.DataError:
            return False  # "in the future": it never heard of it
        if status != "committed":
            return status is None  # so long ago that it does not know any more
    # The same number may have gone to another transaction.
    return bool(link.rows(*witness))


def _read_together(link: Link, statements: tuple[tuple[str, *tuple[Any, ...]], ...]) -> list[list[Row]]:
    with link.sending():
        link.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        answers = [link.run(*statement) for statement in statements]
        link.send("COMMIT")
    return [answer.fetchall() for answer in answers]
