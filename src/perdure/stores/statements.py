"""Reads a store's SQL from its `statements.sql`, block by block."""

from __future__ import annotations


def load_statements(text: str, **words: str) -> dict[str, str]:
    """Split `text` at its `-- name:` lines; drop comments; put blocks, and `words`, in for `{name}`.

    A block may name others whatever the order in which they stand.
    """
    blocks: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        lines = (line for line in body.splitlines() if line and not line.startswith("--"))
        blocks[name.strip()] = "\n".join(lines)
    return {name: _fill(body, blocks, words) for name, body in blocks.items()}


def _fill(body: str, blocks: dict[str, str], words: dict[str, str]) -> str:
    while "{" in body:
        body = body.format_map(blocks | words)
    return body
