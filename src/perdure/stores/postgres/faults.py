"""Turns the server's errors into ours: what happened to which store, why, what to do next."""

from __future__ import annotations

from typing import Final

import psycopg

from ...errors import (
    CommitsLost,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnreachable,
    StoreVersionError,
)

_PASSING: Final = frozenset({
    "40001", "40P01", "55P03", "55006", "53300",  # serialization, deadlock, lock timeout, in use, too many
    "26000",  # a prepared statement that the server was told to forget
    "57P01", "57P02", "57P03", "57P05", "25P03",  # shutdowns, starting up, idle too long
})  # fmt: skip
"""SQLSTATEs of failures that pass by themselves."""
_CONNECTION: Final = "08"
_NO_ROOM: Final = ("too many clients", "too many connections", "connection slots are reserved")
_REFUSALS: Final = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
_TRY: Final = "Check that the server runs and that this machine reaches it, then try again."


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same may succeed in a moment, with nobody doing anything."""
    state = _state(error)
    if state:
        return state in _PASSING or state.startswith(_CONNECTION)
    return isinstance(error, psycopg.OperationalError) and not _is_refusal(error)


def fault_of(error: psycopg.Error, url: str) -> StoreError:
    """Say what `error` means for the store at `url`."""
    state, said = _state(error), _said(error)
    match state:
        case "53100":
            return StoreFull(
                f"The server of store '{url}' has no space left, so nothing was written: {said}.",
                hint="Make space on its disk; what was refused can then be written again.",
            )
        case "25006":
            return read_only(url, said)
        case "42501":
            return StoreUnavailable(
                f"Store '{url}' may not be used by this user: {said}.",
                hint="Have the owner of the database GRANT it, or open the store once as a user that may.",
            )
        case "XX001" | "XX002":
            return StoreCorrupt(
                f"Store '{url}' is damaged: {said}.",
                hint="Stop the workers, keep a copy of the server's files, and restore a backup.",
            )
        case "54000" | "22021" | "22P05":
            return StoreError(
                f"Something cannot be kept in store '{url}': {said}. Nothing was written.",
                hint="An id, name, key or tag is too long (they may have about 2,600 bytes), or is no text.",
            )
        case "42P01" | "42703" | "3F000":
            return StoreVersionError(
                f"Store '{url}' lacks what this version of Perdure needs: {said}.",
                hint="If its schema was removed or changed by hand, restore it; else open the store again.",
            )
        case "3D000" | "28P01" | "28000":
            return _refused(url, said)
        case _:
            if _is_refusal(error):
                return _refused(url, said)
            if _has_no_room(error):
                return no_room(error, url)
            return StoreUnavailable(f"Store '{url}' cannot be used now: {said}.", hint=_TRY)


def unreachable(error: psycopg.Error, url: str) -> StoreUnreachable:
    """The error for a server that has not answered for as long as one may wait."""
    if _has_no_room(error):
        return no_room(error, url)
    return StoreUnreachable(
        f"Store '{url}' does not answer: {_said(error)}. Nothing was written.",
        hint="Workers go on trying, and lose nothing; others should try again when the server is back.",
    )


def no_room(error: psycopg.Error, url: str) -> StoreUnreachable:
    """The error for a server that gives no further connection."""
    return StoreUnreachable(
        f"The server of store '{url}' has no connection left for this process: {_said(error)}. Nothing was "
        "written.",
        hint="A worker uses up to six connections. Raise max_connections of the server, or the CONNECTION "
        "LIMIT of the role or database; or put PgBouncer in between, in transaction mode.",
    )


def read_only(url: str, why: str) -> StoreReadOnly:
    """The error for a write to what may only be read."""
    return StoreReadOnly(
        f"Store '{url}' can be read but not written: {why}.",
        hint="Name the primary server, not a standby: target_session_attrs=read-write in the URL finds it.",
    )


def lost_commits(url: str) -> CommitsLost:
    """The error for a server that does not have what this worker was told is committed."""
    return CommitsLost(
        f"Store '{url}' has lost commits: the server that answers now does not have the last one that was "
        "acknowledged to this worker. A standby that lagged has taken over, an old primary has come back, or "
        "a backup was restored. Nothing was written.",
        hint="See that only the right server can be reached. Then start the worker again: runs go on from "
        "what is there; steps whose results were lost run again, with the same idempotency keys.",
    )


def _refused(url: str, said: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The server refused to open store '{url}': {said}.",
        hint="Check user, password and database in the URL (or PGUSER, PGPASSWORD and PGDATABASE); "
        "`createdb NAME` makes a database.",
    )


def _is_refusal(error: psycopg.Error) -> bool:
    """Whether a connection was refused for what it asked; libpq gives no SQLSTATE for that."""
    said = str(error)
    return any(
        mark in said
        for mark in (
            "authentication failed",
            "does not exist",
            "no pg_hba.conf entry",
            "no password supplied",
        )
    ) and not isinstance(error, psycopg.errors.ConnectionTimeout)


def _has_no_room(error: psycopg.Error) -> bool:
    return _state(error) == "53300" or any(mark in str(error) for mark in _NO_ROOM)


def _state(error: psycopg.Error) -> str:
    return error.sqlstate or error.diag.sqlstate or ""


def _said(error: psycopg.Error) -> str:
    lines = (line.strip(" \t-.") for line in str(error).splitlines())
    told = "; ".join(line for line in lines if line and not line.startswith("Is the server running"))
    return (error.diag.message_primary or told).rstrip(".") or type(error).__name__
