"""The store in a PostgreSQL database: read `store` first."""

from .store import PostgresStore

__all__ = ["PostgresStore"]
