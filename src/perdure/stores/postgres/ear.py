"""The connection that listens, and that shows that a worker is alive.

A thread of its own keeps one connection: it hears what other processes tell, tells them
what need not be told at once, and holds the worker's lock of presence. Who finds
that lock free knows that the worker's process is gone, and does not wait out its
lease. It is a hint: a connection may be cut, and the worker live.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg

from ...errors import StoreError
from .connection import Database
from .link import Link

_FIRST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 0.15
_HOLD_WAIT_S: Final = 3.0
_TELL_EVERY_S: Final = 0.05
"""A busy worker has something to tell at each commit, and all who tell do it one after another."""


class Ear:
    """Hears and tells, on a thread that is started when there is something to do."""

    def __init__(self, database: Database, writers: Callable[[], int]) -> None:
        """`writers` gives the process of the connection that writes: what it tells is not news."""
        self._database = database
        self._own = writers
        self._heard: Callable[[], None] | None = None
        self._lease = 0
        """Whose lock of presence is wanted; 0: none."""
        self._is_present = threading.Event()
        self._untold = False
        self._told_at_s = 0.0
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._awaken, self._wake = -1, -1
        self._link: Link | None = None

    def listen(self, heard: Callable[[], None]) -> bool:
        """See `Store.listen`."""
        if self._database.is_pooled or self._database.is_standby:
            return False
        self._heard = heard
        self._poke()
        return True

    def be_present(self, lease: int) -> None:
        """Show from now on that the holder of this lease is alive; 0: no longer."""
        if self._database.is_pooled:
            return
        self._is_present.clear()
        self._lease = lease
        self._poke()
        if lease:
            self._is_present.wait(_HOLD_WAIT_S)

    def tell_soon(self) -> None:
        """Tell other processes, with what else there will be to tell in the next moment."""
        if self._thread is not None and not self._untold:
            self._untold = True
            self._poke()

    def close(self) -> None:
        """End the thread and its connection."""
        self._closed.set()
        if self._thread is not None:
            self._poke()
            if self._thread is not threading.current_thread():
                self._thread.join()

    def _poke(self) -> None:
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                self._awaken, self._wake = os.pipe()
                os.set_blocking(self._wake, False)
                os.set_blocking(self._awaken, False)
                self._thread = threading.Thread(target=self._stay, name="perdure-ear", daemon=True)
                self._thread.start()
            if self._wake >= 0:
                with suppress(BlockingIOError):  # it will wake up anyway
                    os.write(self._wake, b"!")

    def _stay(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._closed.is_set():
            try:
                self._link = link = self._database.connect()
                wait_s = _FIRST_WAIT_S
                self._attend(link)
            except (psycopg.Error, StoreError, OSError):
                self._closed.wait(wait_s)
                wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
            finally:
                if self._link is not None:
                    self._link.close()
        with self._starting:
            os.close(self._wake)
            os.close(self._awaken)
            self._wake = self._awaken = -1

    def _attend(self, link: Link) -> None:
        listening = False
        locked = 0
        while not self._closed.is_set():
            heard = self._heard
            if heard is not None and not listening:
                link.do(f'LISTEN "{self._database.place.channel}"')
                listening = True
                heard()  # something may have been told while nobody listened
            if self._lease != locked:
                locked = self._lock(link, had=locked)
            self._tell(link)
            if self._wait(link) and heard is not None:
                heard()

    def _lock(self, link: Link, *, had: int) -> int:
        """Take the lock of the lease that is wanted, in place of the one that was."""
        lease = self._lease
        space = self._database.place.space("presence")
        if had:
            link.rows("be_absent", space, had)
        if lease:
            ((taken,),) = link.rows("be_present", space, lease)
            if not taken:  # the connection before this one is not known to be gone, or somebody looks
                self._closed.wait(_FIRST_WAIT_S)
                self._poke()
                return 0
            link.rows("note_presence", lease)
        self._is_present.set()
        return lease

    def _tell(self, link: Link) -> None:
        if self._untold and time.monotonic() - self._told_at_s >= _TELL_EVERY_S:
            self._untold = False
            link.rows("tell", self._database.place.channel)
            self._told_at_s = time.monotonic()

    def _wait(self, link: Link) -> bool:
        """Wait until there is something to do. Whether another process told something."""
        connection = link.connection
        rest_s = max(0.0, self._told_at_s + _TELL_EVERY_S - time.monotonic()) if self._untold else None
        ready, _, _ = select.select([connection.fileno(), self._awaken], [], [], rest_s)
        if self._awaken in ready:
            with suppress(BlockingIOError):
                os.read(self._awaken, 4096)
        connection.pgconn.consume_input()
        told = False
        while (notify := connection.pgconn.notifies()) is not None:
            told = told or notify.be_pid not in (link.pid, self._own())
        return told
