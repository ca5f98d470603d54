"""Brings the schema of a store up to this release's, whatever database it is.

The law: all pending migrations are applied in one transaction that holds the
schema alone, so a crash leaves the old schema, and of two processes that open
the store at once one migrates and the other finds it done.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from ..errors import StoreVersionError


class Migration(msgspec.Struct, frozen=True):
    """One step from a schema to the next."""

    number: int
    """The schema's number afterwards."""
    name: str
    sql: str


class Schema(Protocol):
    """A store's tables, as far as migrating them goes."""

    @property
    def url(self) -> str: ...

    def alone(self) -> AbstractContextManager[int]:
        """Hold the schema alone and give its number; write all at the end, or nothing on an error."""
        ...

    def apply(self, migration: Migration) -> None:
        """Run one migration, and note its number as the schema's."""
        ...


def load_migrations(directory: Path) -> tuple[Migration, ...]:
    """Read `0001_name.sql`, `0002_name.sql` … in order."""
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        migrations.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    numbers = [migration.number for migration in migrations]
    assert numbers == list(range(1, len(numbers) + 1)), f"migrations must count 1, 2, 3 …: {numbers}"
    return tuple(migrations)


def pending_migrations(migrations: tuple[Migration, ...], *, schema: int, url: str) -> tuple[Migration, ...]:
    """Say which are still to be applied. Raises StoreVersionError for a schema newer than them all."""
    newest = migrations[-1].number
    if schema > newest:
        raise StoreVersionError(
            f"Store '{url}' has schema {schema}, and this version of Perdure knows no later one than "
            f"{newest}: a newer version has written it.",
            hint="Install that newer version of Perdure here too.",
        )
    return migrations[schema:]


def migrate(schema: Schema, migrations: tuple[Migration, ...]) -> None:
    """Apply what is pending, all or nothing."""
    with schema.alone() as number:
        for migration in pending_migrations(migrations, schema=number, url=schema.url):
            schema.apply(migration)
