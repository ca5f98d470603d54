"""Row 24: a newer release migrates a PostgreSQL store, and is killed in the midst of it, again and again.

Workers of the release before go on all the while. The newer release is this one with three
migrations more, each of several statements that take a moment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from perdure.stores.migrate import Migration
from perdure.stores.postgres import migrating
from perdure.stores.postgres import store as of_store
from perdure.stores.postgres.connection import Database
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.migrating import MIGRATIONS, prepare, schema_number
from perdure.stores.postgres.place import find_place
from perdure.stores.statements import load_statements

from .fleet import Fleet, told_by
from .lives import Life
from .planted import replaced
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server

_KILLS = 8
_LONGEST_LIFE_S = 0.12
_AT_ONCE = 2
_MORE = 3
_SEEDS_FOR_A_CONTROL = 5

_SQL = """
CREATE TABLE more_{n} (x int);
SELECT pg_sleep(0.02);
INSERT INTO more_{n} VALUES ({n});
ALTER TABLE run ADD COLUMN more_{n} int DEFAULT {n};
SELECT pg_sleep(0.02);
CREATE INDEX run_more_{n} ON run (more_{n})
"""
_NEWER = (
    *MIGRATIONS,
    *(
        Migration(n, "more", _SQL.format(n=n))
        for n in range(len(MIGRATIONS) + 1, len(MIGRATIONS) + 1 + _MORE)
    ),
)


def _run(work: Work, server: Server) -> Counted:
    def trial(seed: int, folder: Path) -> None:
        _kill_again_and_again(server, f"trial_{seed}", seed, folder)

    def controls(work: Work) -> Sequence[Control]:
        broken = ""
        for seed in range(_SEEDS_FOR_A_CONTROL):
            with work.fresh_folder() as folder, applying_bit_by_bit():
                broken = told_by(partial(_kill_again_and_again, server, f"control_{seed}", seed, folder))
            if broken:
                break
        return [Control("a migration is no transaction", bool(broken), broken or "nothing")]

    counted = work.counted(trial, controls=controls)
    return Counted(
        counted.trials, counted.failures, counted.controls, figures={"kills": _KILLS * counted.trials}
    )


def _kill_again_and_again(server: Server, schema: str, seed: int, folder: Path) -> None:
    draw = chance(seed)
    url = server.store_url(schema)
    fleet = Fleet(folder, url)
    errors = folder / "errors of the newer release"
    newer: list[Life] = []
    try:
        fleet.live_until_effects(1)
        for _ in range(_KILLS):
            newer = [Life(partial(_migrate, url), errors=errors) for _ in range(_AT_ONCE)]
            fleet.live_for(draw.random() * _LONGEST_LIFE_S)
            for life in newer:
                life.kill()
                assert life.code in (os.EX_OK, -9), f"a migration failed: {errors.read_text()[-500:]}"
            _look_at_schema(server, schema)
        newer = [Life(partial(_migrate, url), errors=errors) for _ in range(_AT_ONCE)]
        for life in newer:
            life.end()
        assert _look_at_schema(server, schema) == _NEWER[-1].number, "the schema is not the newest"
        fleet.live_until_effects(1)
        with replaced(
            of_store, prepare=partial(prepare, migrations=_NEWER)
        ):  # the witness is of the newer one
            fleet.come_to_the_end()
    finally:
        for life in newer:
            life.kill()
        fleet.end()


async def _migrate(url: str) -> None:
    """What a process of the newer release does first."""
    database = Database(
        find_place(url), load_statements(of_store._STATEMENTS, s=f'"{find_place(url).schema}"')
    )
    prepare(database, create=True, only_look=False, migrations=_NEWER)


def _look_at_schema(server: Server, schema: str) -> int:
    """The schema's number. Raises AssertionError where it is not whole.

    At one moment: the server may still carry out what a process sent that has been killed since.
    """
    with server.snapshot() as query:
        ((number,),) = query(f"SELECT max(number) FROM {schema}.perdure_migration")
        for migration in _NEWER[len(MIGRATIONS) :]:
            n = migration.number
            found = query(
                "SELECT 'table' FROM pg_tables WHERE (schemaname, tablename) = "
                f"('{schema}', 'more_{n}') UNION ALL "
                "SELECT 'index' FROM pg_indexes WHERE (schemaname, indexname) = "
                f"('{schema}', 'run_more_{n}') UNION ALL "
                "SELECT 'column' FROM information_schema.columns WHERE "
                f"(table_schema, table_name, column_name) = ('{schema}', 'run', 'more_{n}')"
            )
            expected = 3 if n <= number else 0
            assert len(found) == expected, (
                f"schema {number} has of migration {n} only {[row[0] for row in found]}"
            )
            if expected:
                rows = query(f"SELECT x FROM {schema}.more_{n}")
                assert rows == [(n,)], f"migration {n} was applied {len(rows)} times"
    return number


def applying_bit_by_bit() -> AbstractContextManager[None]:
    """Each statement of a migration is a transaction of its own."""

    apply_whole = migrating._apply

    def apply(link: Link, database: Database, migration: Migration) -> None:
        if migration in MIGRATIONS:
            apply_whole(link, database, migration)
            return
        link.do(f'SET search_path = "{database.place.schema}"')
        if (schema_number(link, database) or 0) < migration.number:
            for statement in migration.sql.split(";"):
                link.do(statement)
            link.do(f"INSERT INTO perdure_migration (number, name) VALUES ({migration.number}, 'more')")

    return replaced(migrating, _apply=apply)


ROW = Row(
    number=24,
    name="migrations",
    fault="A newer release brings a PostgreSQL store to its schema, in two processes at once, and is killed.",
    how="`kill -9` at random instants, eight times in each trial, while two workers of this release go on.",
    holds=(
        "the schema is always whole: that of some release",
        "the next process goes on; each migration is applied once",
        "workers of the release before go on, and lose nothing",
    ),
    trials=Trials(push=1, long=100, release=1_000),
    run=with_a_server(_run),
)
