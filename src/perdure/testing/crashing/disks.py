"""Disks in memory, and the one that crash runs take in turns.

To make one, and to plan its statements, takes as long as several crash runs: so the
disk of the last one is swept and used again, by whichever workflow is crashed next.
The law: each crash run begins on a disk on which nothing of another can be seen.
"""

from __future__ import annotations

from itertools import count

import apsw

from ...stores.base import Store
from ...stores.opening import open_store

_numbers = count(1)
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI


def open_memory() -> Store:
    """A store in this process's memory. It is there until it is closed, whatever becomes of engines on it."""
    return open_store(f"sqlite:///file:/perdure-{next(_numbers)}?vfs=memdb")


class Disk:
    """A store in memory that can be swept."""

    def __init__(self) -> None:
        self.store = open_memory()
        self._beside = apsw.Connection(self.store.url.removeprefix("sqlite:///"), flags=_FLAGS)
        self._empty = self._schema()

    def sweep(self) -> bool:
        """Remove all runs. False if something stays: an open run, a stream, a table of the user's."""
        self.store.remove_ended(before_ms=1 << 62, limit=1 << 30)
        has_streams = self._beside.execute("SELECT 1 FROM stream").get is not None
        return not (self.store.counts() or has_streams) and self._schema() == self._empty

    def _schema(self) -> object:
        return self._beside.pragma("schema_version")

    def close(self) -> None:
        """Let it go."""
        self._beside.close()
        self.store.close()


_spare: list[Disk] = []


def take_disk() -> Disk:
    """An empty disk."""
    try:
        return _spare.pop()
    except IndexError:
        return Disk()


def give_back(disk: Disk) -> None:
    """Keep it for whoever comes next, if it can be swept and none is kept yet."""
    if disk.sweep() and not _spare:
        _spare.append(disk)
    else:
        disk.close()
