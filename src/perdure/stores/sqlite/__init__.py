"""The store in one SQLite file: read `store` first."""

from .store import SqliteStore

__all__ = ["SqliteStore"]
