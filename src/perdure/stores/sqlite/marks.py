"""The mark of a move, as a transaction sees it: every write that no lease guards looks at it first."""

from __future__ import annotations

from typing import Any

import apsw

from ..base import MoveMark
from .statements import SQL

_MARK = SQL["move_mark"]


def read_mark(connection: apsw.Connection) -> MoveMark | None:
    """The mark; None in a store that took part in no move."""
    row: Any = connection.execute(_MARK).fetchone()
    return None if row is None else MoveMark._make(row)
