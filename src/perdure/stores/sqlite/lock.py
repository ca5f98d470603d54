"""The lock of the operating system on the file beside the store: it tells at once that a worker is dead.

It is a hint. A holder that died has let it go, so the next worker need not wait
out the lease. What keeps two workers from writing is the fence in the lease's
row. The lock file is never removed: who locks a new file of the same name would
believe that the holder is dead.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

# POSIX locks belong to a process, and go when it closes *any* descriptor of the
# file: so within a process nobody may open the file while someone here holds it.
_held: Final[dict[str, int]] = {}
_guard: Final = threading.Lock()

_FLOCK: Final = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length, process."""


class WorkerLock:
    """One lock file. Not inherited: neither a fork nor an exec holds it."""

    def __init__(self, path: str, *, mode_of: str) -> None:
        """`mode_of` is the file whose permissions the lock file takes; where none is, there is no lock."""
        self._path = os.path.realpath(path)
        self._mode_of = mode_of
        self._is_possible = sys.platform != "win32" and os.path.exists(mode_of)
        """Not in memory, nor in a file system that a test brings."""
        self._descriptor = -1
        self._process = 0

    @property
    def is_held(self) -> bool:
        """Whether this object, in this process, holds the lock."""
        return self._descriptor >= 0 and self._process == os.getpid()

    def try_take(self) -> bool:
        """Take the lock if it is free. False where another has it, or where there are no locks."""
        if self.is_held:
            return True
        if not self._is_possible:
            return False
        with _guard:
            if _held.get(self._path) == os.getpid():
                return False
            self._descriptor = _open_locked(self._path, mode_of=self._mode_of)
            if self._descriptor < 0:
                return False
            self._process = _held[self._path] = os.getpid()
            return True

    def is_taken(self) -> bool:
        """Whether anybody has the lock. True where that cannot be told."""
        if not self._is_possible:
            return True
        with _guard:
            return _held.get(self._path) == os.getpid() or _is_locked(self._path)

    def drop(self) -> None:
        """Let the lock go, if it is held here."""
        if not self.is_held:
            return
        with _guard:
            del _held[self._path]
            os.close(self._descriptor)
            self._descriptor = -1


def _open_locked(path: str, *, mode_of: str) -> int:
    """Open and lock `path`; -1 when that cannot be."""
    if sys.platform == "win32":  # a type checker there knows no fcntl
        return -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, Path(mode_of).stat().st_mode & 0o777)
    except OSError:
        return -1
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _is_locked(path: str) -> bool:
    """Whether another process has locked `path`. Asks only: to try the lock would be in its taker's way."""
    if sys.platform != "linux":
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK
