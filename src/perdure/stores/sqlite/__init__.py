"""The store in one SQLite file: read `store` first."""

from .connection import find_place
from .store import SqliteStore

__all__ = ["SqliteStore", "find_place"]
