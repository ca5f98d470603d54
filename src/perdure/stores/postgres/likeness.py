"""Refuses servers that are too old, or that only look like PostgreSQL.

Several databases speak PostgreSQL's protocol and not all of its language: some take an
advisory lock and lock nothing. Who may write rests on what is looked for here, once, when a
store is opened: nothing is written at a server that lacks it.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from ...errors import StoreVersionError

OLDEST_SERVER: Final = 14

_NAMES: Final = {
    "CockroachDB": "CockroachDB",
    "-YB-": "YugabyteDB",
    "Redshift": "Amazon Redshift",
    "Greenplum": "Greenplum",
    "Materialize": "Materialize",
    "CrateDB": "CrateDB",
}
"""By what `version()` says, those that are known to be something else."""

_LOOKS: Final = {
    "an advisory lock locks": """
        SELECT CASE WHEN pg_try_advisory_xact_lock_shared({space}, 0) THEN EXISTS (
            SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
            AND classid = ({space}::int8 & 4294967295)::oid AND objid = 0 AND objsubid = 2
        ) ELSE false END
    """,
    "it is known which transactions are running": """
        SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8 > 0
        AND to_regprocedure('pg_current_xact_id()') IS NOT NULL
        AND to_regprocedure('pg_xact_status(xid8)') IS NOT NULL
    """,
    "what is locked can be passed over": "SELECT true FROM (SELECT 1) AS one FOR UPDATE SKIP LOCKED",
    "who listens is told": "SELECT to_regprocedure('pg_notify(text, text)') IS NOT NULL",
}
"""What is relied on, and a statement that gives `true` where it is so."""


def refuse_old_server(connection: psycopg.Connection[Any], url: str) -> None:
    """Raise StoreVersionError for a server of a version that is not supported."""
    version = connection.info.server_version
    if version >= OLDEST_SERVER * 10_000:
        return
    _refuse_by_name(url, _version(connection))
    raise StoreVersionError(
        f"Store '{url}' is on PostgreSQL {version // 10_000}, and Perdure needs {OLDEST_SERVER} or later.",
        hint="Bring the server up to date, or name another.",
    )


def refuse_lookalike(connection: psycopg.Connection[Any], url: str, *, space: int) -> None:
    """Raise StoreVersionError for a server that does not do what is relied on; a lock of `space` is tried."""
    looks = "; ".join(["BEGIN", *_LOOKS.values(), "SELECT version()", "ROLLBACK"]).format(space=space)
    try:
        cursor = connection.execute(looks.encode(), prepare=False)  # all in one round trip
        for what in _LOOKS:
            cursor.nextset()
            if cursor.fetchone() != (True,):
                raise _lookalike(connection, url, f"does not keep that {what}")
        cursor.nextset()
        _refuse_by_name(url, cursor.fetchall()[0][0])
    except psycopg.Error as error:
        if not _is_ignorance(error):
            raise
        raise _lookalike(connection, url, f"does not know what is needed: {_said(error)}") from error
    finally:
        if not connection.closed:
            connection.rollback()


def _refuse_by_name(url: str, said: str) -> None:
    """Raise StoreVersionError for a server that says itself that it is something else."""
    name = next((name for mark, name in _NAMES.items() if mark in said), None)
    if name is not None:
        raise _error(url, f"{name}, which is not PostgreSQL though it speaks its protocol ({said[:80]!r})")


def _lookalike(connection: psycopg.Connection[Any], url: str, why: str) -> StoreVersionError:
    connection.rollback()
    said = _version(connection)
    _refuse_by_name(url, said)
    return _error(url, f"a server ({said[:80]!r}) that {why}")


def _error(url: str, what: str) -> StoreVersionError:
    return StoreVersionError(
        f"Store '{url}' is on {what}. Who may write a run rests on locks, and on numbers of transactions, as "
        "PostgreSQL has them. Nothing was written.",
        hint=f"Name a server of PostgreSQL {OLDEST_SERVER} or later, or keep the store in a file: "
        "sqlite:///name.db.",
    )


def _version(connection: psycopg.Connection[Any]) -> str:
    ((said,),) = connection.execute("SELECT version()", prepare=False).fetchall()
    return said


def _is_ignorance(error: psycopg.Error) -> bool:
    """Whether the server does not know what it was told; it may also not allow it."""
    state = error.sqlstate or ""
    return (state.startswith("42") and state != "42501") or state == "0A000"


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__
