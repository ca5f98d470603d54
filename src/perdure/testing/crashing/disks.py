"""Disks in memory, and the one that crash runs take in turns.

To make one, and to plan its statements, takes as long as several crash runs: so the
disk of the last one is swept and used again, by whichever workflow is crashed next.
The law: each crash run begins on a disk on which nothing of another can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

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
        self._ours = self._tables()
        self._swept = [table for table in self._ours if not self._count(table)]
        """Tables in which there is something as soon as there are runs or streams."""

    def sweep(self) -> bool:
        """Remove all runs and streams. False if something stays: an open run, a table of the user's."""
        self.store.remove_ended(before_ms=1 << 62, limit=1 << 30)
        if self.store.counts() or self._schema() != self._empty:
            return False
        if self._count("stream"):
            for table in self._swept:
                self._beside.execute(f"DELETE FROM {table}")  # noqa: S608
        return True

    def query(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""
        return self._beside.execute(sql, tuple(bindings)).fetchall()

    def streams(self) -> list[str]:
        """Their names."""
        return [name for (name,) in self.query("SELECT name FROM stream ORDER BY name")]

    def tables(self) -> dict[str, list[str]]:
        """What is in each table that is the user's own, a text for each row."""
        names = [name for name in self._tables() if name not in self._ours]
        return {name: [repr(row) for row in self.query(f'SELECT * FROM "{name}"')] for name in names}  # noqa: S608

    def _tables(self) -> list[str]:
        names = self.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return sorted(name for (name,) in names)

    def _count(self, table: str) -> int:
        ((count,),) = self.query(f"SELECT count(*) FROM {table}")  # noqa: S608
        return count

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
