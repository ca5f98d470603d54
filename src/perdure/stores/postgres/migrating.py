"""Brings the tables of a store up to this release's.

Each migration is a transaction of its own with its number, under a lock that one process
has at a time: who is killed in between leaves a whole schema of some number,
and the next goes on from there. Migrations only add, so a worker of the release
before goes on beside them.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

from ...errors import StoreNotOurs, StoreUnavailable, StoreVersionError
from ..migrate import Migration, load_migrations, pending_migrations
from .connection import Database
from .faults import read_only
from .link import Link

MIGRATIONS: Final = load_migrations(Path(__file__).with_name("migrations"))

_MARK: Final = "perdure_migration"
"""The table that says which migrations were applied, and that the schema is ours."""


def prepare(
    database: Database,
    *,
    create: bool,
    only_look: bool,
    migrations: tuple[Migration, ...] = MIGRATIONS,
) -> None:
    """Make the tables, or bring them up to date, unless `only_look` or `create` say otherwise.

    Raises StoreUnavailable, StoreNotOurs, StoreVersionError.
    """
    number = database.read(lambda link: schema_number(link, database))
    if number is None and (only_look or not create):
        raise StoreUnavailable(
            f"There is no store at '{database.url}', and this only looks at what is there.",
            hint="`perdure run` and `perdure start` make one; --store or PERDURE_STORE names another.",
        )
    pending = pending_migrations(migrations, schema=number or 0, url=database.url)
    if only_look and pending:
        raise StoreVersionError(
            f"Store '{database.url}' has schema {number}, and this release needs {migrations[-1].number}: it "
            "would have to be changed, and this only looks.",
            hint="`perdure doctor --store URL` brings it up to date.",
        )
    if pending and database.is_standby:
        raise read_only(
            database.url, f"it must be brought to schema {migrations[-1].number} before it can be used"
        )
    if pending:
        with database.faults(), closing(database.connect()) as link:
            for migration in pending:
                _apply(link, database, migration)
    if not only_look and not database.is_standby:
        _settle_positions(database)
        set_stream_clock(database)


def set_stream_clock(database: Database) -> None:
    """Set the clock of the streams, if this is another life of the server than when it was last set."""

    def work(link: Link) -> None:
        with link.sending():  # by a connection that reads, which may be one that writes only if it is told to
            link.send("BEGIN READ WRITE")
            link.run("set_stream_clock")
            link.send("COMMIT")

    database.read(work)


def schema_number(link: Link, database: Database) -> int | None:
    """The number of the last migration applied; None where there is no store. Raises StoreNotOurs."""
    schema = database.place.schema
    marks = "SELECT to_regclass($1) IS NOT NULL, EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace "
    marks += "ON pg_namespace.oid = relnamespace WHERE nspname = $2)"
    ((is_ours, is_used),) = link.query(marks, f'"{schema}".{_MARK}', schema)
    if is_ours:
        ((number,),) = link.query(f'SELECT max(number) FROM "{schema}".{_MARK}')  # noqa: S608
        return number
    if is_used:
        raise StoreNotOurs(
            f"Schema '{schema}' of '{database.url}' is not a Perdure store: it has other tables.",
            hint="Name another with ?schema=name in the URL; this one was left as it is.",
        )
    return None


def _apply(link: Link, database: Database, migration: Migration) -> None:
    """Apply one migration, unless another process just did."""
    schema = database.place.schema
    link.do("BEGIN; SET LOCAL lock_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = 0")
    link.run("lock_lease", database.place.space("the migration"), 0)
    number = schema_number(link, database)
    if number is None:
        _make_schema(link, schema)
    if (number or 0) < migration.number:
        link.do(f'SET LOCAL search_path = "{schema}"')
        # What a migration may want to keep: the lock of the gate, for functions that pass it.
        link.do(f"SET LOCAL perdure.gate = '{database.place.space('the gate')}'")
        link.do(migration.sql)
        mark = f'INSERT INTO "{schema}".{_MARK} (number, name) VALUES ($1, $2)'  # noqa: S608
        link.query(mark, migration.number, migration.name)
    link.do("COMMIT")


def _make_schema(link: Link, schema: str) -> None:
    # Not IF NOT EXISTS: that asks for the right to make one even where there is one already.
    if not link.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
        link.do(f'CREATE SCHEMA "{schema}"')
    link.do(
        f'CREATE TABLE "{schema}".{_MARK} '
        "(number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _settle_positions(database: Database) -> None:
    """Give messages new positions where theirs are of another server, from which this store was copied."""

    def work(link: Link) -> None:
        with link.transaction():
            link.run("lock_lease", database.place.space("the migration"), 0)
        ((last, next_free),) = link.rows("last_position")
        if last is not None and last >= next_free:
            link.rows("number_messages_anew")

    ((last, next_free),) = database.rows("last_position")
    if last is not None and last >= next_free:
        database.write(work)
