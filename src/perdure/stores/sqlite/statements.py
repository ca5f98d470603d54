"""Reads the SQL of this store from `statements.sql`, block by block.

Modules take what they need from `SQL` when they are imported, so a name that is
not there is noticed at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final


def load_statements(text: str) -> dict[str, str]:
    """Split `text` at its `-- name:` lines; drop comments; put blocks in for `{name}`."""
    statements: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        lines = (line for line in body.splitlines() if line and not line.startswith("--"))
        statements[name.strip()] = "\n".join(lines)
    return {name: body.format_map(statements) for name, body in statements.items()}


SQL: Final = load_statements(Path(__file__).with_name("statements.sql").read_text(encoding="utf-8"))
