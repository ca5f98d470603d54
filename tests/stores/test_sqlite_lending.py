"""The connection that writes, lent to a step: which tables it may not write to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.lending import OUR_TABLES


def test_every_table_of_the_store_is_out_of_a_steps_reach(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "runs.db").close()

    with closing(apsw.Connection(str(tmp_path / "runs.db"))) as connection:
        rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()

    assert sorted(OUR_TABLES) == sorted(name for (name,) in rows if not str(name).startswith("sqlite_"))
