"""A disk that fails when a test says so, under everything that SQLite writes in this process.

    with FaultyDisk() as disk:
        store = SqliteStore(folder / "runs.db")
        disk.cut_power(nth=17)
        …                                   # until something raises
        disk.survivors(folder, after, source)
    store = SqliteStore(after / "runs.db")  # what the next boot would find

Files are real, and hold what a program sees while the machine runs. Beside them
the disk knows what a loss of power would leave: what was synced, and of the rest
some sectors, in any order, some of them torn; a file whose folder was not synced
may be missing, and a removed one may be back. Nothing is really synced.

It is an SQLite VFS, written in Python, that stands in for the default one while
the block lasts: what is opened before or after it is not touched by it. The lock
file of a worker is no SQLite file, so it does not come through here.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import apsw

from ..runtime.clock import Source

if TYPE_CHECKING:
    from typing_extensions import Buffer

Operation: TypeAlias = Literal["open", "delete", "exists", "read", "write", "truncate", "sync", "size"]
"""What SQLite asks of a disk."""

SECTOR_BYTES: Final = 512
"""What a disk writes whole; anything larger may be torn where two of these meet."""

_CODES: Final[dict[Operation, int]] = {
    "open": apsw.SQLITE_CANTOPEN,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "exists": apsw.SQLITE_IOERR_ACCESS,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "size": apsw.SQLITE_IOERR_FSTAT,
}
_LOGS: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Fault(Enum):
    """How an operation fails."""

    ERROR = "error"
    """It does nothing, and answers with an I/O error. A sync that fails so has also lost what it should
    have kept, as on Linux: the next sync succeeds, and that data still never reaches the disk."""
    SHORT = "short"
    """A write comes half way, then an I/O error."""
    FULL = "full"
    """A write comes half way, then there is no space."""
    POWER = "power"
    """The power goes: this operation, if it writes, may be done in part, and all later ones fail."""


_WRITES: Final[frozenset[Operation]] = frozenset({"write"})
_ALL: Final[frozenset[Operation]] = frozenset(_CODES)


class _Content:
    """One file as the disk has it: what is safe, and what is on its way."""

    __slots__ = ("base", "is_named", "pending", "syncs_folder")

    def __init__(self, base: bytes, *, is_named: bool, syncs_folder: bool) -> None:
        self.base = bytearray(base)
        """What was there when it was last synced."""
        self.pending: list[tuple[int, bytes] | int] = []
        """Since then: (offset, data) of a write, or the size of a truncation."""
        self.is_named = is_named
        """Whether the folder is sure to know it."""
        self.syncs_folder = syncs_folder
        """Whether its first sync also syncs the folder, as SQLite does for its logs."""

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.base, change)
        self.pending.clear()


class _Platter:
    """What the disk has of each file; the folders' entries included."""

    def __init__(self) -> None:
        self._contents: dict[str, _Content] = {}
        self._removed: dict[str, _Content] = {}
        """Files that are gone, and that a loss of power may bring back."""
        self._mutex = threading.Lock()

    def open(self, path: str, *, is_new: bool, flags: int) -> _Content:
        with self._mutex:
            content = self._contents.get(path)
            if content is None:
                base = b"" if is_new else Path(path).read_bytes()
                content = _Content(base, is_named=not is_new, syncs_folder=is_new and bool(flags & _LOGS))
                self._contents[path] = content
            return content

    def delete(self, path: str, *, sync_folder: bool) -> None:
        with self._mutex:
            content = self._contents.pop(path, None)
            if content is not None and content.is_named:
                self._removed[path] = content
            if sync_folder:
                self._sync_folder(Path(path).parent)

    def sync(self, path: str, content: _Content) -> None:
        with self._mutex:
            content.sync()
            if content.syncs_folder:
                content.syncs_folder = False
                self._sync_folder(Path(path).parent)

    def _sync_folder(self, folder: Path) -> None:
        for path, content in self._contents.items():
            content.is_named = content.is_named or Path(path).parent == folder
        for path in [path for path in self._removed if Path(path).parent == folder]:
            del self._removed[path]

    def survivors(self, folder: Path, source: Source) -> Iterator[tuple[str, bytes]]:
        """The name and content of each file that is there after a loss of power."""
        kept = source.draw() * 1.5 - 0.25  # below 0 nothing is kept, above 1 all
        with self._mutex:
            for path in sorted({*self._contents, *self._removed}):
                if Path(path).parent == folder:
                    content = self._after_loss(path, kept, source)
                    if content is not None:
                        yield Path(path).name, content

    def _after_loss(self, path: str, kept: float, source: Source) -> bytes | None:
        content = self._contents.get(path)
        if content is None or not (content.is_named or source.draw() < kept):
            content = self._removed.get(path)
            if content is None or source.draw() < kept:
                return None
        left = bytearray(content.base)
        for change in content.pending:
            if not isinstance(change, int):
                _keep_some(left, *change, kept, source)
            elif source.draw() < kept:
                _apply(left, change)
        return bytes(left)


class _Planned:
    """A fault that waits for its operation."""

    __slots__ = ("_lasting", "_left", "_of", "fault")

    def __init__(self, fault: Fault, nth: int, of: frozenset[Operation], lasting: bool) -> None:
        self.fault = fault
        self._left = nth
        self._of = of
        self._lasting = lasting

    def meets(self, operation: Operation) -> bool:
        """Whether this is the one."""
        if operation not in self._of:
            return False
        self._left -= 1
        return self._left == 0 or (self._lasting and self._left < 0)


class FaultyDisk:
    """The disk under SQLite, in a test's hands. Use it with `with`; one at a time."""

    def __init__(self) -> None:
        self.counts: Counter[Operation] = Counter()
        """How many operations of each kind came."""
        self.faults_made = 0
        """How many operations failed because a test wanted it."""
        self.is_dead = False
        """Whether the power is gone."""
        self.is_full = False
        """Whether no file may grow."""
        self.before_operation: Callable[[], None] = lambda: None
        """Called before each operation, and instead of a sleep where SQLite waits for a lock: for example
        to let another thread go first."""
        self._planned: list[_Planned] = []
        self._platter = _Platter()
        self._mutex = threading.Lock()
        self._vfs: _Vfs | None = None
        self._hook_before = sys.unraisablehook

    def __enter__(self) -> Self:
        self._vfs = _Vfs(self, self._platter, base=apsw.vfs_names()[0])
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._pass_over
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._vfs is not None
        sys.unraisablehook = self._hook_before
        apsw.set_default_vfs(self._vfs.base)
        # Connections that are still open keep it alive; new ones do not find it.
        self._vfs.unregister()

    def _pass_over(self, unraisable: sys.UnraisableHookArgs, /) -> None:
        # SQLite asks on after an error, and hands out one of them only: the others need not be told.
        if not isinstance(unraisable.exc_value, apsw.Error):
            self._hook_before(unraisable)

    @property
    def operations(self) -> int:
        """How many operations came, of all kinds."""
        return self.counts.total()

    def fail(
        self,
        fault: Fault = Fault.ERROR,
        *,
        nth: int = 1,
        of: Collection[Operation] | None = None,
        lasting: bool = False,
    ) -> None:
        """Make the `nth` operation from now fail; with `lasting` those after it too.

        `of` says which operations count; by default those that can fail so: writes
        for SHORT and FULL, else all.
        """
        counted = _WRITES if fault in (Fault.SHORT, Fault.FULL) else _ALL
        self._planned.append(_Planned(fault, nth, frozenset(of or counted), lasting))

    def cut_power(self, *, nth: int = 1) -> None:
        """Let the power go in the `nth` operation from now."""
        self.fail(Fault.POWER, nth=nth)

    def fill_up(self) -> None:
        """Let no file grow from now on; what is there may be written over."""
        self.is_full = True

    def mend(self) -> None:
        """Let nothing fail any more, and let there be space. What is lost stays lost."""
        self._planned.clear()
        self.is_full = False

    def survivors(self, folder: Path, into: Path, source: Source) -> None:
        """Write into the folder `into` what a loss of power now could leave of `folder`.

        What was synced is there. Each change since is kept, lost or torn by the
        sector; how much of it differs from one loss to the next, from all to nothing.
        All chance comes from `source`, so a seed gives the same files again.
        """
        into.mkdir(exist_ok=True)
        for name, content in self._platter.survivors(folder.absolute(), source):
            (into / name).write_bytes(content)

    def meet(self, operation: Operation) -> Fault | None:
        """Count an operation, and let it fail if it shall; the VFS asks this before each.

        Gives the fault where something of the operation happens before it fails:
        the part of a write, the loss of what a sync should have kept.
        """
        self.before_operation()
        with self._mutex:
            self.counts[operation] += 1
            if self.is_dead:
                raise _error(operation, "the power is gone")
            fault = next((planned.fault for planned in self._planned if planned.meets(operation)), None)
            if fault is None:
                return None
            self.faults_made += 1
            self.is_dead = fault is Fault.POWER
        if (operation == "write" and fault is not Fault.ERROR) or (operation, fault) == ("sync", Fault.ERROR):
            return fault
        raise _error(operation, f"the test's {fault.value}")


# The names of the methods below are SQLite's.
# ruff: noqa: N802


class _Vfs(apsw.VFS):
    """Opens files that ask the disk first."""

    def __init__(self, disk: FaultyDisk, platter: _Platter, *, base: str) -> None:
        self._disk = disk
        self._platter = platter
        self.base = base
        super().__init__(f"perdure-faulty-{id(disk):x}", base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None or flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE:
            return apsw.VFSFile(self.base, name, flags)  # scratch space, gone with the process
        self._disk.meet("open")
        return _File(self._disk, self._platter, self.base, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.meet("delete")
        super().xDelete(filename, False)
        self._platter.delete(filename, sync_folder=bool(syncdir))

    def xSleep(self, microseconds: int) -> int:
        self._disk.before_operation()
        return microseconds

    def xAccess(self, pathname: str, flags: int) -> bool:
        self._disk.meet("exists")
        return super().xAccess(pathname, flags)


class _File(apsw.VFSFile):
    """A real file; each operation asks the disk first."""

    def __init__(
        self,
        disk: FaultyDisk,
        platter: _Platter,
        base: str,
        name: str | apsw.URIFilename,
        flags: list[int],
    ) -> None:
        self._disk = disk
        self._platter = platter
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = not Path(self._path).exists()
        super().__init__(base, name, flags)
        self._content = platter.open(self._path, is_new=is_new, flags=flags[0])

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: Buffer, offset: int) -> None:
        fault = self._disk.meet("write")
        written = bytes(data)
        if fault is None and self._disk.is_full and offset + len(written) > super().xFileSize():
            self._disk.faults_made += 1
            raise _full()
        if fault is not None:
            written = written[: len(written) // 2]
        self._content.pending.append((offset, written))
        super().xWrite(written, offset)
        if fault is Fault.FULL:
            raise _full()
        if fault is not None:
            raise _error("write", f"the test's {fault.value}")

    def xTruncate(self, newsize: int) -> None:
        self._disk.meet("truncate")
        self._content.pending.append(newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        fault = self._disk.meet("sync")
        if fault is not None:
            self._content.pending.clear()  # the program still sees it, and the disk never will
            raise _error("sync", f"the test's {fault.value}")
        self._platter.sync(self._path, self._content)

    def xFileSize(self) -> int:
        self._disk.meet("size")
        return super().xFileSize()


def _apply(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
        return
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _keep_some(content: bytearray, offset: int, data: bytes, kept: float, source: Source) -> None:
    """Apply each sector of a write, or not, or the first part of it."""
    at = 0
    while at < len(data):
        until = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        drawn = source.draw()
        if drawn < kept:
            # One in ten is torn, unless all is kept.
            part = until if kept >= 1 or drawn < kept * 0.9 else at + int((until - at) * source.draw())
            _apply(content, (offset + at, data[at:part]))
        at = until


def _error(operation: Operation, why: str) -> apsw.Error:
    kind = apsw.CantOpenError if operation == "open" else apsw.IOError
    return _coded(kind(f"{operation}: {why}"), _CODES[operation])


def _full() -> apsw.Error:
    return _coded(apsw.FullError("write: there is no space"), apsw.SQLITE_FULL)


def _coded(error: Any, code: int) -> apsw.Error:
    error.extendedresult = code  # SQLite gives it back as its own; apsw's stubs do not name it here
    return error
