"""Files that are there whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, replacing what is there; another reader sees the old file or the new.

    The same call twice leaves the same file, so a step that writes one may be tried again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    # The step's result is about to be recorded for good: the name must survive a power loss too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    write_file(path, msgspec.json.encode(value))


def write_pretty_json(path: Path, value: Any) -> None:
    """For files that people open."""
    write_file(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def read_json(path: Path, type: type[T]) -> T:
    return msgspec.json.decode(path.read_bytes(), type=type)


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files that killed processes left behind; call it when no writer runs."""
    leftovers = list(folder.rglob(".*.tmp"))
    for path in leftovers:
        path.unlink()
    return len(leftovers)
