"""Names in a file that Perdure shares with its user: a migration never meets a table of theirs unawares.

A new file is ours alone, and users make their tables beside ours later. So only what a
later release adds can have a name that is taken; then the file is left as it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import apsw

from ...errors import StoreVersionError
from ..migrate import Migration

_MADE: Final = re.compile(
    r"^(?:CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER|VIEW)|ALTER TABLE \w+ RENAME TO) (\w+)", re.MULTILINE
)


def refuse_taken_names(
    connection: apsw.Connection, migrations: Sequence[Migration], *, schema: int, url: str
) -> None:
    """Raise StoreVersionError if what the pending migrations make has the name of something of the user's.

    Called in the transaction that migrates, from `schema`: what another process has made meanwhile is ours.
    """
    ours = {name for migration in migrations[:schema] for name in _MADE.findall(migration.sql)}
    wanted = {name for migration in migrations[schema:] for name in _MADE.findall(migration.sql)} - ours
    theirs = connection.execute("SELECT type, name FROM sqlite_schema ORDER BY rowid").fetchall()
    taken = [f"{kind} '{name}'" for kind, name in theirs if str(name).lower() in wanted]
    if taken:
        *others, last = taken
        said = f"{', '.join(others)} and {last}" if others else last
        raise StoreVersionError(
            f"Store '{url}' has schema {schema}, and this release needs {migrations[-1].number}, in which "
            f"Perdure has something of its own by the name of your {said}. Nothing was changed.",
            hint="Rename yours (ALTER TABLE … RENAME TO …) and open the store again, or go on with the "
            "release that wrote it. A prefix of your own (`shop_…`) keeps clear of all that is to come.",
        )
