"""Turns the driver's errors into ours: what happened to which file, why, what to do next."""

from __future__ import annotations

from typing import Final

import apsw

from ...errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNotOurs,
    StoreReadOnly,
    StoreUnavailable,
)

DRIVER_ERRORS: Final = (apsw.Error, UnicodeDecodeError)
"""What the driver raises; the second for text that is damaged."""
_SYNCS: Final = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)


def fault_of(error: apsw.Error | UnicodeDecodeError, url: str) -> StoreError:
    """Say what the driver's `error` means for the store at `url`."""
    match error:
        case apsw.FullError():
            return StoreFull(
                f"Store '{url}' is full, so nothing was written: {error}.",
                hint="Make space on its disk; what was refused can then be written again.",
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return read_only(url, str(error))
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(
                f"Store '{url}' is locked: another program has held a transaction open on the file for "
                f"longer than a write waits ({error}). Nothing was written.",
                hint="If it lasts, look for a shell, a database browser, a script or a backup that began to "
                "write and did not commit, and end it.",
            )
        case apsw.NotADBError():
            return StoreNotOurs(
                f"The file at '{url}' is not a Perdure store: {error}.",
                hint="Name another file; this one was left as it is.",
            )
        case apsw.CorruptError() | UnicodeDecodeError():
            return StoreCorrupt(
                f"Store '{url}' is damaged: {error}.",
                hint="Stop the workers, keep a copy of the file, and restore a backup.",
            )
        case apsw.CantOpenError():
            return StoreUnavailable(
                f"Store '{url}' cannot be opened: {error}.",
                hint="Check that its directory exists and that this user may read and write there.",
            )
        case _:
            return StoreUnavailable(
                f"Store '{url}' cannot be used now: {type(error).__name__}: {error}.",
                hint="Check the disk that it is on, then try again.",
            )


def is_failed_sync(error: BaseException) -> bool:
    """Whether the disk refused to keep what was written."""
    return getattr(error, "extendedresult", 0) in _SYNCS


def failed_sync(error: BaseException, url: str) -> StoreUnavailable:
    """The error for a sync that failed, and for all writes after it."""
    return StoreUnavailable(
        f"Store '{url}' cannot be written any more: a sync of its disk failed ({error}), and another would "
        "not bring back what that one lost.",
        hint="Check the disk, then open it again: the runs go on from what was kept.",
    )


def read_only(url: str, why: str) -> StoreReadOnly:
    """The error for a write to what may only be read."""
    return StoreReadOnly(
        f"Store '{url}' can be read but not written: {why}.",
        hint="Give this user the right to write the file and its directory, or open a copy.",
    )
