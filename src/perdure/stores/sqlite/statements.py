"""Every statement of this store, by name, from its `.sql` files.

Modules take what they need from `SQL` when they are imported, so a name that is
not there is noticed at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..statements import load_statements

_FILES: Final = (
    "statements.sql",
    "jobs.sql",
    "moving.sql",
    "streams.sql",
    "awaiting.sql",
    "schemas.sql",
    "windows.sql",
    "dead.sql",
    "lag.sql",
    "moving_streams.sql",
)

SQL: Final = load_statements(
    "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _FILES)
)
